"""Sound beside pictures: cut or fill to a clip's length, joined without a click.

Axes: B batch, C channels, S samples at a rate in Hz.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from .errors import ShapeError
from .shapes import clip_seconds

CHANNELS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""Layouts by their number of channels, in ffmpeg's names and order: L R C LFE, surrounds left and right in turn"""

HALF_POWER = math.sqrt(0.5)  # -3 dB
SILENCE_RMS = 10 ** (-50 / 20)  # blocks below -50 dB of full scale are pauses: they say nothing of how loud speech is
BLOCK_SECONDS = 0.02
FEWEST_BLOCKS = 10  # sounding blocks that a comparison needs
MOST_GAIN = 4.0  # at most 12 dB either way
SAMPLE_RATES = (8000, 384000)  # Hz that sound is kept at
MOST_TERM = 2048  # of a ratio resampled at once: a filter has the product of both terms, 48000 / 47999 would take 9 GB


def checked_rate(rate: float) -> int:
    """A sample rate as a whole number of Hz.

    Raises:
        ShapeError: not whole, or beyond `SAMPLE_RATES`.
    """
    try:
        whole = SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1] and rate == int(rate)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number at all, or many
        whole = False
    if not whole:
        lowest, highest = SAMPLE_RATES
        try:
            stated = f"{rate!r:.60}"
        except ValueError:  # Python writes no number of more than some thousand digits
            stated = "thousands of digits"
        raise ShapeError(
            f"sound has a sample rate of {stated} Hz; it must be a whole number from {lowest} to {highest}"
        )
    return int(rate)


