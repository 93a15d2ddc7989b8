"""What a file adds to one parameter, in the forms that trainers write, and whether it fits the parameter.

    LoRA  scale * up @ down                                  Hu et al. 2021, arXiv:2106.09685
    LoHa  scale * (w1_a @ w1_b) * (w2_a @ w2_b)              LyCORIS, Yeh et al. 2023, arXiv:2309.14859
    LoKr  scale * kron(w1, w2), each whole or a @ b          the same; two whole factors have scale 1
    DoRA  magnitude * (W + change) / |W + change|            Liu et al. 2024, arXiv:2402.09353, on any of the three

Axes: O outputs, I inputs (a convolution's flattened), R rank.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor

from ..sampling.schedule import Expert
from .lora_keys import LoraPart, part_of

FORMS = {  # form -> the tensors it needs, by the names of `lora_keys.TENSOR_KINDS`
    "lora": ("down", "up"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
}
NUMBERS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
STORED = {torch.float8_e4m3fn, torch.float8_e5m2, torch.int8}  # halves that may have a scale beside them
SIGNED, UNSIGNED = ({getattr(torch, f"{kind}{bits}") for bits in (8, 16, 32, 64)} for kind in ("int", "uint"))
MAX_ALPHA = 1e6


@dataclass(frozen=True, kw_only=True)
class LoraChange:
    """A change of one parameter at strength 1; `form` is a name of `FORMS`, or "diff" for a whole difference."""

    parameter: str  # its name in the joint model
    expert: Expert | None  # None: of whichever expert is at work
    form: str
    tensors: Mapping[str, Tensor]
    scale: float = 1.0
    magnitude: Tensor | None = field(default=None, repr=False)  # DoRA's, of the parameter's axes: (O, 1) or (1, I)

    @property
    def part(self) -> LoraPart:
        return part_of(self.parameter)

    @property
    def is_nothing(self) -> bool:
        """Whether it is zeros alone: a factor of every product is, as in a LoRA that was never trained."""
        return self.magnitude is None and any(map(_is_zero, self.tensors.values()))

    @property
    def rank(self) -> int | None:
        """The height of the last inner product; None where nothing is one."""
        return rank_of(self.tensors)


def _is_zero(tensor: Tensor) -> bool:
    few = tensor[:8] if tensor.ndim else tensor  # mostly enough to see that it is not
    return not bool(few.float().any()) and not bool(tensor.float().any())


def rank_of(tensors: Mapping[str, Tensor]) -> int | None:
    """The rank that alpha is divided by, which is that of the second factor where there are two."""
    for name in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in tensors and tensors[name].ndim:
            return int(tensors[name].shape[0])
    return None


def misfit(
    form: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...] | None, scaled: Mapping[str, Tensor] | None = None
) -> str:
    """Why a change does not fit a parameter of this shape; empty where it does. `scaled`: kind -> its scale."""
    if shape is None:
        return "the model has no such layer"
    for kind, tensor in tensors.items():
        scale = (scaled or {}).get(kind)
        if scale is not None and not _fits_scale(tensor, scale):
            return (
                f"is {tensor.dtype} {_written(tensor.shape)} with a scale {_written(scale.shape)}, which is not known"
            )
        if scale is None and tensor.dtype not in NUMBERS:
            return f"holds {tensor.dtype}, not numbers of a LoRA"
    if form == "diff":
        diff = tensors["diff"]
        fits = [n for n in diff.shape if n != 1] == [n for n in shape if n != 1]
        return "" if fits else f"has shape {_written(diff.shape)}, the layer {_written(shape)}"
    if len(shape) < 2:
        return "is of a matrix; the layer is none"
    made, rank = _FORMED[form](tensors)
    wanted = (shape[0], math.prod(shape[1:]))
    if made is None and form == "lora" and _transposed(tensors, wanted):
        return "has transposed halves, as MLX writes them; save them as (rank, inputs) and (outputs, rank)"
    if made is None:
        return f"has shapes {', '.join(_written(t.shape) for t in tensors.values())}, which do not go together"
    if made != wanted or rank > max(wanted):
        return f"is of rank {rank} for a layer of {made[0]} x {made[1]}, this one is {' x '.join(map(str, shape))}"
    return ""


def _written(shape: Size | tuple[int, ...]) -> str:
    return str(tuple(shape))[:60]


Formed = tuple[tuple[int, int] | None, int]  # (O, I) of the product, None where there is none; and its rank


def _lora(tensors: Mapping[str, Tensor]) -> Formed:
    up, down = tensors["up"], tensors["down"]
    if down.ndim < 2 or up.ndim < 2 or not down.shape[0] or math.prod(up.shape[1:]) != down.shape[0]:
        return None, 0
    return (up.shape[0], math.prod(down.shape[1:])), down.shape[0]


def _transposed(tensors: Mapping[str, Tensor], wanted: tuple[int, int]) -> bool:
    up, down = tensors["up"], tensors["down"]
    return up.ndim == down.ndim == 2 and (up.shape[1], down.shape[0]) == wanted and up.shape[0] == down.shape[1]


def _fits_scale(tensor: Tensor, scale: Tensor) -> bool:
    """Whether a half is stored in 8 bits, and its scale is one number or one for each row."""
    by_row = tensor.ndim > 1 and tuple(scale.shape) in ((tensor.shape[0],), (tensor.shape[0], 1))
    return tensor.dtype in STORED and scale.dtype in NUMBERS and (scale.numel() == 1 or by_row)


def unpacked(tensor: Tensor, scale: Tensor) -> Tensor:
    """A half of 8 bits as float32, by one scale or one for each row."""
    return tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))


def _product(a: Tensor, b: Tensor) -> Formed:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or not b.shape[0]:
        return None, 0
    return (a.shape[0], b.shape[1]), b.shape[0]


def _loha(tensors: Mapping[str, Tensor]) -> Formed:
    (one, rank), (other, also) = (_product(tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"]) for n in (1, 2))
    return (one if one == other else None), max(rank, also)


def _factor(tensors: Mapping[str, Tensor], name: str) -> Formed:
    if name not in tensors:
        return _product(tensors[f"{name}_a"], tensors[f"{name}_b"])
    whole = tensors[name]
    return (None if whole.ndim < 2 else (whole.shape[0], math.prod(whole.shape[1:]))), 1


def _lokr(tensors: Mapping[str, Tensor]) -> Formed:
    (one, rank), (other, also) = (_factor(tensors, f"lokr_{name}") for name in ("w1", "w2"))
    made = None if one is None or other is None else (one[0] * other[0], one[1] * other[1])
    return made, max(rank, also)


_FORMED = {"lora": _lora, "loha": _loha, "lokr": _lokr}


def incomplete(form: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor that the form needs is missing."""
    if form != "lokr":
        return not tensors.keys() >= set(FORMS[form])
    return any(
        f"lokr_{name}" not in tensors and not {f"lokr_{name}_a", f"lokr_{name}_b"} <= tensors.keys()
        for name in ("w1", "w2")
    )


