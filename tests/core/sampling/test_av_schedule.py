"""An audio latent on the video's schedule is a flow of the video's: what a sampler takes it for."""

import pytest
import torch

from mova_core.sampling import av_schedule
from mova_core.sampling.schedule import reshift, sigmas
from mova_core.shapes import steps_during

SHIFTS = [(5.0, 5.0), (5.0, 9.0), (9.0, 7.0)]
MAKE = torch.Generator().manual_seed(0)
CLEAN, NOISE = (torch.randn(1, 4, 7, generator=MAKE, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("level", [1.0, 0.9, 0.4, 0.01])
def test_scaled_it_is_a_flow_over_the_videos_sigma(shifts: tuple[float, float], level: float) -> None:
    sigma = torch.tensor([level], dtype=torch.float64)
    own = av_schedule.audio_sigma(sigma, shifts)
    audio = (1 - own) * CLEAN + own * NOISE
    scaled = audio * sigma / own
    assert torch.allclose(av_schedule.unscaled(scaled, sigma, own, shifts, clean=False), audio, atol=1e-6)
    velocity = av_schedule.scaled_velocity(audio, NOISE - CLEAN, own, shifts)
    assert torch.allclose(scaled - sigma * velocity, av_schedule.clean_scale(shifts) * CLEAN, atol=1e-5)
    share = av_schedule.latent_share(level, shifts)
    rest = sigma * velocity - share * scaled  # a multiple of the audio's own velocity
    assert torch.allclose(rest / (NOISE - CLEAN), (rest / (NOISE - CLEAN)).mean().expand_as(CLEAN), atol=1e-5)


@pytest.mark.parametrize("shifts", SHIFTS)
def test_noise_is_noise_and_a_clean_latent_is_scaled_as_at_the_end(shifts: tuple[float, float]) -> None:
    one = torch.ones(1, dtype=torch.float64)
    own = av_schedule.audio_sigma(one, shifts)
    assert torch.allclose(av_schedule.unscaled(NOISE, one, own, shifts, clean=False), NOISE, atol=1e-6)
    scaled = av_schedule.clean_scale(shifts) * CLEAN
    assert torch.allclose(av_schedule.unscaled(scaled, one, one, shifts, clean=True), CLEAN, atol=1e-6)


def test_every_step_of_a_schedule_is_that_of_the_other_shift() -> None:
    assert torch.allclose(av_schedule.audio_sigma(sigmas(8, 5.0)[:-1], (5.0, 9.0)), sigmas(8, 9.0)[:-1], atol=1e-6)
    assert torch.equal(av_schedule.audio_sigma(sigmas(8, 5.0), (5.0, 5.0)), sigmas(8, 5.0))


@pytest.mark.parametrize("given", [0.3, 0.8])
def test_a_level_of_its_own_ends_at_the_clean_estimate(given: float) -> None:
    sigma, own = torch.tensor([0.5], dtype=torch.float64), torch.tensor([given], dtype=torch.float64)
    audio = (1 - own) * CLEAN + own * NOISE
    estimate = audio - sigma * av_schedule.to_video_step(NOISE - CLEAN, sigma, own)
    assert torch.allclose(estimate, CLEAN, atol=1e-5)


def test_windows_of_frames_cover_every_step_once() -> None:
    found = [step for index in range(13) for step in steps_during([index], 13, 102)]
    assert sorted(set(found)) == list(range(102))
    assert steps_during(range(13), 13, 102) == list(range(102))
    assert steps_during([12], 13, 5) == [4]
    assert reshift(torch.ones(1), 5.0, 9.0) == 1
