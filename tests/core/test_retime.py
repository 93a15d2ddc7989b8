"""Pictures by time: lengths and indices of clips at other rates."""

import pytest

from mova_core.errors import ShapeError
from mova_core.retime import nearest_pictures, retimed_frames

CASES = [
    (37, 30.0),
    (300, 25.0),
    (241, 29.97),
    (120, 60.0),
    (193, 24.0),
    (50, 12.0),
    (200, 23.976),
    (1, 24.0),
    (7, 240.0),
]


@pytest.mark.parametrize(("count", "fps"), CASES)
def test_no_picture_is_later_than_the_last_and_none_more_would_fit(count: int, fps: float) -> None:
    frames = retimed_frames(count, fps, 24.0)
    assert frames % 4 == 1
    last = (count - 1) / fps
    assert (frames - 1) / 24.0 <= last + 1e-6
    assert (frames + 3) / 24.0 > last


@pytest.mark.parametrize(("count", "fps"), CASES)
def test_each_picture_is_the_nearest_in_time(count: int, fps: float) -> None:
    frames = retimed_frames(count, fps, 24.0)
    chosen = nearest_pictures(count, fps, 24.0, frames)
    assert len(chosen) == frames
    assert chosen == sorted(chosen)
    for frame, source in enumerate(chosen):
        errors = [abs(other / fps - frame / 24.0) for other in range(count)]
        assert errors[source] <= min(errors) + 1e-9
        assert errors[source] <= 0.5 / fps + 1e-9


def test_the_same_rate_is_the_same_pictures() -> None:
    assert retimed_frames(193, 24.0, 24.0) == 193
    assert nearest_pictures(193, 24.0, 24.0, 193) == list(range(193))


def test_a_limit_cuts_and_must_be_a_length_of_a_clip() -> None:
    assert retimed_frames(1000, 30.0, 24.0, 193) == 193
    assert retimed_frames(30, 30.0, 24.0, 193) == 21
    with pytest.raises(ShapeError, match="nearest"):
        retimed_frames(1000, 30.0, 24.0, 192)


@pytest.mark.parametrize(("count", "fps"), [(0, 24.0), (9, 0.0), (9, float("nan")), (9, -24.0)])
def test_impossible_clips_are_refused(count: int, fps: float) -> None:
    with pytest.raises(ShapeError):
        retimed_frames(count, fps, 24.0)