def as_magnitude(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """DoRA's magnitudes along the axis that they are of, (O, 1, ...) or (1, I, ...); None where they fit neither.

    PEFT writes (O,), for a convolution (1, O, 1, ...); LyCORIS (O, 1) or, in its older files, (1, I).
    """
    if tensor.dtype not in NUMBERS or not tensor.numel() or max(tensor.shape, default=1) != tensor.numel():
        return None
    inputs = tensor.ndim > 1 and tensor.shape[0] == 1 and tensor.shape[1] == shape[1] and tensor.ndim == len(shape)
    if inputs and not (tensor.ndim > 2 and shape[0] == shape[1]):
        return tensor.reshape(1, -1, *[1] * (len(shape) - 2))
    return tensor.reshape(-1, *[1] * (len(shape) - 1)) if tensor.numel() == shape[0] else None


def not_one_number(alpha: Tensor) -> str:
    """Why a tensor is no alpha; empty where it is one."""
    if alpha.numel() != 1:
        return f"its alpha has {alpha.numel()} numbers, not one"
    return "" if alpha.dtype in NUMBERS | SIGNED | UNSIGNED else f"its alpha is {alpha.dtype}, no number"


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, nor what float32 cannot hold."""
    if not tensor.numel():
        return True
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = values if values.dtype.itemsize > 1 else values.float()
    low, high = values.aminmax()
    return math.isfinite(low.float()) and math.isfinite(high.float())
