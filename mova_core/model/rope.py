"""Rotary tables: three axes for video, one for audio, and shared seconds for the bridge.

The towers rotate neighbouring channels (2i, 2i+1); the bridge rotates the two halves of a head (i, i + K/2). Swapping
the conventions gives plausible-looking, broken output.

Axes: B batch, L tokens, T latent frames, H W token rows and columns, N heads, K head width.
Checked against: OpenMOSS/MOVA 595a976 `wan_video_dit.py`, `wan_audio_dit.py`, `interactionv2.py`.
"""

from typing import Any

import torch
from torch import Tensor

from ..ops import ELEMENTWISE_ROWS, learning, row_slices

BASE = 10000.0


def frequencies(width: int) -> Tensor:
    """(width/2,) float64: BASE ** (-2j / width)."""
    return BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """How a video head is shared out: frames get what height and width leave (128 -> 44, 42, 42)."""
    spatial = 2 * (head_width // 6)
    return head_width - 2 * spatial, spatial, spatial


def axis_positions(length: int, scale: float, shift: float) -> Tensor:
    """`length` float64 positions from `shift`, `scale` apart (plain 0, 1, 2... by default)."""
    return shift + scale * torch.arange(length, dtype=torch.float64)


def video_table(
    grid: tuple[int, int, int],
    head_width: int,
    scale: tuple[float, float, float],
    shift: tuple[float, float, float],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """(T*H*W, K/2) float32 cosines and sines, tokens in (t, h, w) order, w fastest.

    Angles are float64 along each axis; only the float32 result has token length.
    """
    axes = [
        torch.outer(axis_positions(length, step, start), frequencies(width))
        for length, step, start, width in zip(grid, scale, shift, axis_widths(head_width))
    ]
    t, h, w = grid
    views = ((t, 1, 1, -1), (1, h, 1, -1), (1, 1, w, -1))

    def spread(parts: list[Tensor]) -> Tensor:
        wide = [part.float().to(device).view(view).expand(t, h, w, -1) for part, view in zip(parts, views)]
        return torch.cat(wide, dim=-1).flatten(0, 2)

    return spread([a.cos() for a in axes]), spread([a.sin() for a in axes])


def audio_table(steps: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(steps, K/2) float32 cosines and sines of ordinary one-axis rotary embedding over latent steps."""
    angles = torch.outer(axis_positions(steps, 1.0, 0.0), frequencies(head_width))
    return angles.cos().float().to(device), angles.sin().float().to(device)


def bridge_table(positions: Tensor, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(P, K/2) float32 cosines and sines at float32 `positions`.

    Frequencies and angles stay float32 whatever the model's dtype: in bfloat16 the last audio positions would be off
    by half a radian, and integers above 256 would collide.
    """
    inverse = 1.0 / BASE ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.outer(positions, inverse)
    return angles.cos().to(device), angles.sin().to(device)


def bridge_positions(latent_frames: int, audio_steps: int, fps: float, audio_rate: float) -> tuple[Tensor, Tensor]:
    """Video (T,) and audio (A,) positions in audio latent steps, so that equal seconds get equal angles.

    A latent frame stands for four pictures, the first one too: frame f sits at f * audio_rate / (fps / 4).
    """
    video = torch.arange(latent_frames, dtype=torch.float32) * (audio_rate / (fps / 4.0))
    return video, torch.arange(audio_steps, dtype=torch.float32)


class Halves(torch.autograd.Function):
    """`rotate_halves`, whose gradient turns the other way. Nothing but the table is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.table = cos, sin
        return rotate_halves(x, (cos, sin))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.table
        return rotate_halves(gradient, (cos, -sin)), None, None


def rotate_halves(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """(B, L, N, K) turned by a (P, K/2) table; each position serves L/P consecutive tokens. Computed in float32."""
    if learning(x):
        return Halves.apply(x, *table)  # type: ignore[no-any-return]
    cos, sin = (part[:, None, None] for part in table)  # (P, 1, 1, K/2)
    positions, tokens = cos.shape[0], x.shape[1]
    grouped = x.unflatten(1, (positions, -1))  # (B, P, L/P, N, K)
    out = torch.empty_like(grouped)
    for p in row_slices(positions, max(1, ELEMENTWISE_ROWS * positions // tokens)):
        a, b = grouped[:, p].chunk(2, dim=-1)
        first, second = out[:, p].chunk(2, dim=-1)
        torch.addcmul(a * cos[p], b, sin[p], value=-1, out=first)
        torch.addcmul(a * sin[p], b, cos[p], out=second)
    return out.flatten(1, 2)
