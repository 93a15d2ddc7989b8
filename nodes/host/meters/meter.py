"""Readings of a batch of clips: faces and loudness from what this ComfyUI has, the rest from the core.

Axes: F frames of a clip, H W pixels, C channels, S samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....mova_core.errors import MovaError, ShapeError
from ....mova_core.inputs.sounds import Sound
from ....mova_core.meter import words
from ....mova_core.meter.reading import Reading, read
from . import faces, loudness


def readings(
    images: Tensor,
    audio: Sound,
    fps: float,
    landmarks: faces.FaceLandmarks | None = None,
    recognised: str | None = None,
    prompt: str = "",
) -> list[Reading]:
    """One a clip of a batch, as 'MOVA Decode' lays them out: pictures one clip after the other, sounds stacked.

    Raises:
        ShapeError: they do not share out.
        MovaError: landmarks of other pictures, words for another number of clips.
    """
    clips = len(audio.waveform)
    if len(images) % clips:
        raise ShapeError(
            f"{len(images)} pictures do not share out among {clips} sounds; connect both from one 'MOVA Decode'"
        )
    if landmarks is not None:
        faces.check_landmarks(landmarks, images)
    frames, heard = len(images) // clips, _heard(recognised, prompt, clips)
    return [
        _reading(part, audio.waveform[n], audio.rate, fps, _mouths(part, landmarks, n * frames), heard[n])
        for n, part in enumerate(images.split(frames))
    ]


def report(of: Sequence[Reading]) -> str:
    """A line a clip."""
    return "\n".join(f"clip {n}: {reading}" if len(of) > 1 else str(reading) for n, reading in enumerate(of))


def _reading(
    images: Tensor, waveform: Tensor, rate: int, fps: float, mouths: Tensor | None, heard: words.Words | None
) -> Reading:
    finite = bool(torch.isfinite(waveform).all())
    loud = loudness.measure(waveform, rate) if finite else None
    return read(images, waveform, rate, fps, mouths=mouths, loudness=loud, words=heard)


def _mouths(images: Tensor, landmarks: faces.FaceLandmarks | None, begin: int) -> Tensor | None:
    if landmarks is not None:
        return faces.landmarked(landmarks, begin, len(images))
    return faces.detected(images) if bool(torch.isfinite(images).all()) else None


def _heard(recognised: str | None, prompt: str, clips: int) -> list[words.Words | None]:
    if recognised is None:
        return [None] * clips
    if not prompt.strip():
        raise MovaError("recognised words need the prompt, to tell what should have been said; connect it")
    rows = [recognised] if clips == 1 else recognised.strip().splitlines()
    if len(rows) != clips:
        raise MovaError(f"recognised has {len(rows)} rows for {clips} clips; give a row for each")
    return [words.compare(prompt, row) for row in rows]
