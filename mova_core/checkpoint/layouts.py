"""Quantised weights of every maker -> ComfyUI's per-layer formats, or a refusal by name before anything is computed.

Seen in public: float8 (e4m3fn, e5m2) and int8 with a scale for the tensor, for each row, or for each block, under the
names of `ALIASES`, with a marker (`scaled_fp8`), a table in the header (`_quantization_metadata`), ComfyUI's
`comfy_quant`, or nothing. A weight is always its stored value times its scale, whatever the scale is called; a scale of
unsigned bytes is an exponent (OCP Microscaling's E8M0). ComfyUI has no format of scales by block: those layers become
bfloat16.

Axes: N output rows, K input columns of a linear layer; n k blocks along them.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .detect import Shapes
from .quantization import FLOAT8, FP8, GROUPS, INT8, QUANT_MARK, SCALES, Shape, configuration, marked

ALIASES = {"scale_weight": "weight_scale", "weight_scale_inv": "weight_scale", "weight.prism_scale": "weight_scale"}
ALIASES |= {"scale_input": "input_scale", "activation_scale": "input_scale"}
ALIASES |= dict.fromkeys(("scale", "scales", "weight.scale", "weight_scales", "w_scale"), "weight_scale")
ALIASES |= dict.fromkeys(("dequant_scale", "weight_dequant_scale"), "weight_scale")
STORED_PART = re.compile(rf"^(.*?)\.({'|'.join(map(re.escape, (QUANT_MARK, *SCALES, *ALIASES)))})$")
NO_WEIGHTS = re.compile(r"(^|\.)(comfy_attention\.config|scaled_fp8)$")
"""ComfyUI's wish for an attention kernel of one block, and the marker of a file: neither is a weight."""
TABLE = "_quantization_metadata"  # header, JSON: {"layers": {layer: {"format": ...}}}
BY_SHAPE = {f"{name}_{kind}" for name in FLOAT8.values() for kind in ("rowwise", "blockwise")} | {"int8_blockwise"}
"""Formats of other converters, which say no more than the shape of the scale does."""
PACKED = ("nvfp4", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16")  # two values a byte
NEEDED = {
    "int8_tensorwise": ("weight_scale",),
    "mxfp8": ("weight_scale",),
    "nvfp4": ("weight_scale", "weight_scale_2"),
    "convrot_w4a4": ("weight_scale",),
    "asym_w4a8_int8": ("weight_s_rel", "weight_s_channel"),
    "awq_w4a16": ("weight_scale", "weight_zeros"),
}
"""Format -> scales without which its weights mean nothing."""
FOREIGN = (
    (r"\.weight\.(absmax|quant_map|nested_\w+|quant_state\.\w+)$", "bitsandbytes (NF4 or FP4)"),
    (r"\.(SCB|weight_format)$", "bitsandbytes (int8)"),
    (r"\.weight\._(data|scale|shift|zeropoint)$", "optimum-quanto"),
    (r"\.(wscales|wzeros|wtscale|wcscales|proj_down|proj_up|smooth_factor(_orig)?)$", "Nunchaku (SVDQuant)"),
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.weight_(packed|shape|zero_point|g_idx)$", "compressed-tensors"),
    (r"[.:_](weight_qdata|tensor_impl(_\w+)?|_weight_qdata)$", "torchao"),
    (r"\.(W_q|W_q_meta)$", "HQQ"),
)
LARGEST = 100.0  # no layer of a transformer has a weight near it; float8 that lacks its scale goes to 448
PROBED_LAYERS, PROBED_ROWS = 4, 256  # of a file, looked at for that
BLOCKS = (128, 64, 256, 32, 16, 512, 8, 1024)  # of weight_scale_inv, whose last block may be cut off; usual ones first


def refuse_foreign(keys: Mapping[str, Any], where: str) -> None:
    """Refuse formats that no layer of ComfyUI reads.

    Raises:
        CheckpointError: naming the maker.
    """
    for key in keys:
        for pattern, maker in FOREIGN:
            if re.search(pattern, key):
                raise CheckpointError(
                    f"{where} is quantised by {maker}: {key:.120}. That is not read. Choose a file in bf16, scaled "
                    "float8 or one of ComfyUI's formats: docs/files.md of this pack"
                )


def logical_shapes(shapes: Shapes, formats: Mapping[str, str]) -> dict[str, Shape]:
    """Shapes that the weights have once they are read, without scales and marks. `formats`: layer -> its format."""
    out: dict[str, Shape] = {}
    for key, shape in shapes.items():
        if STORED_PART.match(key) or NO_WEIGHTS.search(key):
            continue
        layer = key.removesuffix(".weight")
        packed = formats.get(layer) in PACKED or f"{layer}.weight_scale_2" in shapes
        out[key] = (shape[0], 2 * shape[1]) if packed and layer != key and len(shape) == 2 else shape
    return out


def stated_formats(metadata: Mapping[str, str], where: str) -> dict[str, dict[str, Any]]:
    """Layer -> its configuration, as the table in a header says.

    Raises:
        CheckpointError: the table is damaged.
    """
    try:
        layers = json.loads(metadata.get(TABLE, "{}")).get("layers", {})
        if all(isinstance(value["format"], str) for value in layers.values()):
            return dict(layers)
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        pass
    raise CheckpointError(f"{where}: {TABLE} in the header is damaged. Download the file again")


def with_formats(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """A file's tensors, each quantised layer in a format of ComfyUI's with its `comfy_quant`, or unpacked to bfloat16.

    Raises:
        CheckpointError: a layout that is not known, naming the layer.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if NO_WEIGHTS.search(key):
            continue
        match = STORED_PART.match(key)
        if match is None:
            out[key] = tensor
        else:
            _note(layers.setdefault(match[1], {}), match[2], tensor, f"{where}: {match[1]:.120}")
    for layer, config in stated_formats(metadata, where).items():
        if f"{layer}.weight" in tensors:
            layers.setdefault(layer, {}).setdefault(QUANT_MARK, marked(config))
    for layer, parts in layers.items():
        weight = out.pop(f"{layer}.weight", None)
        if weight is None:
            raise CheckpointError(f"{where}: {layer:.120} has a scale and no weight. Download the file again")
        read = _read(weight, parts, f"{where}: {layer:.120}")
        out |= {f"{layer}.{name}": part for name, part in read.items()}
    _check_values(out, where)
    return out


def _note(parts: dict[str, Tensor], name: str, tensor: Tensor, where: str) -> None:
    """Put a part of a layer to the others, by ComfyUI's name."""
    known = ALIASES.get(name, name)
    if known in parts and not torch.equal(*(part.to(torch.float64) for part in (parts[known], tensor))):
        raise CheckpointError(f"{where} has two of {known}, and they differ. Choose another file")
    parts[known] = tensor
    if name == "weight_scale_inv":
        parts["inv"] = tensor


def _check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are whole numbers or complex, and float8 of towers whose scale is not there or divides."""
    probed = 0
    for key, weight in tensors.items():
        layer, _, part = key.rpartition(".")
        marked_layer = f"{layer}.{QUANT_MARK}" in tensors
        number = weight.is_floating_point() and weight.dtype != torch.float8_e8m0fnu  # which is of exponents alone
        if part in ("weight", "bias", "modulation") and not marked_layer and not number:
            raise CheckpointError(f"{where}: {key:.120} is {weight.dtype} without a scale. Choose another file")
        of_tower = part == "weight" and weight.ndim == 2 and "blocks." in key
        if of_tower and weight.dtype in FLOAT8 and probed < PROBED_LAYERS:
            probed += 1
            _check_probe(weight, layer, tensors, where)


def _check_probe(weight: Tensor, layer: str, tensors: Mapping[str, Tensor], where: str) -> None:
    """Some rows of a float8 weight, times its scale where that is by tensor or row."""
    scale = tensors.get(f"{layer}.weight_scale")
    step = max(1, weight.shape[0] // PROBED_ROWS)
    rows = weight[::step].float()
    if scale is not None and tuple(scale.shape) not in ((), (weight.shape[0], 1)):
        return  # of another format
    if scale is not None:
        rows = rows * (scale[::step] if scale.ndim else scale)
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    if largest <= LARGEST:
        return
    beside = [key for key in tensors if key.startswith(f"{layer}.") and key.split(".")[-1] not in ("weight", "bias")]
    why = "its scales divide where they should multiply" if scale is not None else "its scales are not in the file"
    if scale is None and beside:
        why += f", unless {beside[0][-60:]!r} is one"
    what = (
        "NaN; the file is damaged" if math.isnan(largest) else f"weights up to {largest:g}, which no layer has: {why}"
    )
    raise CheckpointError(f"{where}: {layer:.120} holds {what}. Choose a file in bf16, or in float8 of another maker")


def _refuse_others(parts: Iterable[str], what: object, where: str) -> None:
    """Refuse what lies beside a weight and its scale and would change the numbers."""
    others = sorted(set(parts) - {QUANT_MARK, "weight_scale", "input_scale"})
    if others:
        raise CheckpointError(
            f"{where} is {what} with {', '.join(others)} beside it, which is not read. Choose a file in bf16 or scaled "
            "float8"
        )


def _read(weight: Tensor, parts: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """One layer: its weight and what belongs to it, in a format or unpacked."""
    cut = parts.pop("inv", None) is not None  # blocks of a fixed size, the last one cut off
    name = configuration(parts[QUANT_MARK], where)["format"] if QUANT_MARK in parts else ""
    if name and name not in FLOAT8.values() and name not in BY_SHAPE:
        return {"weight": weight, **_whole(weight, parts, name, where)}
    _refuse_others(parts, weight.dtype, where)
    if "weight_scale" not in parts:
        if name:
            raise CheckpointError(f"{where} is {name} without its weight_scale. Download the file again")
        return {"weight": weight}  # float8 without scales, or a scale of the input alone
    scale = _numbers(weight, parts["weight_scale"], where)
    if weight.dtype not in FLOAT8 and weight.dtype != torch.int8:
        if weight.is_floating_point() and weight.dtype.itemsize > 1 and bool((scale == 1).all()):
            return {"weight": weight}
        raise _unknown(weight, scale, where)
    kind = _kind(weight, scale, cut, where)
    if kind == "block" or weight.ndim != 2:
        return {"weight": unpacked(weight, scale, cut)}
    if weight.dtype == torch.int8:
        mark = INT8.configuration(tuple(weight.shape))
        return {"weight": weight, "weight_scale": _as(kind, scale), QUANT_MARK: mark}
    stated = name in FLOAT8.values() and kind == "tensor"
    own = {key: parts[key] for key in (QUANT_MARK, "input_scale") if key in parts} if stated else {}
    mark = marked({"format": FLOAT8[weight.dtype], **FP8.options})
    return {"weight": weight, "weight_scale": _as(kind, scale), **(own or {QUANT_MARK: mark})}


def _numbers(weight: Tensor, scale: Tensor, where: str) -> Tensor:
    """A scale in float32; of unsigned bytes beside float8 they are exponents of two."""
    if scale.dtype == torch.uint8 and weight.dtype in FLOAT8:
        scale = torch.exp2(scale.float() - 127.0)
    if not scale.is_floating_point():
        raise _unknown(weight, scale, where)
    if not bool(torch.isfinite(scale.float()).all()):
        raise CheckpointError(f"{where} has a scale that is NaN or infinite; the file is damaged. Download it again")
    return scale.float()


def _whole(weight: Tensor, parts: dict[str, Tensor], name: str, where: str) -> dict[str, Tensor]:
    """The parts of a layer in another of ComfyUI's formats; none may be missing, and no setting impossible."""
    if weight.ndim < 2:
        raise CheckpointError(f"{where} is {name}, and no matrix: {tuple(weight.shape)}. Choose another file")
    missing = [part for part in NEEDED.get(name, ()) if part not in parts]
    if missing:
        raise CheckpointError(f"{where} is {name} without its {', '.join(missing)}. Download the file again")
    if name == "int8_tensorwise":
        _refuse_others(parts, name, where)
        scale = _numbers(weight, parts["weight_scale"], where)
        kind = _kind(weight, scale, False, where)
        if kind == "block":
            raise _unknown(weight, scale, where)
        parts = {**parts, "weight_scale": _as(kind, scale)}
    config = configuration(parts[QUANT_MARK], where)
    group = config.get("convrot_groupsize", 256)
    columns = weight.shape[-1] * (2 if name in PACKED else 1)
    rotated = config.get("convrot") or name in ("convrot_w4a4", "asym_w4a8_int8")
    if rotated and (group not in GROUPS or columns % group):
        raise CheckpointError(
            f"{where} is rotated in groups of {group!r:.20}, which {columns} columns have not. Convert anew"
        )
    return parts


def _kind(weight: Tensor, scale: Tensor, cut: bool, where: str) -> str:
    """Whether a scale is for the tensor, for each row, or for each block; of square weights 1-D scales are by row."""
    if scale.numel() == 1:
        return "tensor"
    rows = weight.shape[0] if weight.ndim else 0
    if tuple(scale.shape) in ((rows,), (rows, *(1 for _ in weight.shape[1:]))):
        return "row"
    if weight.ndim == 2 and _block_sides(weight, scale, cut) is not None:
        return "block"
    raise _unknown(weight, scale, where)


def _as(kind: str, scale: Tensor) -> Tensor:
    return scale.reshape(()) if kind == "tensor" else scale.reshape(-1, 1)


def _unknown(weight: Tensor, scale: Tensor, where: str) -> CheckpointError:
    return CheckpointError(
        f"{where} is {weight.dtype} {tuple(weight.shape)} with scales {tuple(scale.shape)}, {scale.dtype}, a layout "
        "that is not known. Choose a file in bf16, or scaled by tensor, row or block"
    )


def _block_sides(weight: Tensor, scale: Tensor, cut: bool) -> tuple[int, int] | None:
    """Rows and columns of a block, for scales (n, k) or (n, k, 1)."""
    if scale.ndim not in (2, 3) or (scale.ndim == 3 and scale.shape[2] != 1):
        return None
    sides = [_side(size, count, cut) for size, count in zip(weight.shape, scale.shape)]
    return None if 0 in sides else (sides[0], sides[1])


def _side(size: int, count: int, cut: bool) -> int:
    """Of `count` blocks along `size`, one's length, 0 where there is none: whole ones, or with `cut` rather a power of
    two of which the last is cut off."""
    if not count:
        return 0
    whole = size // count if size % count == 0 else 0
    power = next((side for side in BLOCKS if -(-size // side) == count), 0)
    return (power or whole) if cut else (whole or power)


def unpacked(weight: Tensor, scale: Tensor, cut: bool = False) -> Tensor:
    """The weight in bfloat16: stored values times their scales, by tensor, row or block."""
    sides = _block_sides(weight, scale, cut) if weight.ndim == 2 and scale.numel() > 1 else None
    if sides is None:
        full = scale.float().reshape(() if scale.numel() == 1 else (-1, *(1 for _ in weight.shape[1:])))
    else:
        grid = scale.float().reshape(scale.shape[0], scale.shape[1])
        full = grid.repeat_interleave(sides[0], 0)[: weight.shape[0]].repeat_interleave(sides[1], 1)[
            :, : weight.shape[1]
        ]
    return (weight.float() * full).to(torch.bfloat16)


def notes(shapes: Shapes, dtypes: Mapping[str, str], where: str) -> list[str]:
    """What a user should know of how a file is stored, from its header."""
    found = []
    blocks = [key for key in shapes if _by_block(key, shapes, dtypes)]
    if blocks:
        found.append(
            f"{where} holds {len(blocks)} layers of 8 bits with scales by block, which ComfyUI's layers do not read: "
            "they are unpacked to bfloat16 in RAM. weight_dtype int8 or fp8_e4m3fn packs them again."
        )
    asked = sum(key.endswith("comfy_attention.config") for key in shapes)
    if asked:
        found.append(
            f"{where} asks for an attention kernel of its own in {asked} blocks; the one chosen for ComfyUI is used."
        )
    return found


def _by_block(key: str, shapes: Shapes, dtypes: Mapping[str, str]) -> bool:
    match = STORED_PART.match(key)
    if match is None or ALIASES.get(match[2], match[2]) != "weight_scale" or f"{match[1]}.{QUANT_MARK}" in shapes:
        return False
    weight = f"{match[1]}.weight"
    shape = shapes[key]
    return dtypes.get(weight, "").startswith(("F8_E", "I8")) and len(shape) > 1 and shape[1] > 1
