"""What of a recording is trained on: which pictures at 24 a second, in which windows, at which size.

Axes: F pictures, H W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..image import crop_box
from ..shapes import DEFAULT_FPS, SIZE_MULTIPLE, TEMPORAL_STRIDE, check_size, latent_frames
from ..waveform import decibels

SHORTEST = 5  # pictures of a window: two latent frames, so that there is motion
NEARLY = 2e-3  # seconds by which a picture may come late and still be the one shown at a moment
CUTS = ("start", "windows")
SIZES = ("crop", "buckets")
STEEPEST = 2.4  # of a bucket's sides; beyond it a picture is cropped
SILENT_CLIP_DB = -60.0  # root mean square below which a track counts as silent
LOUDEST_CLIP = 0.98  # of full scale, for a sound that is made louder


@dataclass(frozen=True)
class Window:
    """`frames` pictures at 24 a second from `start` seconds on."""

    start: float
    frames: int


def whole_frames(count: int) -> int:
    """The largest 4n + 1 of at most `count`; 0 where there is none."""
    return (count - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1 if count >= 1 else 0


def windows(seconds: float, frames: int, cut: str = "start", fps: float = DEFAULT_FPS) -> list[Window]:
    """The windows of at most `frames` pictures that a recording of so many seconds gives.

    "start" takes one, from its beginning; "windows" one after the other, the last one shorter where what is left is at
    least half as long. A recording that is shorter than `frames` gives one window of all it has; none where that is
    shorter than `SHORTEST`.

    Raises:
        ShapeError: `frames` is not 4n + 1. ConfigError: an unknown way to cut.
    """
    latent_frames(frames)
    if cut not in CUTS:
        raise ConfigError(f"there is no way to cut clips called {cut!r}; choose {' or '.join(CUTS)}")
    total = math.floor(seconds * fps + NEARLY * fps)
    first = Window(0.0, min(frames, whole_frames(total)))
    if first.frames < min(SHORTEST, frames):
        return []
    found, least = [first], max(SHORTEST, frames // 2)
    while cut == "windows":
        begun = len(found) * frames
        length = min(frames, whole_frames(total - begun))
        if length < least:
            break
        found.append(Window(begun / fps, length))
    return found


def shown(times: Sequence[float], window: Window, fps: float = DEFAULT_FPS) -> list[int]:
    """Which of the pictures that begin at `times` (rising, in seconds) is seen at each moment of a window.

    A recording of another rate is resampled so, by time: pictures come twice or not at all, and motion keeps its speed.

    Raises:
        ShapeError: no picture.
    """
    if not times:
        raise ShapeError("a recording without pictures has none to show")
    found, at = [], 0
    for number in range(window.frames):
        moment = window.start + number / fps + NEARLY
        while at + 1 < len(times) and times[at + 1] <= moment:
            at += 1
        found.append(at)
    return found


def bucket(source: tuple[int, int], size: tuple[int, int], kind: str = "buckets") -> tuple[int, int]:
    """(height, width) that a picture of `source` (height, width) is trained at.

    "crop" is `size` for all. "buckets" has about its area and the nearest proportions that multiples of 16 give.

    Raises:
        ShapeError: a side of `size` is no multiple of 16. ConfigError: an unknown kind.
    """
    height, width = size
    check_size(width, height)
    if kind not in SIZES:
        raise ConfigError(f"sizes cannot be chosen by {kind!r}; choose {' or '.join(SIZES)}")
    if kind == "crop":
        return size
    wanted = min(max(source[0] / source[1], 1 / STEEPEST), STEEPEST)
    area, sides = height * width / SIZE_MULTIPLE**2, range(1, 4 * max(height, width) // SIZE_MULTIPLE)
    made = [(rows, int(area // rows)) for rows in sides if area // rows >= 1]
    rows, columns = min(made, key=lambda each: (abs(math.log(each[0] / each[1] / wanted)), -each[0] * each[1]))
    return rows * SIZE_MULTIPLE, columns * SIZE_MULTIPLE


def fitted(pictures: Tensor, height: int, width: int) -> Tensor:
    """(F, H, W, 3) uint8 pictures cropped in the middle to the proportions of (height, width), then resized: uint8.

    Source: OpenMOSS/MOVA 595a976 `datasets/transforms/custom.py`: bilinear with antialiasing, rounded to 8 bits.
    """
    top, left, tall, wide = _box(pictures.shape[1], pictures.shape[2], height, width)
    part = pictures[:, top : top + tall, left : left + wide].movedim(-1, 1)
    if (tall, wide) != (height, width):
        resized = F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True, align_corners=False)
        part = resized.round().clamp(0, 255).to(torch.uint8)
    return part.movedim(1, -1).contiguous()


def _box(source_height: int, source_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part that is kept."""
    left, top, right, bottom = crop_box(source_height, source_width, height, width)
    return top, left, bottom - top, right - left


def loudness(sound: Tensor) -> float:
    """Root mean square of (S,) or (C, S) sound in dB below full scale, not below -120."""
    return decibels(float(sound.float().square().mean().sqrt())) if sound.numel() else -120.0


def as_loud(sound: Tensor, level: float) -> Tensor:
    """The sound at a root mean square of `level` dB, as far as its peaks allow; silence stays silence."""
    now = loudness(sound)
    if now <= SILENT_CLIP_DB:
        return sound
    gain = 10 ** ((level - now) / 20)
    return sound * min(gain, LOUDEST_CLIP / max(float(sound.abs().max()), 1e-9))
