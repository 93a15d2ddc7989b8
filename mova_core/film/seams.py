"""Takes put together: sound level and colour as in the first shot, and both clocks equal.

Axes: B batch, C channels, S samples, F frames, H W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..inputs.sounds import Sound
from ..segments import Resample
from ..waveform import MOST_GAIN, SILENCE_RMS, block_power, clip_samples, crossfade, fit, join_sound, with_channels
from .takes import Take

MATCHING = ("no", "shots that go on", "all shots")
MOST_SPREAD = 1.5  # a colour's spread is changed by this factor at most, either way
MOST_SHIFT = 48.0  # and its mean by so much of 255


def references(held: Sequence[int], matching: str) -> list[int]:
    """For each shot the one that it is matched to, itself for none. `held`: pictures each has of the one before."""
    found: list[int] = []
    for n, overlap in enumerate(held):
        chained = n > 0 and overlap > 0
        found.append(
            n if matching == "no" or n == 0 else 0 if matching == "all shots" else found[n - 1] if chained else n
        )
    return found


def joined_sound(parts: Sequence[Take], held: Sequence[int], matching: str, rate: int, resample: Resample) -> Tensor:
    """(1, C, S) at `rate` of all takes, each without the pictures it holds of the one before; as long as they are, to a
    sample. Without matching each is made as loud as the one before over what both share."""
    sounds = [_at(part.sound(), part, rate, resample) for part in parts]
    matched = [sounds[n] * _gain(sounds[first], sounds[n], rate) for n, first in enumerate(references(held, matching))]
    whole, frames = matched[0], parts[0].frames
    for part, overlap, sound in zip(parts[1:], held[1:], matched[1:]):
        if overlap and matching == "no":
            whole = join_sound(whole, sound, frames, part.frames, overlap, part.fps, rate)
        else:
            whole = _after(whole, sound, clip_samples(frames + part.frames - overlap, part.fps, rate))
        frames += part.frames - overlap
    return whole


def _at(sound: Sound, part: Take, rate: int, resample: Resample) -> Tensor:
    return fit(resample(sound.waveform, sound.rate, rate), clip_samples(part.frames, part.fps, rate))


def _after(before: Tensor, after: Tensor, samples: int) -> Tensor:
    """Both, crossfaded where they meet, so that they end together at `samples`."""
    channels = max(before.shape[1], after.shape[1])
    before, after = with_channels(before, channels), with_channels(after, channels)
    start = samples - after.shape[-1]
    if start > before.shape[-1]:
        before = fit(before, start)
    return crossfade(before, after, before.shape[-1] - start)


def _gain(reference: Tensor, sound: Tensor, rate: int) -> float:
    """The factor that makes what sounds in `sound` as loud as what sounds in `reference`; 1 where either is silent."""
    loud, quiet = _level(reference, rate), _level(sound, rate)
    return min(max(loud / quiet, 1 / MOST_GAIN), MOST_GAIN) if loud and quiet else 1.0


def _level(sound: Tensor, rate: int) -> float:
    """Root mean square of the blocks that sound; 0 for none."""
    power = block_power(sound, rate)
    sounding = power[power > SILENCE_RMS**2]
    return float(sounding.mean().sqrt()) if sounding.numel() else 0.0


def colours(pictures: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and spread of red, green and blue of (F, H, W, 3) uint8 pictures."""
    spread, mean = torch.std_mean(pictures[:: max(1, len(pictures) // 16)].float(), dim=(0, 1, 2), correction=0)
    red, green, blue = mean.tolist()
    return (red, green, blue), tuple(spread.tolist())


def matched_colours(pictures: Tensor, take: Take, first: Take) -> Tensor:
    """(F, H, W, 3) uint8 of `take` with the colours of `first`: mean and spread of each, within bounds."""
    if take.folder == first.folder:
        return pictures
    mean, spread = torch.tensor(take.mean), torch.tensor(take.spread)
    factor = (torch.tensor(first.spread) / spread.clamp_min(1.0)).clamp(1 / MOST_SPREAD, MOST_SPREAD)
    shift = (torch.tensor(first.mean) - mean).clamp(-MOST_SHIFT, MOST_SHIFT)
    return ((pictures.float() - mean) * factor + mean + shift).round().clamp(0, 255).to(torch.uint8)
