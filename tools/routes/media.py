"""A clip of two tensors as mp4, and what an mp4 really holds by decoding it: for demos and tests of whole graphs.

Axes: F frames, H rows, W columns; a waveform is (C channels, samples).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import av
import numpy as np
import torch
from av.frame import Frame
from torch import Tensor

from mova_core import mp4


class MediaFacts(TypedDict):
    """What came out of the decoders. The audio entries are 0 for a file without sound."""

    frames: int
    seconds: float  # of the pictures
    width: int
    height: int
    fps: float
    audio_seconds: float
    audio_peak: float  # largest absolute sample, 1 is full scale
    sample_rate: int


def write_mp4(path: Path, frames: Tensor, fps: float, waveform: Tensor, sample_rate: int) -> Path:
    """Write (F, H, W, 3) RGB, uint8 or floating point in [0, 1], with a (C, samples) waveform, replacing `path`."""
    picture = frames if frames.dtype == torch.uint8 else frames.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    mp4.write(path, (frames.shape[2], frames.shape[1]), [picture.cpu()], waveform, fps, sample_rate, {})
    return path


def describe_mp4(path: Path) -> MediaFacts:
    """Decode every picture and sample of an mp4 with AAC sound or none, and say what they are.

    Raises:
        ValueError: the file has no pictures.
    """
    with av.open(str(path)) as file:
        pictures = list(file.decode(video=0)) if file.streams.video else []
    with av.open(str(path)) as file:  # again: decoding has read to the end
        sounds = list(file.decode(audio=0)) if file.streams.audio else []
    if not pictures:
        raise ValueError(f"{path} has no pictures")
    seconds = _seconds(pictures)
    return {
        "frames": len(pictures),
        "seconds": seconds,
        "width": pictures[0].width,
        "height": pictures[0].height,
        "fps": len(pictures) / seconds,
        "audio_seconds": _seconds(sounds),
        "audio_peak": max((float(np.abs(sound.to_ndarray()).max()) for sound in sounds), default=0.0),
        "sample_rate": sounds[0].sample_rate if sounds else 0,
    }


def _seconds(frames: Sequence[Frame]) -> float:
    """Time the frames are shown or heard. AAC decodes to whole blocks; their durations leave the padding out."""
    return float(sum(frame.duration * (frame.time_base or 0) for frame in frames))
