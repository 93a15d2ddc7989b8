"""The meter finds what was put into clips made for it."""

import math

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.meter.lips import Lips
from mova_core.meter.mouths import followed, largest, of_face, of_lips
from mova_core.meter.reading import Reading, best, read
from mova_core.meter.sound import overdriven
from mova_core.meter.words import compare
from tests.fixtures.talking import FPS, FRAMES, RATE, talking, voice
from tests.fixtures.talking import MOUTH as MADE_MOUTH

MOUTH = torch.tensor([MADE_MOUTH]).expand(FRAMES, 4)


def late(sound, frames):
    return sound.roll(round(frames * RATE / FPS), 1)


def reading(pictures=None, sound=None, mouths=MOUTH) -> Reading:
    opened, heard = voice()
    return read(
        talking(opened) if pictures is None else pictures, heard if sound is None else sound, RATE, FPS, mouths=mouths
    )


def test_lips_that_follow_the_speech_are_in_step():
    lips = reading().lips
    assert lips.told
    assert lips.in_step
    assert "in step" in str(reading())


@pytest.mark.parametrize("frames", [-14, -9, 9, 14])
def test_a_lag_that_stands_out_is_told(frames):
    lips = reading(sound=late(voice()[1], frames)).lips
    assert lips.told
    assert not lips.in_step
    assert abs(lips.lag - frames / FPS) <= 2 / FPS
    assert ("late" if frames > 0 else "early") in str(lips)


def test_another_voice_scores_lower_and_is_hardly_ever_given_a_lag():
    own, others = reading().score, [reading(sound=voice(seed)[1]) for seed in range(1, 21)]
    assert all(other.score < own for other in others)
    assert sum(other.lips.told for other in others) <= 5  # of 20: four seconds are few to tell chance by


def test_a_match_near_none_needs_less_than_a_lag():
    assert Lips(near=2.8, peak=2.8, lag=0.04).in_step
    assert not Lips(near=0.0, peak=2.8, lag=0.5).told
    assert Lips(near=0.0, peak=3.6, lag=0.5).told


def test_lips_without_a_face_or_with_too_little_to_see_are_not_judged():
    assert reading(mouths=None).lips is None
    assert "no face judged" in str(reading(mouths=None))
    assert reading(pictures=torch.full((FRAMES, 48, 48, 3), 0.5)).lips is None
    assert read(talking(voice()[0])[:20], voice()[1], RATE, FPS, mouths=MOUTH[:20]).lips is None


def spoiled(kind):
    pictures, sound = talking(voice(1)[0]), voice(1)[1].clone()
    if kind == "picture not finite":
        pictures[40, 3, 3, 1] = float("nan")
    elif kind == "sound not finite":
        sound[0, 77] = float("inf")
    elif kind == "frozen":
        pictures = pictures[30].expand_as(pictures)
    elif kind == "flat colour":
        pictures = pictures * 0.001 + torch.linspace(0, 1, FRAMES)[:, None, None, None]
    elif kind == "silent":
        sound = 1e-4 * sound
    elif kind == "clipped":
        sound = torch.tanh(60 * sound) * 0.9
    return pictures, sound


KINDS = ("picture not finite", "sound not finite", "frozen", "flat colour", "silent", "clipped")


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_draft_comes_last_with_the_reason(kind):
    bad, good = reading(*spoiled(kind)), reading(sound=voice(5)[1])  # whose lips do not match
    assert bad.faults == (kind,)
    assert good.faults == ()
    chosen, why = best([bad, good])
    assert chosen == 1
    assert f"draft 0 comes last: {kind}" in why


