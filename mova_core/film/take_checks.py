"""What a take's header may say: every field is looked at before anybody counts on it.

Axes: F frames, H W pixels, C channels, S samples.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import MovaError, ShapeError
from ..inputs.numbers import real, told, whole, words
from ..shapes import FPS_RANGE
from ..waveform import CHANNELS, SAMPLE_RATES

MOST_FRAMES, MOST_SIDE = 10**6, 10**5
COLOURS = 3


def checked_fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """A header's fields, each of its type and within its range.

    Raises:
        MovaError: a field is missing, unknown, or says what no take could be.
    """
    if said.keys() != FIELDS.keys():
        odd = sorted(said.keys() ^ FIELDS.keys())
        raise MovaError(f"it lacks or adds {', '.join(map(told, odd[:5]))}")
    found = {}
    for name, check in FIELDS.items():
        try:
            found[name] = check(said[name])
        except MovaError as error:
            raise MovaError(f"{name}: {error}") from error
    if found["held"] >= found["frames"]:
        raise MovaError(f"it holds {found['held']} of {found['frames']} frames of the shot before")
    return found


def check_end(pictures: Tensor, sound: Tensor, height: int, width: int, frames: int) -> None:
    """Accept (F, H, W, 3) pictures and (C, S) sound as the end of a take.

    Raises:
        ShapeError: they are not.
    """
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (height, width, COLOURS) or not 0 < len(pictures) <= frames:
        raise ShapeError(f"its pictures have shape {tuple(pictures.shape)}")
    if sound.ndim != 2 or sound.shape[0] not in CHANNELS or not sound.shape[1]:
        raise ShapeError(f"its sound has shape {tuple(sound.shape)}")


def _frames(value: Any) -> int:
    return whole(value, 1, MOST_FRAMES)


def _side(value: Any) -> int:
    return whole(value, 1, MOST_SIDE)


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise MovaError(f"{told(value)} is no list of names and texts")
    return {words(name): words(text) for name, text in value.items()}


def _colours(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != COLOURS:
        raise MovaError(f"{told(value)} is not {COLOURS} numbers")
    return tuple(real(number, 0.0, 255.0) for number in value)


def _signatures(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise MovaError(f"{told(value)} is no list")
    return [_texts(each) for each in value]


FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "shot": words,
    "number": lambda value: whole(value, 0, MOST_FRAMES),
    "frames": _frames,
    "held": lambda value: whole(value, 0, MOST_FRAMES),
    "height": _side,
    "width": _side,
    "fps": lambda value: real(value, *FPS_RANGE),
    "sample_rate": lambda value: whole(value, *SAMPLE_RATES),
    "end": words,
    "content": _texts,
    "mean": _colours,
    "spread": _colours,
    "signatures": _signatures,
    "made_with": _texts,
}
