"""Sound cut to pictures and joined without a click."""

import math
from fractions import Fraction

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.shapes import audio_samples
from mova_core.waveform import (
    checked_rate,
    clip_samples,
    crossfade,
    fit,
    join_sound,
    match_loudness,
    mono,
    resampling_steps,
    stereo,
    with_channels,
)


def tone(samples: int, level: float = 0.5) -> torch.Tensor:
    return level * torch.sin(torch.arange(samples) * 0.05).view(1, 1, -1)


@pytest.mark.parametrize(("frames", "fps"), [(193, 24.0), (121, 25.0), (9, 23.976)])
def test_a_clip_lasts_as_many_samples_as_the_model_counts(frames, fps):
    assert clip_samples(frames, fps, 48000) == audio_samples(frames, fps)


def test_sound_is_cut_or_filled_with_silence():
    assert torch.equal(fit(tone(100), 40), tone(100)[..., :40])
    filled = fit(tone(40), 100)
    assert filled.shape[-1] == 100
    assert not filled[..., 40:].any()


def test_the_same_sound_on_both_sides_passes_a_crossfade_unchanged():
    whole = tone(1000)
    joined = crossfade(whole[..., :600], whole[..., 400:], 200)
    assert torch.allclose(joined, whole, atol=1e-6)


def test_a_crossfade_makes_no_step_larger_than_its_sounds():
    loud, silent = tone(4000, 0.9), torch.zeros(1, 1, 4000)
    joined = crossfade(loud, silent, 1000)
    assert joined.shape[-1] == 7000
    assert joined.diff().abs().max() <= loud.diff().abs().max() * 1.01


def test_without_overlap_sounds_are_put_one_after_the_other():
    assert torch.equal(crossfade(tone(10), tone(5), 0), torch.cat((tone(10), tone(5)), -1))


@pytest.mark.parametrize("overlap", [-1, 11])
def test_an_overlap_longer_than_a_sound_is_refused(overlap):
    with pytest.raises(ShapeError, match="shorten the overlap"):
        crossfade(tone(10), tone(20), overlap)


def test_sounds_of_different_channels_are_not_joined():
    with pytest.raises(ShapeError, match="mix one down"):
        crossfade(tone(10).repeat(1, 2, 1), tone(10), 2)


def test_loudness_follows_the_reference_at_the_seam():
    quiet = tone(48000, 0.2)
    matched = match_loudness(quiet, tone(48000, 0.4)[..., :24000], quiet[..., :24000], 48000)
    assert torch.allclose(matched, 2 * quiet, rtol=1e-4)


def test_silence_on_either_side_changes_no_loudness():
    sound = tone(48000)
    assert torch.equal(match_loudness(sound, torch.zeros(1, 1, 24000), sound[..., :24000], 48000), sound)
    assert torch.equal(match_loudness(sound, sound[..., :24000], torch.zeros(1, 1, 24000), 48000), sound)


def test_a_gain_stays_within_twelve_decibels():
    faint = tone(48000, 0.01)
    matched = match_loudness(faint, tone(24000, 0.9), faint[..., :24000], 48000)
    assert torch.allclose(matched, 4 * faint, rtol=1e-4)


@pytest.mark.parametrize("pause", [0.3, 0.6, 0.8])
def test_a_pause_at_the_seam_does_not_set_the_loudness_of_what_follows(pause):
    """Speech of one loudness on both sides; before the seam it pauses, with the noise of a room."""
    generator = torch.Generator().manual_seed(0)
    speech = 0.1 * torch.randn(1, 1, 48000, generator=generator)
    before, quiet = speech.clone(), int(pause * 48000)
    before[..., -quiet:] *= 0.02
    matched = match_loudness(speech, before, speech, 48000)
    assert 20 * torch.log10(matched.std() / speech.std()).abs() < 0.5


@pytest.mark.parametrize("gain", [0.25, 0.5, 2.0, 4.0])
def test_a_real_difference_is_corrected_in_spite_of_a_pause(gain):
    speech = 0.1 * torch.randn(1, 1, 48000, generator=torch.Generator().manual_seed(0))
    before = speech.clone()
    before[..., -14400:] *= 0.01
    assert torch.allclose(match_loudness(gain * speech, before, gain * speech, 48000), speech, rtol=1e-3)


