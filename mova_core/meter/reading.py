"""One reading of a finished clip, and which of several drafts is best.

Faults are counted first: a draft without is better than one with, whatever its lips. Among equals the lips decide where
a face was seen; pauses, quiet and a lag that may be chance count nothing.

Axes: F frames, H W pixels, C channels, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError
from ..waveform import decibels
from . import lips, picture, sound
from .lips import Lips
from .words import Words

FAULT = 10.0  # of the score: more than any two lips lie apart


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """`lufs` by ITU-R BS.1770, None of what is shorter than 0.4 s or below its gate; `true_peak` dBTP."""

    lufs: float | None
    true_peak: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one clip: what spoils it, its lips and words where they could be judged, levels, and what they rest on.

    `peak` is dB below full scale; `overdriven`, `silent` and `still` are shares 0..1; `motion` is the mean change of
    the busiest part of the picture and `spread` its spatial standard deviation, 0..1.
    """

    faults: tuple[str, ...]
    lips: Lips | None
    words: Words | None
    loudness: Loudness | None
    peak: float
    overdriven: float
    silent: float
    motion: float
    still: float
    spread: float

    @property
    def score(self) -> float:
        """Higher is better: how far the lips' match stands out, 0 without one or without a face, less ten a fault."""
        return max(0.0, self.near) - FAULT * len(self.faults)

    @property
    def near(self) -> float:
        """How far the lips' match stands out, however little; below all others without a face."""
        return self.lips.near if self.lips else -FAULT

    def __str__(self) -> str:
        first = ", ".join(self.faults).upper() or "no faults"
        seen = str(self.lips) if self.lips else "lips: no face judged"
        told = [f"score {self.score:+.2f}: {first}", seen, *([str(self.words)] if self.words else [])]
        if self.loudness is not None:
            lufs = "none" if self.loudness.lufs is None else f"{self.loudness.lufs:.1f} LUFS"
            told.append(f"loudness {lufs}, true peak {self.loudness.true_peak:+.1f} dBTP")
        told.append(f"peak {self.peak:.1f} dB, overdriven {self.overdriven:.2%}, silent {self.silent:.0%}")
        told.append(f"motion {self.motion:.4f}, still {self.still:.0%}")
        return "; ".join(told)


def read(
    images: Tensor,
    waveform: Tensor,
    sample_rate: int,
    fps: float,
    *,
    mouths: Tensor | None = None,
    loudness: Loudness | None = None,
    words: Words | None = None,
) -> Reading:
    """Measure one clip of (F, H, W, 3) pictures in 0..1 and (C, S) sound in -1..1, either of which may hold NaN.

    `mouths` are (F, 4) boxes (see `mouths.followed`), None without a face.

    Raises:
        ShapeError: fewer than two pictures, or no sound.
    """
    if len(images) < 2 or waveform.shape[-1] == 0:
        raise ShapeError(
            f"{len(images)} pictures and {waveform.shape[-1]} samples cannot be measured; give a clip with sound"
        )
    seen, heard = picture.finite(images), bool(torch.isfinite(waveform).all())
    spread, reach = picture.flatness(images) if seen else (0.0, 0.0)
    moved, still = picture.motion(images) if seen else (0.0, 0.0)
    silent = sound.silent_share(waveform, len(images), sample_rate, fps) if heard else 0.0
    overdriven = sound.overdriven(waveform) if heard else 0.0
    judged = seen and heard and mouths is not None
    return Reading(
        faults=faults(seen, heard, (spread, reach), still, (silent, overdriven)),
        lips=lips.judge(images, mouths, waveform, sample_rate, fps) if judged and mouths is not None else None,
        words=words,
        loudness=loudness,
        peak=decibels(waveform.abs().max().item()) if heard else 0.0,
        overdriven=overdriven,
        silent=silent,
        motion=moved,
        still=still,
        spread=spread,
    )


def faults(
    seen: bool, heard: bool, flatness: tuple[float, float], still: float, shares: tuple[float, float]
) -> tuple[str, ...]:
    """What spoils a clip: are pictures and sound finite, how flat (spread, reach) and still are the pictures,
    and which shares of the sound are silent and overdriven."""
    spread, reach = flatness
    silent, overdriven = shares
    found = {
        "picture not finite": not seen,
        "sound not finite": not heard,
        "flat colour": seen and spread < picture.FLAT and reach < picture.FLAT_REACH,
        "frozen": seen and still >= picture.FROZEN,
        "silent": heard and silent >= sound.SILENT,
        "clipped": heard and overdriven >= sound.OVERDRIVEN,
    }
    return tuple(name for name, there in found.items() if there)


def best(readings: Sequence[Reading]) -> tuple[int, str]:
    """Which of several drafts to keep, and why; then what is wrong with those that come last."""
    fewest = min(len(reading.faults) for reading in readings)
    left = {n: reading for n, reading in enumerate(readings) if len(reading.faults) == fewest}
    chosen = max(left, key=lambda n: (left[n].score, left[n].near, -n))
    blind = [n for n, reading in left.items() if reading.lips is None]
    why = "lips match the speech best" if left[chosen].lips else "the first of those with fewest faults"
    told = [f"draft {chosen} of {len(readings)} is best: {why}"]
    if blind:
        told.append(f"sync was not judged in {_listed(blind)}: no face was found, or too little moves")
    told += [
        f"draft {n} comes last: {', '.join(reading.faults)}" for n, reading in enumerate(readings) if n not in left
    ]
    return chosen, "\n".join(told)


def _listed(drafts: Sequence[int]) -> str:
    return f"draft{'s' * (len(drafts) > 1)} {', '.join(map(str, drafts))}"
