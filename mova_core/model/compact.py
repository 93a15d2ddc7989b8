"""Tensors kept in eight bits between two uses: float8 with one scale a tensor."""

from typing import NamedTuple

import torch
from torch import Tensor

EIGHT_BITS = torch.float8_e4m3fn
LARGEST_EIGHT_BITS = torch.finfo(EIGHT_BITS).max  # 448


class Compact(NamedTuple):
    """`values` as they are where `scale` is None, else to be multiplied by it."""

    values: Tensor
    scale: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """The tensor in `dtype`, which is its own where it was never made compact."""
        return self.values if self.scale is None else self.values.to(dtype).mul_(self.scale.to(dtype))


def compacted(x: Tensor) -> Compact:
    """x in float8: its largest magnitude becomes the largest that float8 knows. Off by at most 1/16 of each value."""
    scale = (x.abs().amax().float() / LARGEST_EIGHT_BITS).clamp_min(torch.finfo(torch.float32).tiny)
    return Compact((x / scale.to(x.dtype)).clamp_(-LARGEST_EIGHT_BITS, LARGEST_EIGHT_BITS).to(EIGHT_BITS), scale)