def test_a_pause_throughout_the_overlap_changes_nothing():
    speech = 0.1 * torch.randn(1, 1, 9600, generator=torch.Generator().manual_seed(0))
    few = speech.clone()
    few[..., 4800:] = 0  # five blocks sound
    assert torch.equal(match_loudness(speech, 0.5 * few, speech, 48000), speech)


def test_speech_in_the_centre_is_3_db_down_and_low_effects_are_left_out():
    surround = torch.zeros(1, 6, 100)
    surround[:, 2] = 1.0
    assert torch.allclose(stereo(surround), torch.full((1, 2, 100), 0.5**0.5))
    assert torch.allclose(mono(surround), torch.full((1, 1, 100), 0.5**0.5))
    low = torch.zeros(1, 6, 100)
    low[:, 3] = 1.0
    assert not mono(low).any()


@pytest.mark.parametrize(("channels", "side"), [(6, 4), (8, 4), (8, 6)])
def test_a_surround_goes_to_its_own_side_3_db_down(channels, side):
    surround = torch.zeros(1, channels, 10)
    surround[:, side] = 1.0
    left, right = stereo(surround)[0]
    assert torch.allclose(left, torch.full((10,), 0.5**0.5))
    assert not right.any()


def test_stereo_becomes_the_mean_of_its_sides_and_mono_stays():
    both = torch.randn(2, 2, 50)
    assert torch.equal(mono(both), both.mean(dim=1, keepdim=True))
    assert torch.equal(mono(both[:, :1]), both[:, :1])


@pytest.mark.parametrize(("have", "wanted"), [(1, 2), (1, 6), (2, 6), (6, 8), (2, 2), (1, 8)])
def test_a_wider_layout_mixes_down_to_what_it_was(have, wanted):
    """But for mono in the centre, which is 3 dB down as any centre."""
    sound = torch.randn(1, have, 20)
    wide = with_channels(sound, wanted)
    assert wide.shape == (1, wanted, 20)
    level = 0.5**0.5 if have == 1 and wanted > 2 else 1.0
    assert torch.allclose(mono(wide), level * mono(sound), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("fps", [24.0, 23.976, 29.97, 12.5])
def test_the_last_sample_of_a_join_is_sound(rate, fps):
    before, after = (torch.ones(1, 1, clip_samples(frames, fps, rate)) for frames in (49, 33))
    joined = join_sound(before, after, 49, 33, 9, fps, rate)
    assert joined.shape[-1] == clip_samples(73, fps, rate)
    assert torch.allclose(joined, torch.ones(()), atol=1e-6)


def test_mono_and_stereo_join_as_stereo():
    one, two = tone(96000), tone(96000).repeat(1, 2, 1)
    joined = join_sound(one, two, 48, 48, 24, 24.0, 48000)
    assert joined.shape == (1, 2, 144000)
    assert torch.allclose(joined[:, 0], joined[:, 1], atol=1e-6)


@pytest.mark.parametrize("fps", [24.0, 23.976, 30.0])
def test_picture_and_sound_stay_equal_to_the_sample_over_ten_extensions(fps):
    frames, sound = 49, tone(audio_samples(49, fps))
    for _ in range(10):
        sound = join_sound(sound, tone(audio_samples(49, fps)), frames, 49, 9, fps, 48000)
        frames += 40
        assert sound.shape[-1] == audio_samples(frames, fps)


def test_a_sound_continued_by_itself_is_itself():
    whole = tone(audio_samples(89, 24.0))
    begin, end = whole[..., : audio_samples(49, 24.0)], whole[..., audio_samples(40, 24.0) :]
    assert torch.allclose(join_sound(begin, end, 49, 49, 9, 24.0, 48000), whole, atol=1e-6)


@pytest.mark.parametrize("to", [48000, 44100, 16000])
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44056, 44099, 47952, 47988, 47999, 48001, 95999, 192001, 384000])
def test_any_rate_is_reached_in_small_steps_and_never_a_sample_short(rate, to):
    steps = resampling_steps(rate, to)
    reached = math.prod(Fraction(after, before) for before, after in steps) * rate
    assert to <= reached < to * (1 + 1e-6)
    assert max(max(step) for step in steps) <= 2048


def test_a_usual_rate_is_reached_at_once_and_exactly():
    assert resampling_steps(44100, 48000) == [(147, 160)]
    assert resampling_steps(96000, 48000) == [(2, 1)]


def test_a_rate_may_come_as_any_whole_number():
    assert checked_rate(48000.0) == checked_rate(48000) == 48000