def test_pauses_and_quiet_cost_nothing():
    sound = voice()[1]
    paused = sound.clone()
    paused[:, len(paused[0]) // 4 :] = 0
    assert reading(sound=paused, mouths=None).score == reading(mouths=None).score == 0
    assert reading(sound=0.1 * sound, mouths=None).faults == ()


def test_without_faces_the_first_of_the_whole_drafts_is_kept_and_sync_said_to_be_unjudged():
    chosen, why = best([reading(*spoiled("frozen"), None), reading(mouths=None), reading(mouths=None)])
    assert chosen == 1
    assert "sync was not judged in drafts 1, 2" in why


def test_the_draft_whose_lips_match_is_picked():
    sound = voice()[1]
    drafts = [reading(pictures=talking(voice(seed)[0]), sound=sound) for seed in (3, 0, 4, 5)]
    assert best(drafts)[0] == 1


@pytest.mark.parametrize(
    "dark",
    [
        lambda y, x: ((y - 20) ** 2 + (x - 30) ** 2 < 16) * 0.9,  # a moon
        lambda y, x: ((y - 24).abs() < 3) * ((x - 24).abs() < 3) * 0.8,  # a small logo
    ],
)
def test_a_dark_picture_with_something_in_it_is_no_flat_colour(dark):
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    picture = dark(y, x).float()[None, :, :, None].expand(FRAMES, 48, 48, 3)
    assert "flat colour" not in reading(pictures=picture).faults


def test_noise_does_not_hide_a_frozen_picture_and_a_small_mouth_is_motion():
    still = talking(torch.zeros(FRAMES))
    grain = 0.004 * torch.randn(still.shape, generator=torch.Generator().manual_seed(1))
    assert "frozen" in reading(pictures=still + grain).faults
    small = torch.full((FRAMES, 240, 240, 3), 0.5)
    small[:, 100:148, 100:148] = talking(voice()[0])
    assert "frozen" not in reading(pictures=small).faults


def tone(hertz, gain=1.0):
    return torch.sin(2 * math.pi * hertz * torch.arange(48000) / 48000)[None] * gain


def test_overdrive_is_seen_at_any_level_and_a_tone_is_none():
    for hertz in (60, 440, 3000):
        assert overdriven(tone(hertz)) == 0
    speech = voice()[1] / voice()[1].abs().max()
    for driven in (torch.tanh(3 * tone(200)), 0.3 * torch.tanh(5 * tone(200)), 0.5 * (3 * tone(200)).clamp(-1, 1)):
        assert overdriven(driven) > 0.1
    assert overdriven(torch.tanh(20 * speech)) > 0.001
    assert overdriven(speech) < 0.0005
    assert overdriven(torch.zeros(2, 100)) == 0


def test_channels_out_of_phase_are_not_silent_and_one_clipped_channel_is_clipped():
    sound = voice()[1]
    assert reading(sound=torch.cat((sound, -sound))).faults == ()
    assert "clipped" in reading(sound=torch.cat((sound, torch.tanh(60 * sound)))).faults


def test_a_picture_alone_cannot_be_measured():
    with pytest.raises(ShapeError, match="cannot be measured"):
        read(torch.zeros(1, 8, 8, 3), torch.zeros(1, 100), RATE, FPS)


def test_a_mouth_is_followed_through_gaps_and_strays():
    boxes = {frame: (10.0 + frame, 20.0, 30.0 + frame, 34.0) for frame in range(0, 40, 4)}
    track = followed(boxes | {16: (300.0, 300.0, 320.0, 314.0)}, 10, 40)
    assert track.shape == (40, 4)
    assert (track[10:30, 0] - (10 + torch.arange(10, 30))).abs().max() < 1.5
    assert followed(dict(list(boxes.items())[:4]), 10, 40) is None
    assert followed({}, 10, 40) is None
    assert largest([(0, 0, 2, 2), (0, 0, 5, 5)]) == 1
    assert largest([]) is None


def test_both_ways_of_finding_a_mouth_agree():
    cascade = of_face((100.0, 100.0, 200.0, 200.0))
    lips = of_lips((110.0, 105.0, 190.0, 205.0), [(135.0, 180.0), (165.0, 180.0), (150.0, 184.0)])
    assert max(abs(a - b) for a, b in zip(cascade, lips)) < 8


@pytest.mark.parametrize(
    ("prompt", "heard", "wrong", "wanted"),
    [
        ('Anna says: "Dinner is ready, come!" She smiles.', "dinner is ready come", 0, 4),
        ('Anna says: "Dinner is ready."', "dinner was nearly ready", 2, 3),
        ('A: "Don\u2019t go." B: "Why not?"', "dont go why not", 0, 4),
        ("She says \u300c\u4f60\u597d\u5417\u300d", "\u4f60\u597d", 1, 3),
        ("Elle dit \u00ab O\u00f9 vas-tu ? \u00bb", "o\u00f9 vas tu", 0, 3),
        ("Good morning", "good morning", 0, 2),
        ("Anna says: <speech>Good morning.</speech> A door.", "good morning", 0, 2),
        ('A: "Hello there"', "", 2, 2),
        ('A: "Hi"', "hi hi hi", 2, 1),
    ],
)
def test_words_heard_are_held_against_the_quoted_lines(prompt, heard, wrong, wanted):
    words = compare(prompt, heard)
    assert (words.wrong, words.wanted) == (wrong, wanted)
    assert words.error == wrong / wanted


def test_nothing_to_say_is_no_error_of_words():
    assert compare("...", "hello") is None
