"""Weights in eight or four bits, stored as ComfyUI's per-layer formats, and which weights stay as they are.

A quantised layer L has L.weight in the format's storage, scales beside it (L.weight_scale, L.weight_scale_2), and
L.comfy_quant: the bytes of a JSON object that names the format. ComfyUI computes with these; here they are only made,
read back and measured.

Axes: N output rows, K input columns of a linear layer.
Sources: OCP Microscaling Formats v1.0 (MX); NVIDIA cuBLAS, layout of block scaling factors; ComfyUI QUANTIZATION.md.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import kitchen

Shape = tuple[int, ...]
Parts = dict[str, Tensor]

GROUPS = (1024, 256, 64, 16, 4)  # columns that ConvRot rotates together: powers of 4
SCALES = (
    *("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"),
    *("weight_zeros", "weight_s_rel", "weight_s_channel", "weight_codebook"),
)
"""What may lie beside a quantised weight, as ComfyUI names it."""
QUANT_MARK = "comfy_quant"

BLOCK_LINEAR = re.compile(
    r"(^|\.)(blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])"
    r"|\w+_conditioners\.\d+\.inner\.[qkvo]"
    r"|encoder\.block\.\d+\.layer\.\d+\.(SelfAttention\.[qkvo]|DenseReluDense\.w\w+))\.weight$"
)
"""The rule: the large matrices inside blocks are quantised. Patch, text and time embeddings, time_projection, heads,
modulation, norms and biases are not: they are a few per cent of the bytes, see every token, and partly float32."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to store a (N, K) weight. `multiple` divides N and K of the layers it is used for."""

    name: str
    multiple: int
    quantize: Callable[[Tensor], Parts]
    dequantize: Callable[[Parts], Tensor]
    storage: Callable[[Shape], dict[str, tuple[torch.dtype, Shape]]]
    options: dict[str, Any] = field(default_factory=dict)
    options_by_shape: Callable[[Shape], dict[str, Any]] = lambda shape: {}

    def configuration(self, shape: Shape) -> Tensor:
        """The bytes of L.comfy_quant of a layer of this shape."""
        return marked({"format": self.name, **self.options, **self.options_by_shape(shape)})


def marked(config: Mapping[str, Any]) -> Tensor:
    """The bytes of L.comfy_quant for a configuration, filled up to a multiple of 8."""
    text = json.dumps(config).encode()
    return torch.tensor(list(text + b" " * (-len(text) % 8)), dtype=torch.uint8)


# --- float8, one scale a tensor ------------------------------------------------------------------------------------


