"""How a finished clip holds together: a diagnostic, not a benchmark.

Sound and motion are reduced to envelopes at the picture rate and compared; level, clipping and silence are counted.
No lip model looks at faces, so a good score does not prove lip-sync, but a bad one is worth a look.

Axes: F frames, H W pixels, S samples.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .errors import ShapeError

SILENCE_DB = -50.0  # frames quieter than this, root mean square, count as silent
CLIPPED = 0.999  # samples at least this far from zero count as clipped
FLAT = 0.02  # a clip whose pictures vary less than this over their area, in 0..1, is a flat colour
LAG_SECONDS = 0.5  # how far sound and motion are shifted against each other in search of the best match


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one clip. `sync` is the best correlation (-1..1) of sound onsets and motion, `lag` where it lies in seconds
    (positive: the sound is late); levels are dB below full scale, shares 0..1; `spread` is the pictures' spatial
    standard deviation."""

    sync: float
    lag: float
    level: float
    peak: float
    clipped: float
    silent: float
    motion: float
    spread: float

    @property
    def score(self) -> float:
        """For ranking drafts: sync less what spoils a clip. Silence, clipping and flat colour weigh most."""
        flat = 1.0 if self.spread < FLAT else 0.0
        return self.sync - abs(self.lag) - self.silent - 10 * self.clipped - 2 * flat

    def __str__(self) -> str:
        flat = ", flat colour" if self.spread < FLAT else ""
        return (
            f"score {self.score:+.2f}: sync {self.sync:+.2f} at {1000 * self.lag:+.0f} ms, "
            f"level {self.level:.1f} dB, peak {self.peak:.1f} dB, clipped {self.clipped:.2%}, "
            f"silent {self.silent:.0%}, motion {self.motion:.4f}{flat}"
        )


def read(images: Tensor, waveform: Tensor, sample_rate: int, fps: float) -> Reading:
    """Measure one clip of (F, H, W, 3) pictures in 0..1 and (C, S) sound in -1..1.

    Raises:
        ShapeError: fewer than two pictures, or no sound.
    """
    if len(images) < 2 or waveform.shape[-1] == 0:
        raise ShapeError(
            f"{len(images)} pictures and {waveform.shape[-1]} samples cannot be measured; give a clip with sound"
        )
    loudness = frame_levels(waveform, len(images), sample_rate, fps)
    moved = motion(images)
    sync, lag = best_match(onsets(loudness), moved, max(1, round(LAG_SECONDS * fps)))
    level = waveform.float().square().mean().sqrt()
    return Reading(
        sync=sync,
        lag=lag / fps,
        level=decibels(level.item()),
        peak=decibels(waveform.abs().max().item()),
        clipped=(waveform.abs() >= CLIPPED).float().mean().item(),
        silent=(20 * loudness.clamp_min(1e-9).log10() < SILENCE_DB).float().mean().item(),
        motion=moved.mean().item(),
        spread=images.float().std(dim=(1, 2), correction=0).mean().item(),
    )


def decibels(amplitude: float) -> float:
    """20 log10, not below -120."""
    return max(-120.0, 20 * math.log10(max(amplitude, 1e-12)))


def frame_levels(waveform: Tensor, frames: int, sample_rate: int, fps: float) -> Tensor:
    """(F,) root mean square of the sound during each picture; 0 where it has ended."""
    mono = waveform.float().mean(dim=0)
    edges = [round(frame * sample_rate / fps) for frame in range(frames + 1)]
    parts = [mono[begin:end] for begin, end in pairwise(edges)]
    return torch.stack([part.square().mean().sqrt() if len(part) else mono.new_zeros(()) for part in parts])


def onsets(levels: Tensor) -> Tensor:
    """(F,) rises of the level, in tenths of the range: 0 where it falls or stays."""
    rises = levels.diff(prepend=levels[:1]).clamp_min(0)
    return rises / levels.max().clamp_min(1e-9)


def motion(images: Tensor) -> Tensor:
    """(F,) mean absolute change of each picture from the one before; 0 for the first."""
    changes = [torch.zeros((), device=images.device)]
    changes += [(after.float() - before.float()).abs().mean() for before, after in pairwise(images)]
    return torch.stack(changes)


def best_match(sound: Tensor, moved: Tensor, reach: int) -> tuple[float, int]:
    """The largest correlation of two (F,) envelopes over shifts up to `reach`, and the shift: positive, sound late."""
    found = [(_correlation(sound, moved, shift), -abs(shift), shift) for shift in range(-reach, reach + 1)]
    value, _, shift = max(found)
    return value, shift


def _correlation(sound: Tensor, moved: Tensor, shift: int) -> float:
    length = len(sound) - abs(shift)
    if length < 3:
        return 0.0
    a, b = sound[max(shift, 0) :][:length].float(), moved[max(-shift, 0) :][:length].float().to(sound.device)
    a, b = a - a.mean(), b - b.mean()
    size = (a.norm() * b.norm()).item()
    return (a @ b).item() / size if size > 1e-12 else 0.0
