"""Spans tile the schedule step by step; strengths multiply where they meet."""

import math

import pytest

from mova_core.errors import ConfigError
from mova_core.sampling.bridge_strength import BridgeStrength, strengths_at
from mova_core.sampling.schedule import Span, sigmas


@pytest.mark.parametrize("shift", [0.3, 1.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", [1, 4, 7, 25, 50, 1000])
def test_a_span_covers_the_steps_from_its_start_up_to_its_end(steps, shift):
    schedule = sigmas(steps, shift).tolist()[:-1]
    for first, last in {(0, steps), (0, steps // 2), (steps // 3, steps), (steps // 3, steps // 2)}:
        span = Span(first / steps, last / steps)
        assert [span.covers(sigma, shift) for sigma in schedule] == [first <= step < last for step in range(steps)]


def test_spans_that_meet_share_no_sigma_between_the_steps_either():
    before, after = Span(0, 0.37), Span(0.37, 1)
    for k in range(1001):
        assert before.covers(1 - k / 1000, 1) != after.covers(1 - k / 1000, 1)


def test_the_whole_schedule_is_covered_by_default_and_nothing_by_an_empty_span():
    assert all(Span().covers(sigma, 5) for sigma in (1.0, 0.5, 1e-7, 0.0))
    assert not any(Span(0.5, 0.5).covers(k / 1000, 5) for k in range(1001))


def test_strengths_multiply_where_their_spans_meet():
    entries = [
        BridgeStrength(audio_to_video=2, video_to_audio=0.5),
        BridgeStrength(audio_to_video=3, span=Span(0, 0.5)),
        BridgeStrength(video_to_audio=0, span=Span(0.5, 1)),
    ]
    assert strengths_at(entries, 0.75, 1) == (6, 0.5)
    assert strengths_at(entries, 0.25, 1) == (2, 0)
    assert strengths_at([], 0.25, 1) == (1, 1)


@pytest.mark.parametrize("span", [(0.5, 0.4), (-0.1, 1), (0, 1.1), (math.nan, 1)])
def test_an_impossible_span_is_refused(span):
    with pytest.raises(ConfigError, match="give a start and a later end"):
        Span(*span)


@pytest.mark.parametrize("wrong", [{"audio_to_video": math.nan}, {"video_to_audio": math.inf}])
def test_an_impossible_strength_is_refused(wrong):
    with pytest.raises(ConfigError, match="finite number"):
        BridgeStrength(**wrong)
