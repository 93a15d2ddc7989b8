"""AUDIO: sound of any usual depth -> (B, C, S) float32 and a whole rate in Hz; None where there is none.

Axes: B batch, C channels, S samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import MovaError, ShapeError
from ..waveform import CHANNELS, checked_rate
from .numbers import told
from .tensors import broken, check_dense, extent, has_broken

MIDDLE = {torch.uint8: 128.0, torch.int8: 0.0, torch.int16: 0.0, torch.int32: 0.0}  # of whole-number samples
FULL_SCALE = {torch.uint8: 128.0, torch.int8: 128.0, torch.int16: 32768.0, torch.int32: 2147483648.0}
LONGEST_SOUND = 4 * 3600  # seconds; MOVA's clips last eight, and every sample is worked on
NO_STREAM = "does not contain any stream"  # ffmpeg's words for a video without sound
LOUDEST_SAMPLE = 100.0  # 40 dB above full scale: no sound in -1..1 any more, but a number on another scale


@dataclass(frozen=True, kw_only=True)
class Sound:
    """(B, C, S) float32 in about -1..1, at least one sample, at `rate` Hz."""

    waveform: Tensor
    rate: int


def sound(value: Any, silence: bool = False) -> Sound | None:
    """The sound of an AUDIO. None, as of a video without sound, and zero samples are None where `silence` will do.

    Raises:
        MovaError, ShapeError: no AUDIO, no sound where sound is the point, another shape or kind of numbers, channels
            that belong to no loudspeakers, NaN or infinity, an impossible rate.
    """
    if value is None:
        _check_silence(silence)
        return None
    read = _read(value)
    if read is None:
        _check_silence(silence)
        return None
    waveform, rate = read
    if not isinstance(waveform, Tensor):
        raise ShapeError(f"its waveform is {told(waveform)}; it must be a tensor of (batch, channels, samples)")
    check_dense("its waveform", waveform)
    if waveform.ndim != 3:
        raise ShapeError(
            f"a waveform of shape {tuple(waveform.shape)} cannot be read; it must be (batch, channels, samples)"
        )
    if not waveform.numel():
        _check_silence(silence)
        return None
    if waveform.shape[1] not in CHANNELS:
        raise ShapeError(
            f"a waveform of shape {tuple(waveform.shape)} has {waveform.shape[1]} channels; mono, stereo, 5.1 and 7.1 "
            "are known (1, 2, 6 and 8 channels): mix it down to one of them"
        )
    hertz = checked_rate(rate)
    if waveform.shape[-1] > LONGEST_SOUND * hertz:
        raise ShapeError(
            f"a sound of {waveform.shape[-1] / hertz / 3600:.1f} hours is too long; {LONGEST_SOUND // 3600} at most "
            "are taken. Cut it with 'Trim Audio Duration'"
        )
    return Sound(waveform=_samples(waveform), rate=hertz)


def _read(value: Any) -> tuple[Any, Any] | None:
    """Waveform and rate of an AUDIO; None where it turns out, as it is read, that the video has no sound.

    Raises:
        MovaError: it is none, or whoever is to read it only now cannot.
    """
    try:
        if isinstance(value, Mapping) and {"waveform", "sample_rate"} <= set(value):
            return value["waveform"], value["sample_rate"]
    except Exception as error:
        if NO_STREAM in str(error):
            return None
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise MovaError(
            f"this sound is read only now, and the node that reads it failed ({words:.200}). Load the file with 'Load "
            "Audio', or leave the sound out"
        ) from error
    raise MovaError(f"{told(value)} is no AUDIO; it must hold waveform and sample_rate")


def spoiled_sound(value: Any) -> Sound | None:
    """`sound` of which some samples may be NaN or infinite: both are NaN then. For whoever looks for them.

    Raises:
        MovaError, ShapeError: as `sound`, for all else.
    """
    read = None if value is None else _read(value)
    if read is None or not isinstance(read[0], Tensor) or not read[0].is_floating_point():
        return sound(value)
    waveform, rate = read
    if not has_broken(check_dense("its waveform", waveform)):
        return sound(value)
    spoiled = broken(waveform)
    whole = sound({"waveform": waveform.masked_fill(spoiled, 0.0), "sample_rate": rate})
    assert whole is not None  # silence was not asked for
    return Sound(waveform=whole.waveform.masked_fill(spoiled, float("nan")), rate=whole.rate)


def of_clips(given: Sound, clips: int) -> Sound:
    """`given`, one sound for all of so many clips or one each.

    Raises:
        ShapeError: another number of sounds.
    """
    count = len(given.waveform)
    if count not in (1, clips):
        wanted = "1 clip; give one" if clips == 1 else f"{clips} clips; give one, or one each"
        raise ShapeError(
            f"audio: {count} sounds for {wanted}. 'MOVA Decode' gives a single clip of a batch with its input 'clip'"
        )
    return given


def _check_silence(silence: bool) -> None:
    if not silence:
        raise MovaError("there is no sound: a video without a sound track gives none. Connect a sound")


def _samples(waveform: Tensor) -> Tensor:
    if waveform.dtype in FULL_SCALE:
        return (waveform.float() - MIDDLE[waveform.dtype]) / FULL_SCALE[waveform.dtype]
    if not waveform.is_floating_point():
        raise ShapeError(f"samples of {waveform.dtype} have no known scale; give floating point in -1..1, or 16 bit")
    low, high = extent(waveform)
    if not (low >= -LOUDEST_SAMPLE and high <= LOUDEST_SAMPLE):  # NaN fails both
        raise ShapeError(
            f"the samples run from {low:g} to {high:g}; they must lie in -1..1. NaN comes from a node or model that "
            "failed; numbers up to 32768 want dividing by it"
        )
    return waveform.detach().float()
