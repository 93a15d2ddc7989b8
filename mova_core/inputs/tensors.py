"""Tensors that come in: dense numbers in memory, as everything here computes with; and what they run from and to."""

import math

import torch
from torch import Tensor

from ..errors import ShapeError

MOST_CLAIMED = 2**34  # 64 GiB as float32; a view can claim any number of them and hold one
FLOATS_A_GIB = 2**28  # of 32 bits


def check_dense(name: str, part: Tensor) -> Tensor:
    """Accept a dense tensor that holds its numbers, and not more than any machine could work on.

    `name` begins the message: "an IMAGE", "the waveform".

    Raises:
        ShapeError: a nested, sparse or quantised one, one without data (device meta), or one that claims too much.
    """
    if part.is_nested:
        raise ShapeError(f"{name} is several tensors in one (nested); give one tensor of one size")
    kind = "quantised" if part.is_quantized else str(part.layout).removeprefix("torch.")
    if part.is_quantized or part.layout != torch.strided:
        raise ShapeError(f"{name} is a {kind} tensor; it must be a dense one: to_dense() or dequantize() makes it so")
    if part.is_meta:
        raise ShapeError(
            f"{name} has a shape, {tuple(part.shape)}, and no numbers (device meta): the node before made none. Run "
            "that node anew, or leave it out"
        )
    if part.numel() > MOST_CLAIMED:
        room = part.numel() / FLOATS_A_GIB
        raise ShapeError(
            f"{name} of shape {tuple(part.shape)} would take {room:.3g} GiB, and at most "
            f"{MOST_CLAIMED // FLOATS_A_GIB} are taken; give less of it at once"
        )
    return part


def extent(part: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of a floating-point tensor that is not empty; both NaN if any is."""
    part = _once(part.detach())
    low, high = torch.aminmax(part if part.element_size() > 1 else part.float())
    return float(low), float(high)


def has_broken(part: Tensor) -> bool:
    """Whether any number of a floating-point tensor is NaN or infinite."""
    return bool(part.numel()) and not all(map(math.isfinite, extent(part)))


def broken(part: Tensor) -> Tensor:
    """Where a floating-point tensor is NaN or infinite. Numbers of eight bits have no such question of their own."""
    return ~torch.isfinite(part if part.element_size() > 1 else part.float())


def _once(part: Tensor) -> Tensor:
    """Each number of an expanded tensor once, not as often as it is shown."""
    for axis, stride in enumerate(part.stride()):
        if stride == 0:
            part = part.narrow(axis, 0, 1)
    return part
