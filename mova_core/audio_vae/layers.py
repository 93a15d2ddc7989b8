"""Parts of the audio codec: a periodic activation and strided residual blocks.

Axes: B batch, C channels, T time steps at the rate of the layer in question.
Every activation is (B, C, T). Layers follow the dtype of their input, which the codec keeps at float32.
Source: DAC, Kumar et al. 2023, arXiv:2306.06546; Snake, Ziyin et al. 2020, arXiv:2006.08195.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import Ops

DILATIONS = (1, 3, 9)


class Snake1d(nn.Module):
    """x + sin(alpha * x)**2 / (alpha + 1e-9), one alpha a channel. Leaves its input as it was."""

    def __init__(self, channels: int, **factory: Any) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, **factory))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.to(x)  # dtype and device
        return (alpha * x).sin_().square_().mul_((alpha + 1e-9).reciprocal()).add_(x)  # one large tensor, reused


class ResidualUnit(nn.Module):
    """x + f(x), f a dilated convolution over 7 steps and a pointwise one. Keeps the shape."""

    def __init__(self, channels: int, dilation: int, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake1d(channels, **factory),
            ops.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation, **factory),
            Snake1d(channels, **factory),
            ops.Conv1d(channels, channels, 1, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.block(x)
        return change.add_(x)


def _residual_units(channels: int, ops: Ops, **factory: Any) -> list[ResidualUnit]:
    return [ResidualUnit(channels, dilation, ops=ops, **factory) for dilation in DILATIONS]


class EncoderBlock(nn.Module):
    """(B, C, stride * T) -> (B, 2C, T)."""

    def __init__(self, channels: int, stride: int, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_residual_units(channels, ops, **factory),
            Snake1d(channels, **factory),
            ops.Conv1d(channels, 2 * channels, 2 * stride, stride=stride, padding=(stride + 1) // 2, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class DecoderBlock(nn.Module):
    """(B, C, T) -> (B, C/2, stride * T)."""

    def __init__(self, channels: int, stride: int, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake1d(channels, **factory),
            ops.ConvTranspose1d(
                channels,
                channels // 2,
                2 * stride,
                stride=stride,
                padding=(stride + 1) // 2,
                output_padding=stride % 2,
                **factory,
            ),
            *_residual_units(channels // 2, ops, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out
