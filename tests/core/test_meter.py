"""The meter finds what was put into clips made for it."""

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.meter import best_match, read

FPS, RATE, FRAMES = 24.0, 48000, 72


def clip(late: int = 0, level: float = 0.5, beats=(12, 30, 47)):
    """Pictures that jump at `beats` and a sound that begins `late` frames after each."""
    pictures, sound = torch.zeros(FRAMES, 8, 8, 3), torch.zeros(1, int(RATE * FRAMES / FPS))
    pictures[:, :4] = 0.3
    for beat in beats:
        pictures[beat] += 0.6
        begin = round((beat + late) * RATE / FPS)
        burst = level * torch.sin(torch.arange(3000) * 0.2)
        sound[0, begin : begin + 3000] = burst
    return pictures.clamp(0, 1), sound


@pytest.mark.parametrize("late", [-6, -1, 0, 3, 10])
def test_it_finds_how_late_the_sound_is(late):
    reading = read(*clip(late), RATE, FPS)
    assert abs(reading.lag - late / FPS) < 1.5 / FPS
    assert reading.sync > 0.6


def test_a_clip_in_step_scores_above_one_out_of_step():
    assert read(*clip(0), RATE, FPS).score > read(*clip(8), RATE, FPS).score


def test_silence_clipping_and_flat_colour_cost_more_than_bad_timing():
    late = read(*clip(8), RATE, FPS).score
    pictures, sound = clip()
    assert read(pictures, torch.zeros_like(sound), RATE, FPS).score < late
    assert read(pictures, (100 * sound + 10).clamp(-1, 1), RATE, FPS).score < late
    assert read(torch.full_like(pictures, 0.5), sound, RATE, FPS).score < late


def test_levels_are_decibels_below_full_scale():
    square = torch.ones(1, RATE)
    square[:, ::2] = -1
    pictures, _ = clip()
    reading = read(pictures, 0.5 * square, RATE, FPS)
    assert reading.level == pytest.approx(-6.02, abs=0.01)
    assert reading.peak == pytest.approx(-6.02, abs=0.01)
    assert reading.clipped == 0
    assert read(pictures, torch.zeros(1, RATE), RATE, FPS).level == -120


def test_envelopes_without_change_match_nowhere():
    assert best_match(torch.zeros(20), torch.rand(20), 5)[0] == 0


def test_a_picture_alone_cannot_be_measured():
    with pytest.raises(ShapeError, match="cannot be measured"):
        read(torch.zeros(1, 8, 8, 3), torch.zeros(1, 100), RATE, FPS)
