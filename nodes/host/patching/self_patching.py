"""Weights that apply their own patches, as those of the GGUF pack do: they are dequantised when they are read, and a
patch is added then. ComfyUI's patcher would write patched values in their place, which it cannot make of packed bytes.

Such a tensor holds packed bytes and has a list `patches` of (what ComfyUI's `calculate_weight` takes, key).
"""

from typing import Protocol, TypeGuard

import torch
from torch import Tensor


class PackedWeight(Protocol):
    """Such a tensor, by what it has beside its bytes."""

    patches: list[tuple[list[tuple[object, ...]], str]]


def patches_itself(weight: object) -> TypeGuard[PackedWeight]:
    """Whether a weight applies its own patches."""
    if not isinstance(weight, Tensor) or weight.is_floating_point():
        return False
    return isinstance(getattr(weight, "patches", None), list)


def alias(weight: Tensor) -> Tensor:
    """The same memory as another tensor, whose patches are not the first one's."""
    new = torch.Tensor.detach(weight)
    if new is not weight and patches_itself(weight):
        new.__dict__.update(weight.__dict__)
        new.patches = []  # type: ignore[attr-defined]
    return new
