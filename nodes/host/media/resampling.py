"""Sound at another rate, by the resampler that this ComfyUI has."""

from torch import Tensor

from ....mova_core.waveform import checked_rate, fit, resampling_steps
from .. import newer

# A Kaiser window 64 zero crossings wide to either side, in place of six under a Hann window: flat to 20 kHz within
# 0.1 dB from 44.1 kHz, and what lies above the new half rate is more than 130 dB down.
SHARP = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
# Both resamplers place the filter's taps in the sound's own dtype: with terms above this, float32 places them so coarsely
# that it costs 25 dB and more. Float64 is not for all: a convolution with few, long strides takes gigabytes in it.
FINEST_TERM = 100


def resampled(waveform: Tensor, rate: float, to: float) -> Tensor:
    """(B, C, S) at `rate` Hz as (B, C, ceil(S * to / rate)) at `to` Hz, of the same dtype.

    Raises:
        ShapeError: one of them is no rate of sound.
        MovaError: neither ComfyUI nor torchaudio can resample here.
    """
    rate, to = checked_rate(rate), checked_rate(to)
    if rate == to:
        return waveform
    resample, sound, steps = newer.resampler(), waveform.float(), resampling_steps(rate, to)
    if max(max(step) for step in steps) > FINEST_TERM:
        sound = sound.double()
    for before, after in steps:
        sound = resample(sound, before, after, **SHARP)
    return fit(sound, -(-waveform.shape[-1] * to // rate)).to(waveform)
