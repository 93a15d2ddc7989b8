"""What spoils the sound of a clip: silence, clipping, a codec driven into its limit. No channel hides another.

Axes: C channels, F frames, S samples.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ..waveform import decibels

SILENCE_DB = -50.0  # frames of which every channel is quieter, root mean square, are silent
SILENT = 0.99  # of the frames: one bang in eight seconds is sound enough
TOP = 0.98  # of the clip's own peak: a codec that ends in tanh never reaches full scale
HALF = 0.5
LEAST_RUN = 3  # samples
BLUNT = (
    0.3  # of a swing's width at half the peak that lies at its top: 0.19 of a sine, 0.38 of tanh(3 sin), 1 of a square
)
OVERDRIVEN = 0.001  # of the samples


def silent_share(waveform: Tensor, frames: int, rate: int, fps: float) -> float:
    """Of the frames, those during which no channel of (C, S) sound is heard; what has ended is silent."""
    edges = [round(frame * rate / fps) for frame in range(frames + 1)]
    parts = [waveform[:, begin:end].float() for begin, end in pairwise(edges)]
    levels = [part.square().mean(dim=1).sqrt().max().item() if part.shape[1] else 0.0 for part in parts]
    return sum(decibels(level) < SILENCE_DB for level in levels) / frames


def overdriven(waveform: Tensor) -> float:
    """Share of the samples of the worst channel of (C, S) sound that lie in tops cut flat, at whatever level.

    A swing is a run of samples of one sign above half the peak. Clipping and tanh leave its top wide for its width;
    a tone's is narrow, and speech hardly reaches its own peak twice.
    """
    peak = waveform.abs().max()
    return max(_blunted(channel.float() / peak) for channel in waveform) if peak > 0 else 0.0


def _blunted(sound: Tensor) -> float:
    """Of (S,) sound whose peak is 1."""
    signs = torch.where(sound.abs() >= HALF, sound.sign(), 0.0)
    kinds, swing, widths = torch.unique_consecutive(signs, return_inverse=True, return_counts=True)
    tops = torch.zeros_like(kinds).index_add_(0, swing, (sound.abs() >= TOP).to(kinds.dtype))
    blunt = (kinds != 0) & (tops >= LEAST_RUN) & (tops >= BLUNT * widths)
    return (tops[blunt].sum() / len(sound)).item()