def resampling_steps(rate: int, to: int) -> list[tuple[int, int]]:
    """Ratios (from, to) that take sound from `rate` to `to` one after the other, none with a term above `MOST_TERM`.

    One step where the ratio is that simple. Else two by way of a little higher rate, too fast by less than one in a
    million and never too slow, so that no sample is missing at the end.
    """
    whole = Fraction(to, rate)
    if max(whole.numerator, whole.denominator) <= MOST_TERM:
        return [(whole.denominator, whole.numerator)]
    most = min(MOST_TERM, int(MOST_TERM / whole))  # so that the numerator of what is near `whole` stays below it too
    ups = (Fraction(n + 1, n) for n in range(MOST_TERM // 8, MOST_TERM))
    pairs = ((up, (whole / up).limit_denominator(most)) for up in ups)
    up, rest = min((pair for pair in pairs if pair[0] * pair[1] >= whole), key=lambda pair: pair[0] * pair[1])
    return [(up.denominator, up.numerator), (rest.denominator, rest.numerator)]


def decibels(amplitude: float) -> float:
    """20 log10, not below -120."""
    return max(-120.0, 20 * math.log10(max(amplitude, 1e-12)))


def clip_samples(frames: int, fps: float, rate: int) -> int:
    """Samples at `rate` that a clip lasts, rounded down; at 48 kHz the same as `shapes.audio_samples`."""
    clip_seconds(frames, fps)
    return int(rate * frames / fps)


def fit(waveform: Tensor, samples: int) -> Tensor:
    """(B, C, S) cut to `samples`, or filled with silence at its end."""
    if waveform.ndim != 3:
        raise ShapeError(f"a waveform has shape {tuple(waveform.shape)}; it must be (batch, channels, samples)")
    short = samples - waveform.shape[-1]
    return torch.nn.functional.pad(waveform, (0, short)) if short > 0 else waveform[..., :samples]


def stereo(waveform: Tensor) -> Tensor:
    """(B, C, S) as (B, 2, S): mono on both sides; of more channels centre and surrounds at -3 dB, without LFE.

    Source: ITU-R BS.775, Lo/Ro.
    """
    if waveform.shape[1] <= 2:
        return waveform.expand(-1, 2, -1)
    sides = [
        waveform[:, side] + HALF_POWER * (waveform[:, 2] + waveform[:, 4 + side :: 2].sum(dim=1)) for side in (0, 1)
    ]
    return torch.stack(sides, dim=1)


def mono(waveform: Tensor) -> Tensor:
    """(B, C, S) as (B, 1, S): the mean of both sides."""
    return waveform if waveform.shape[1] == 1 else stereo(waveform).mean(dim=1, keepdim=True)


def five_one(waveform: Tensor) -> Tensor:
    """(B, C, S) of 7.1 as 5.1, each side's two surrounds at -3 dB in one; of fewer channels as it is."""
    if waveform.shape[1] <= 6:
        return waveform
    surrounds = HALF_POWER * (waveform[:, 4:6] + waveform[:, 6:8])
    return torch.cat((waveform[:, :4], surrounds), dim=1)


def with_channels(waveform: Tensor, channels: int) -> Tensor:
    """(B, C, S) in a layout of as many channels or more: mono in stereo on both sides, in 5.1 and 7.1 in the centre."""
    batch, have, samples = waveform.shape
    if have == channels:
        return waveform
    if (have, channels) == (1, 2):
        return waveform.repeat(1, 2, 1)
    wide = waveform.new_zeros(batch, channels, samples)
    first = 2 if have == 1 else 0  # the centre, or left and right
    wide[:, first : first + have] = waveform
    return wide


def match_loudness(sound: Tensor, reference: Tensor, like: Tensor, rate: int) -> Tensor:
    """`sound` with the gain that makes its part `like` as loud as `reference`; both are (B, C, S) of the same moment.

    Only blocks of 20 ms in which both sound are compared, so that a pause does not set the loudness of what follows it;
    left alone where these are fewer than ten. The gain is held within 12 dB.
    """
    power, ours = (block_power(part, rate) for part in (reference, like))
    sounding = (power > SILENCE_RMS**2) & (ours > SILENCE_RMS**2)
    loud, quiet = ((part * sounding).sum(dim=1) for part in (power, ours))
    gain = (loud / quiet.clamp_min(1e-20)).sqrt().clamp(1 / MOST_GAIN, MOST_GAIN)
    gain = torch.where(sounding.sum(dim=1) >= FEWEST_BLOCKS, gain, torch.ones_like(gain))
    return sound * gain.view(-1, 1, 1).to(sound)


def block_power(part: Tensor, rate: int) -> Tensor:
    """(B, blocks) mean squares of (B, C, S), in whole blocks."""
    block = max(1, round(BLOCK_SECONDS * rate))
    count = part.shape[-1] // block
    whole = part[..., : count * block].float().unflatten(-1, (count, block))
    power: Tensor = whole.square().mean(dim=(1, 3))
    return power


def crossfade(before: Tensor, after: Tensor, overlap: int) -> Tensor:
    """`before` then `after`, (B, C, S) each, the last `overlap` samples of one over the first of the other.

    Both sides are weighted by quarter waves whose weights add up to one, so a sound that is the same on both sides
    passes unchanged.

    Raises:
        ShapeError: one of them is shorter than the overlap, or they differ in batch or channels.
    """
    if before.shape[:2] != after.shape[:2]:
        raise ShapeError(
            f"cannot join sounds of shapes {tuple(before.shape)} and {tuple(after.shape)}; mix one down first"
        )
    if overlap > min(before.shape[-1], after.shape[-1]) or overlap < 0:
        raise ShapeError(
            f"cannot overlap sounds of {before.shape[-1]} and {after.shape[-1]} samples by {overlap}; "
            "shorten the overlap"
        )
    if not overlap:
        return torch.cat((before, after), dim=-1)
    moment = (torch.arange(overlap, dtype=torch.float32, device=before.device) + 0.5) / overlap
    rise = torch.sin(moment * (math.pi / 2)).square()
    seam = before[..., -overlap:] * (1 - rise) + after[..., :overlap] * rise
    return torch.cat((before[..., :-overlap], seam.to(before.dtype), after[..., overlap:]), dim=-1)


def join_sound(
    before: Tensor, after: Tensor, frames: int, next_frames: int, overlap: int, fps: float, rate: int
) -> Tensor:
    """The sound of a clip of `frames` followed by one of `next_frames` that begins with its last `overlap` frames.

    Both (B, C, S) at `rate`; the one of fewer channels is brought to the other's layout. Matched in
    loudness and crossfaded over the overlap. Lasts exactly as long as the joined pictures, so the two clocks stay equal
    however often clips are joined; the new sound ends with them, to the sample.

    Raises:
        ShapeError: clips that do not reach over the overlap, or sounds of unequal batches.
    """
    channels = max(before.shape[1], after.shape[1])
    before, after = with_channels(before, channels), with_channels(after, channels)
    before = fit(before, clip_samples(frames, fps, rate))
    after = fit(after, clip_samples(next_frames, fps, rate))
    start = clip_samples(frames + next_frames - overlap, fps, rate) - after.shape[-1]  # so that both end together
    shared = before.shape[-1] - start
    if not 0 <= shared <= after.shape[-1]:
        raise ShapeError(f"clips of {frames} and {next_frames} pictures cannot share {overlap}; shorten the overlap")
    after = match_loudness(after, before[..., start:], after[..., :shared], rate)
    return crossfade(before, after, shared)
