"""How loud a sound is to the ear: LUFS by pyloudnorm, true peak by the resampler.

Axes: C channels, S samples.
"""

import math

import torch
from torch import Tensor

from ....mova_core.errors import MovaError
from ....mova_core.meter.reading import Loudness
from ....mova_core.waveform import decibels
from ..media.resampling import resampled

BLOCK_SECONDS = 0.4  # of ITU-R BS.1770; what is shorter has no loudness
OVERSAMPLED = 4  # ITU-R BS.1770-4 annex 2
MOST_RATE = 96000  # Hz that is oversampled; beyond it samples lie dense enough


def measure(waveform: Tensor, rate: int) -> Loudness:
    """Of finite (C, S) sound in the order of ffmpeg's layouts.

    Raises:
        MovaError: pyloudnorm is not installed.
    """
    return Loudness(lufs=integrated(waveform, rate), true_peak=true_peak(waveform, rate))


def integrated(waveform: Tensor, rate: int) -> float | None:
    """LUFS; None of sound that is too short or too quiet for the standard's gate."""
    try:
        import pyloudnorm
    except ImportError as error:
        raise MovaError(
            f"pyloudnorm cannot be imported ({error}): pip install -r requirements.txt of this pack"
        ) from error
    sound = _weighed(waveform.double().cpu())
    if sound.shape[1] <= BLOCK_SECONDS * rate or not sound.any():
        return None
    lufs = float(pyloudnorm.Meter(rate).integrated_loudness(sound.T.numpy()))
    return lufs if math.isfinite(lufs) else None


def _weighed(sound: Tensor) -> Tensor:
    """The channels that the standard weighs, in its order: no LFE; the four surrounds of 7.1 as 5.1 plays them."""
    if len(sound) < 6:
        return sound
    surrounds = sound[4:6] + sound[6:8] if len(sound) == 8 else sound[4:6]
    return torch.cat((sound[:3], surrounds))


def true_peak(waveform: Tensor, rate: int) -> float:
    """dBTP: the highest point of the wave between its samples too."""
    if rate > MOST_RATE or waveform.shape[1] < 2:
        return decibels(waveform.abs().max().item())
    dense = resampled(waveform[None].float(), rate, OVERSAMPLED * rate)
    return decibels(max(waveform.abs().max().item(), dense.abs().max().item()))
