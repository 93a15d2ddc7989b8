"""Which pictures of a recording are learned: windows, resampling by time, sizes, loudness."""

from __future__ import annotations

import pytest
import torch

from mova_core.errors import ConfigError, ShapeError
from mova_core.training.clips import Window, as_loud, bucket, fitted, loudness, shown, whole_frames, windows


@pytest.mark.parametrize(("count", "whole"), [(0, 0), (1, 1), (4, 1), (5, 5), (8, 5), (97, 97), (100, 97)])
def test_lengths_are_4n_plus_1(count: int, whole: int) -> None:
    assert whole_frames(count) == whole


def test_windows_of_a_recording() -> None:
    assert windows(4.1, 97) == [Window(0.0, 97)]
    assert windows(2.0, 97) == [Window(0.0, 45)]
    assert windows(0.1, 97) == []
    cut = windows(10.0, 97, "windows")  # 240 pictures: 97, 97 and 46, which is less than half
    assert cut == [Window(0.0, 97), Window(97 / 24, 97)]
    assert windows(11.0, 97, "windows")[2] == Window(194 / 24, 69)
    assert windows(97 / 24, 97) == [Window(0.0, 97)]  # exactly as long
    with pytest.raises(ShapeError, match="97 and 101"):
        windows(4.0, 98)
    with pytest.raises(ConfigError, match="'middle'"):
        windows(4.0, 97, "middle")


@pytest.mark.parametrize("fps", [10.0, 12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 60.0])
def test_pictures_are_chosen_by_time(fps: float) -> None:
    """The one shown at each 24th of a second, so that motion keeps its speed."""
    times = [number / fps for number in range(round(3 * fps))]
    chosen = shown(times, Window(0.5, 49))
    for number, index in enumerate(chosen):
        moment = 0.5 + number / 24
        assert times[index] <= moment + 2.1e-3
        assert index + 1 == len(times) or times[index + 1] > moment
    if fps == 24.0:
        assert chosen == list(range(12, 61))


def test_uneven_pictures_stay_as_long_as_they_are_shown() -> None:
    assert shown([0.0, 0.5], Window(0.0, 25))[11:14] == [0, 1, 1]
    with pytest.raises(ShapeError, match="without pictures"):
        shown([], Window(0.0, 5))


@pytest.mark.parametrize(
    ("source", "wanted"), [((352, 640), (352, 640)), ((1080, 1920), (352, 640)), ((640, 352), (640, 352))]
)
def test_buckets_keep_proportions_at_the_same_area(source: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert bucket(source, (352, 640)) == wanted


def test_every_bucket_is_a_size_the_model_takes() -> None:
    for source in ((480, 640), (100, 1000), (1000, 100), (512, 512), (90, 160)):
        height, width = bucket(source, (352, 640))
        assert height % 16 == width % 16 == 0
        assert 0.85 <= height * width / (352 * 640) <= 1.0
        assert bucket(source, (352, 640), "crop") == (352, 640)
    with pytest.raises(ConfigError, match="'stretch'"):
        bucket((10, 10), (352, 640), "stretch")


def test_a_fitted_picture_is_the_middle_part() -> None:
    pictures = torch.zeros(2, 40, 100, 3, dtype=torch.uint8)
    pictures[:, :, 30:70] = 200
    assert torch.equal(fitted(pictures, 40, 40), torch.full((2, 40, 40, 3), 200, dtype=torch.uint8))
    assert fitted(pictures, 16, 32).shape == (2, 16, 32, 3)


def test_loudness_is_evened_as_far_as_peaks_allow() -> None:
    tone = torch.sin(torch.arange(48000) / 20)[None]
    assert loudness(as_loud(0.01 * tone, -20.0)) == pytest.approx(-20.0, abs=0.01)
    assert float(as_loud(0.01 * tone, 0.0).abs().max()) == pytest.approx(0.98, abs=1e-3)
    assert torch.equal(as_loud(0 * tone, -20.0), 0 * tone)
    assert loudness(torch.zeros(1, 0)) == -120.0
