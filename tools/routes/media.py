"""Write a clip as mp4, and say what an mp4 really holds by decoding it: for demos and for tests of whole graphs.

Axes: F frames, H rows, W columns; a waveform is (C channels, samples).
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

import av
import numpy as np
import torch
from av.frame import Frame
from torch import Tensor

LAYOUTS = {1: "mono", 2: "stereo"}


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
    """Write H.264 pictures (yuv420p) with AAC sound, replacing `path`.

    Args:
        frames: (F, H, W, 3) RGB: uint8, or floating point in [0, 1]. H and W are even.
        fps: pictures a second.
        waveform: (C, samples) in [-1, 1], mono or stereo. Neither it nor the pictures are cut to the other's length.
        sample_rate: samples a second, one that AAC has (48000, 44100, ...).

    Raises:
        ValueError: the frames or the waveform have another form.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[1] % 2 or frames.shape[2] % 2 or not len(frames):
        raise ValueError(f"frames of shape {tuple(frames.shape)}; wanted (F, H, W, 3) with even H and W")
    if waveform.ndim != 2 or waveform.shape[0] not in LAYOUTS or not waveform.shape[1]:
        raise ValueError(f"a waveform of shape {tuple(waveform.shape)}; wanted (1 or 2 channels, samples)")
    with av.open(str(path), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        audio = file.add_stream("aac", rate=sample_rate, layout=LAYOUTS[waveform.shape[0]])
        for picture in _bytes(frames).cpu().numpy():
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode(None))
        samples = waveform.float().clamp(-1, 1).cpu().contiguous().numpy()
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout=LAYOUTS[waveform.shape[0]])
        sound.sample_rate, sound.pts = sample_rate, 0  # untimed, AAC's 1024 priming samples would be heard
        file.mux(audio.encode(sound))
        file.mux(audio.encode(None))
    return path


def _bytes(frames: Tensor) -> Tensor:
    if frames.dtype == torch.uint8:
        return frames
    return frames.float().clamp(0, 1).mul(255).round().to(torch.uint8)


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