def _fp8(weight: Tensor) -> Parts:
    """The scale is a power of two: float8 loses nothing by it, and scaling back in bfloat16 is exact."""
    largest = weight.float().abs().max()  # float8 itself has no maximum
    scale = torch.exp2(torch.ceil(torch.log2(largest / kitchen.FP8_LARGEST))) if largest > 0 else torch.ones(())
    return {"weight": (weight.float() / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def _from_fp8(parts: Parts) -> Tensor:
    return parts["weight"].float() * parts["weight_scale"].float()


def _fp8_storage(shape: Shape) -> dict[str, tuple[torch.dtype, Shape]]:
    return {"weight": (torch.float8_e4m3fn, shape), "weight_scale": (torch.float32, ())}


# --- int8, one scale a row -----------------------------------------------------------------------------------------


def _int8(weight: Tensor) -> Parts:
    scale = weight.float().abs().amax(dim=1, keepdim=True) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return {"weight": torch.round(weight.float() / scale).to(torch.int8), "weight_scale": scale}


def _int8_storage(shape: Shape) -> dict[str, tuple[torch.dtype, Shape]]:
    return {"weight": (torch.int8, shape), "weight_scale": (torch.float32, (shape[0], 1))}


# --- int8 of rotated columns --------------------------------------------------------------------------------------


def hadamard(size: int) -> Tensor:
    """The symmetric orthogonal matrix, its own inverse, by which ConvRot rotates groups of columns.

    Raises:
        CheckpointError: `size` is no power of 4.
    """
    if size not in GROUPS:
        raise CheckpointError(f"ConvRot rotates groups of {GROUPS} columns, not of {size}. Convert the file again")
    four = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    out = four
    while len(out) < size:
        out = torch.kron(out, four)
    return out / math.sqrt(size)


def rotated(weight: Tensor, group: int) -> Tensor:
    """A weight (N, K) whose columns are rotated in groups; twice is the identity."""
    out: Tensor = (weight.float().unflatten(1, (-1, group)) @ hadamard(group)).flatten(1)
    return out


def _group(shape: Shape) -> int:
    """Columns that are rotated together: the more, the flatter; 0 where none fit."""
    return next((group for group in GROUPS if group <= 256 and shape[1] % group == 0), 0)


def _convrot(weight: Tensor) -> Parts:
    return kitchen.quantized_convrot(weight, _group(tuple(weight.shape)))


def _convrot_options(shape: Shape) -> dict[str, Any]:
    return {"convrot": True, "convrot_groupsize": _group(shape)}


# --- block scales, in cuBLAS's tiles -------------------------------------------------------------------------------


def _tiled_shape(shape: Shape) -> tuple[int, int]:
    """Block scales (N, K/block) lie in tiles of 128 x 4, padded with zeros."""
    return -(-shape[0] // 128) * 128, -(-shape[1] // 4) * 4


def _mxfp8_storage(shape: Shape) -> dict[str, tuple[torch.dtype, Shape]]:
    scales = _tiled_shape((shape[0], shape[1] // 32))
    return {"weight": (torch.float8_e4m3fn, shape), "weight_scale": (torch.uint8, scales)}


def _nvfp4_storage(shape: Shape) -> dict[str, tuple[torch.dtype, Shape]]:
    return {
        "weight": (torch.uint8, (shape[0], shape[1] // 2)),
        "weight_scale": (torch.float8_e4m3fn, _tiled_shape((shape[0], shape[1] // 16))),
        "weight_scale_2": (torch.float32, ()),
    }


# --- the table -----------------------------------------------------------------------------------------------------

FP8 = Format(
    name="float8_e4m3fn",
    multiple=16,
    quantize=_fp8,
    dequantize=_from_fp8,
    storage=_fp8_storage,
    options={"full_precision_matrix_mult": True},  # else ComfyUI casts activations to float8 unscaled, clipped at 448
)
FP8_E5M2 = replace(FP8, name="float8_e5m2")  # read, never made: e4m3fn with a scale is nearer
INT8 = Format(name="int8_tensorwise", multiple=16, quantize=_int8, dequantize=_from_fp8, storage=_int8_storage)
INT8_CONVROT = replace(INT8, quantize=_convrot, options_by_shape=_convrot_options)
MXFP8 = Format(
    name="mxfp8",
    multiple=32,
    quantize=kitchen.quantized_mxfp8,
    dequantize=kitchen.plain_mxfp8,
    storage=_mxfp8_storage,
)
NVFP4 = Format(
    name="nvfp4",
    multiple=16,
    quantize=kitchen.quantized_nvfp4,
    dequantize=kitchen.plain_nvfp4,
    storage=_nvfp4_storage,
)

FORMATS = {"fp8": FP8, "int8": INT8, "int8_convrot": INT8_CONVROT, "mxfp8": MXFP8, "nvfp4": NVFP4}
"""The word a user says -> the format."""

BY_NAME = {kind.name: kind for kind in (FP8, FP8_E5M2, INT8, MXFP8, NVFP4)}  # ConvRot is an option of int8
FLOAT8 = {torch.float8_e4m3fn: FP8.name, torch.float8_e5m2: FP8_E5M2.name}


def takes(kind: Format, key: str, shape: Shape) -> bool:
    """Whether the weight `key` is quantised: a block's matrix, its sides multiples of the format's. Sides of every
    published tower are multiples of 256, so ConvRot takes what int8 takes."""
    return BLOCK_LINEAR.search(key) is not None and len(shape) == 2 and not any(side % kind.multiple for side in shape)


def quantized(tensors: Mapping[str, Tensor], kind: Format) -> dict[str, Tensor]:
    """The weights with every large block matrix in `kind`; the rest, and what is quantised already, as it is."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        layer = key.removesuffix(".weight")
        if f"{layer}.{QUANT_MARK}" in tensors or not takes(kind, key, tuple(tensor.shape)):
            out[key] = tensor
            continue
        out |= {f"{layer}.{name}": part for name, part in kind.quantize(tensor).items()}
        out[f"{layer}.{QUANT_MARK}"] = kind.configuration(tuple(tensor.shape))
    return out


def configuration(mark: Tensor, layer: str) -> dict[str, Any]:
    """The object in L.comfy_quant.

    Raises:
        CheckpointError: it is not one, or names no format.
    """
    try:
        value = json.loads(mark.numpy().tobytes() if mark.dtype == torch.uint8 else "")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{layer}.{QUANT_MARK} is not JSON ({error!s:.100}). Convert or download the file again"
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("format"), str):
        raise CheckpointError(f"{layer}.{QUANT_MARK} names no format. Convert or download the file again")
    return value


def dequantized(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Plain weights: quantised layers in `dtype`, every other tensor as it is.

    Raises:
        CheckpointError: a layer's format is not one of BY_NAME, or a scale is missing.
    """
    layers = {key.removesuffix(f".{QUANT_MARK}") for key in tensors if key.endswith(f".{QUANT_MARK}")}
    out = {key: tensor for key, tensor in tensors.items() if not _beside(key, layers)}
    for layer in layers:
        stated = configuration(tensors[f"{layer}.{QUANT_MARK}"], layer)
        name = stated["format"]
        if name not in BY_NAME:
            raise CheckpointError(f"{layer} is stored as {name!r:.50}; known are {', '.join(BY_NAME)}")
        parts = {part: tensors[f"{layer}.{part}"] for part in ("weight", *SCALES) if f"{layer}.{part}" in tensors}
        try:
            plain = BY_NAME[name].dequantize(parts)
            group = stated.get("convrot_groupsize", 256) if stated.get("convrot") else 0
            out[f"{layer}.weight"] = (rotated(plain, group) if group else plain).to(dtype)
        except KeyError as error:
            raise CheckpointError(
                f"{layer} is {name} without its {error}. Convert or download the file again"
            ) from error
    return out


def _beside(key: str, layers: set[str]) -> bool:
    layer, _, part = key.rpartition(".")
    return layer in layers and part in (QUANT_MARK, "weight", *SCALES)


def stored_shape(key: str, shape: Shape, tensors: Mapping[str, Tensor]) -> Shape:
    """The shape that `key`, of logical `shape`, must have among `tensors`; of an unknown format, the one it has."""
    layer = key.removesuffix(".weight")
    mark = tensors.get(f"{layer}.{QUANT_MARK}")
    if mark is None or layer == key:
        return shape
    kind = BY_NAME.get(configuration(mark, layer)["format"])
    return tuple(tensors[key].shape) if kind is None else kind.storage(_padded(shape, kind))["weight"][1]


def _padded(shape: Shape, kind: Format) -> Shape:
    """Formats of blocks are stored with sides rounded up to whole blocks."""
    if kind not in (MXFP8, NVFP4):
        return shape
    return tuple(-(-side // kind.multiple) * kind.multiple for side in shape)
