"""A clip at one frame rate -> the clip of another that shows the same time: which pictures, and how many.

The nearest picture in time, never a blend: two exposures in one picture are no picture that a model knows.
"""

import math

from .errors import ShapeError
from .shapes import check_fps, frames_of, latent_frames

CLOSE = 1e-6  # of a picture: rates such as 30000/1001 come rounded


def retimed_frames(count: int, fps: float, to: float, most: int | None = None) -> int:
    """Pictures at `to` a second, 4n + 1, none later than the last of `count` at `fps`; up to `most`.

    Raises:
        ShapeError: no picture, an impossible rate, or a `most` that is not 4n + 1.
    """
    check_fps(fps)
    check_fps(to)
    if count < 1:
        raise ShapeError(f"a clip cannot have {count} pictures; it needs at least 1")
    fitting = math.floor((count - 1) * to / fps + CLOSE) + 1
    frames = frames_of((fitting - 1) // 4 + 1)
    return frames if most is None else min(frames, frames_of(latent_frames(most)))


def nearest_pictures(count: int, fps: float, to: float, frames: int) -> list[int]:
    """For each of `frames` pictures at `to` a second, which of `count` at `fps` is nearest in time."""
    return [min(count - 1, math.floor(frame * fps / to + 0.5)) for frame in range(frames)]
