"""Pieces both towers are made of: timestep embedding, modulation, feed-forward, head.

Axes: B batch, L tokens, D tower width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TowerConfig
from ..ops import Ops


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """(B, width) float32 sinusoids of timesteps 0..1000, cosines first.

    Angles are float64 where the device has it: timesteps reach 1000, and upstream's tables are float64.
    """
    dtype = torch.float32 if timesteps.device.type == "mps" else torch.float64
    steps = torch.arange(width // 2, dtype=dtype, device=timesteps.device)
    angles = timesteps.to(dtype)[:, None] * torch.exp(steps * (-math.log(10000.0) / (width // 2)))
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


def modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift, for (B, L, D) tokens and (B, 1, D) float32 modulation, in x's dtype.

    Scale and shift are applied in float32: in bfloat16, 1 + scale is 1 for any scale up to 2**-8.
    """
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1.0 + scale, out=normed)


def add_gated_(x: Tensor, y: Tensor, gate: Tensor) -> None:
    """x += y * gate in place, gate (B, 1, D) float32, one rounding."""
    torch.addcmul(x, y, gate, out=x)


class FeedForward(nn.Sequential):
    """Linear, tanh-GELU, Linear; the wide activation is overwritten, not copied."""

    def __init__(self, config: TowerConfig, *, ops: Ops, **factory: Any) -> None:
        super().__init__(
            ops.Linear(config.width, config.ffn_width, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.ffn_width, config.width, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        up, _, down = self
        hidden: Tensor = torch.ops.aten.gelu_(up(x), approximate="tanh")
        return down(hidden)  # type: ignore[no-any-return]


class Head(nn.Module):
    """Final norm and projection, modulated by the time embedding itself (not its six-fold projection)."""

    def __init__(self, config: TowerConfig, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = ops.Linear(config.width, math.prod(config.patch) * config.out_channels, **factory)
        self.modulation = nn.Parameter(torch.empty(1, 2, config.width, **factory))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, L, D) tokens and (B, D) float32 time embedding -> (B, L, patch values)."""
        shift, scale = (self.modulation.to(time) + time[:, None]).chunk(2, dim=1)  # (B, 1, D)
        return self.head(modulated(x, shift, scale, self.eps))  # type: ignore[no-any-return]
