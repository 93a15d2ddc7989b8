"""What a step is shown: upstream's grid, each expert its own part of it, and the same draws for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mova_core.config import SchedulerConfig
from mova_core.errors import ConfigError
from mova_core.training import loss
from mova_core.training.noise import Draws, chance, clip_at, generator, noises, timestep

DRAWS = Draws(seed=3, shift=5.0, audio_shift=5.0, boundary=0.9)


def test_the_experts_share_the_grid_where_upstream_parts_it() -> None:
    assert DRAWS.indices("high") == range(358)
    assert DRAWS.indices("low") == range(358, 1000)
    assert timestep(0, 5.0).tolist() == [1000.0]
    assert timestep(1, 5.0).item() == pytest.approx(1000 * 5 * 0.999 / (1 + 4 * 0.999))


@pytest.mark.parametrize("expert", ["high", "low"])
@pytest.mark.parametrize("strata", [1, 8])
def test_draws_stay_in_the_experts_range_and_cover_it(expert: str, strata: int) -> None:
    draws = Draws(seed=3, shift=5.0, audio_shift=5.0, boundary=0.9, strata=strata)
    values = torch.cat([draws.timesteps(expert, count)[0] for count in range(160)])  # type: ignore[arg-type]
    bounds = (900, 1000) if expert == "high" else (0, 900)
    assert values.min() >= bounds[0]
    assert values.max() <= bounds[1]
    indices = draws.indices(expert)  # type: ignore[arg-type]
    quarter = timestep(indices[len(indices) // 4], 5.0).item()
    assert 0.12 < (values > quarter).float().mean() < 0.38


def test_each_round_of_strata_visits_each_once() -> None:
    draws = Draws(seed=3, shift=5.0, audio_shift=5.0, boundary=0.9, strata=8)
    edges = [timestep(358 + 642 * part // 8, 5.0).item() for part in range(8)]
    for start in (0, 8, 16):
        found = Counter(
            max(p for p in range(8) if draws.timesteps("low", start + k)[0].item() <= edges[p] + 1e-3) for k in range(8)
        )
        assert set(found.values()) == {1}


def test_both_streams_share_a_step_unless_asked_otherwise() -> None:
    prism = Draws.of(SchedulerConfig(shift=9.0, sigma_min=0.0, boundary=0.9), 7.0, 1)
    for count in range(20):
        video, audio = DRAWS.timesteps("high", count)
        assert torch.equal(video, audio)
        video, audio = (t.double() / 1000 for t in prism.timesteps("high", count))
        even = [s / (s + (1 - s) * shift) for s, shift in ((video, 9.0), (audio, 7.0))]
        assert even[0].item() == pytest.approx(even[1].item(), abs=1e-4)
    separate = Draws(seed=3, shift=5.0, audio_shift=5.0, boundary=0.9, separate=True)
    sound = torch.cat([separate.timesteps("high", count)[1] for count in range(100)])
    assert sound.min() < 500 < 950 < sound.max()


def test_draws_follow_from_seed_and_count_alone() -> None:
    first = [DRAWS.timesteps("low", count) for count in range(5)]
    torch.rand(7)
    assert [DRAWS.timesteps("low", count) for count in range(5)] == first
    assert DRAWS.timesteps("low", 0) != DRAWS.timesteps("low", 1)
    other = Draws(seed=4, shift=5.0, audio_shift=5.0, boundary=0.9)
    assert other.timesteps("low", 0) != first[0]


def test_noise_is_the_pictures_first() -> None:
    video, audio = noises(torch.zeros(1, 2, 3), torch.zeros(4), generator(1))
    both = torch.randn(10, generator=generator(1))
    assert video.shape == (1, 2, 3)
    assert torch.equal(torch.cat((video.flatten(), audio))[:3], both[:3])


def test_every_clip_comes_once_a_round_in_changing_order() -> None:
    rounds = [[clip_at(5 * r + k, 5, 1) for k in range(5)] for r in range(20)]
    assert all(sorted(each) == [0, 1, 2, 3, 4] for each in rounds)
    assert len(set(map(tuple, rounds))) > 10


def test_chance() -> None:
    assert not any(chance(0.0, n) for n in range(50))
    assert all(chance(1.0, n) for n in range(50))
    assert 20 < sum(chance(0.1, n) for n in range(400)) < 65


def test_what_is_shown_lies_between_clean_and_noise() -> None:
    clean, noise = torch.full((2, 3), 2.0), torch.full((2, 3), -4.0)
    shown = loss.noised(clean, noise, torch.tensor([0.0, 250.0]))
    assert shown[0].tolist() == [2.0] * 3
    assert shown[1].tolist() == [0.5] * 3
    assert loss.target(clean, noise)[0].tolist() == [-6.0] * 3


@pytest.mark.parametrize("strata", [0, 101])
def test_impossible_strata_are_named(strata: int) -> None:
    with pytest.raises(ConfigError, match="strata"):
        Draws(seed=1, shift=5.0, audio_shift=5.0, boundary=0.9, strata=strata)
