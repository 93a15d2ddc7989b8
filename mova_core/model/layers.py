"""Pieces both towers are made of: timestep embedding, modulation, feed-forward, head.

Axes: B batch, L tokens, D tower width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TowerConfig
from ..ops import Ops, learning


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
    if learning(normed):
        return Scaled.apply(normed, shift, 1.0 + scale)  # type: ignore[no-any-return]
    return torch.addcmul(shift, normed, 1.0 + scale, out=normed)


def add_gated_(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate, gate (B, 1, D) float32, one rounding; in place, but where a gradient is wanted."""
    if learning(x, y):
        return Gated.apply(x, y, gate)  # type: ignore[no-any-return]
    return torch.addcmul(x, y, gate, out=x)


class Scaled(torch.autograd.Function):
    """normed * scale + shift by float32 numbers that take no gradient, in the dtype of `normed`."""

    @staticmethod
    def forward(ctx: Any, normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        ctx.scale = scale
        return torch.addcmul(shift, normed, scale, out=torch.empty_like(normed))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.mul(gradient, ctx.scale, out=torch.empty_like(gradient)), None, None


class Gated(torch.autograd.Function):
    """x + y * gate, the gate taking no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        ctx.gate = gate
        return torch.addcmul(x, y, gate, out=torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, torch.mul(gradient, ctx.gate, out=torch.empty_like(gradient)), None


class FeedForward(nn.Sequential):
    """Linear, tanh-GELU, Linear; the wide activation is overwritten, not copied, but where a gradient is wanted."""

    def __init__(self, config: TowerConfig, *, ops: Ops, **factory: Any) -> None:
        super().__init__(
            ops.Linear(config.width, config.ffn_width, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.ffn_width, config.width, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        up, _, down = self
        wide = up(x)
        if learning(wide):
            return down(Gelu.apply(wide))  # type: ignore[no-any-return]
        return down(torch.ops.aten.gelu_(wide, approximate="tanh"))  # type: ignore[no-any-return]


class Gelu(torch.autograd.Function):
    """tanh-GELU of a wide activation, whose gradient takes the place of the one that comes: nobody else has that."""

    @staticmethod
    def forward(ctx: Any, wide: Tensor) -> Tensor:
        ctx.save_for_backward(wide)
        return F.gelu(wide, approximate="tanh")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (wide,) = ctx.saved_tensors
        return torch.ops.aten.gelu_backward(gradient, wide, approximate="tanh", grad_input=gradient)  # type: ignore[no-any-return]


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
