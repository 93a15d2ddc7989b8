"""The schedule obeys its laws, equals the official sigmas, and hands over between the experts at the boundary."""

import math

import pytest
import torch

from mova_core.errors import ConfigError, ShapeError
from mova_core.sampling import schedule
from mova_core.sampling.schedule import Expert
from tests.golden import SETS, tensors

# 50 steps, shift 5, sigma_min 0, as the official code prints them.
# fmt: off
FIFTY = [
    1.0, 0.995935, 0.991735, 0.987395, 0.982906, 0.978261, 0.973451, 0.968468, 0.963303, 0.957944, 0.952381, 0.946602,
    0.940594, 0.934343, 0.927835, 0.921053, 0.913979, 0.906593, 0.898876, 0.890805, 0.882353, 0.873494, 0.864197,
    0.85443, 0.844156, 0.833333, 0.821918, 0.809859, 0.797101, 0.783582, 0.769231, 0.753968, 0.737705, 0.720339,
    0.701754, 0.681818, 0.660377, 0.637255, 0.612245, 0.585106, 0.555556, 0.523256, 0.487805, 0.448718, 0.405405,
    0.357143, 0.30303, 0.241935, 0.172414, 0.092593, 0.0,
]
# fmt: on
GRID = torch.linspace(0, 1, 101)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 5.0, 12.0])
def test_n_steps_have_n_plus_one_sigmas_falling_from_1_to_0(shift):
    for steps in (*range(1, 60), 1000):
        sigmas = schedule.sigmas(steps, shift)
        assert sigmas.shape == (steps + 1,)
        assert sigmas.dtype == torch.float32
        assert sigmas[0] == 1
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()


def test_shift_1_changes_nothing():
    assert torch.equal(schedule.shift_sigmas(GRID, 1), GRID)


def test_shift_leaves_both_ends_exactly_in_place():
    for shift in (0.6, 3, 5, 7.3):
        assert schedule.shift_sigmas(GRID, shift)[[0, -1]].tolist() == [0, 1]


def test_shifts_compose_by_multiplication():
    twice = schedule.shift_sigmas(schedule.shift_sigmas(GRID.double(), 2.5), 2)
    torch.testing.assert_close(twice, schedule.shift_sigmas(GRID.double(), 5), atol=1e-14, rtol=0)


def test_reshift_turns_the_video_schedule_into_the_audio_one_and_back():
    video, audio = schedule.sigmas(25, 5), schedule.sigmas(25, 3)
    torch.testing.assert_close(schedule.reshift(video, 5, 3), audio, atol=2e-7, rtol=0)
    torch.testing.assert_close(schedule.reshift(audio, 3, 5), video, atol=2e-7, rtol=0)
    assert torch.equal(schedule.reshift(video, 5, 5), video)


def test_fifty_steps_are_the_published_ones():
    torch.testing.assert_close(schedule.sigmas(50), torch.tensor(FIFTY), atol=6e-7, rtol=0)  # six digits


@pytest.mark.parametrize("folder", SETS)
@pytest.mark.parametrize(
    ("variant", "video_shift", "audio_shift", "sigma_min"),
    [
        ("deployed", 5, 5, 0.0),
        ("deployed_sigmamin_default", 5, 5, 0.003 / 1.002),
        ("dual_5_3", 5, 3, 0.0),
        ("dual_8_1p5", 8, 1.5, 0.0),
    ],
)
def test_sigmas_and_timesteps_equal_the_official_ones_before_their_rounding(
    variant, video_shift, audio_shift, sigma_min, folder
):
    golden, config = tensors("b_schedule", folder)
    for steps in config["steps"]:
        pair = [schedule.sigmas(steps, shift, sigma_min)[:-1] for shift in (video_shift, audio_shift)]
        ours = torch.stack(pair, dim=1)
        torch.testing.assert_close(ours, golden[f"{variant}/{steps}/pair_sigmas"], atol=2e-7, rtol=0)
        torch.testing.assert_close(schedule.timesteps(ours), golden[f"{variant}/{steps}/pairs"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("steps", [4, 8, 25, 50])
def test_step_counts_that_divide_1000_use_the_sigmas_the_official_step_uses(steps):
    golden, _ = tensors("b_schedule")
    ours = schedule.sigmas(steps)
    torch.testing.assert_close(ours[:-1], golden[f"deployed/{steps}/sigma_from.video"], atol=2e-7, rtol=0)
    torch.testing.assert_close(ours[1:], golden[f"deployed/{steps}/sigma_to.video"], atol=2e-7, rtol=0)


@pytest.mark.parametrize(("steps", "high"), [(50, 18), (40, 15), (30, 11), (25, 9), (20, 8), (8, 3), (4, 2), (1, 1)])
def test_the_high_noise_expert_takes_the_published_number_of_steps(steps, high):
    assert schedule.high_noise_steps(schedule.sigmas(steps)) == high


def test_the_experts_of_an_official_run_are_chosen_alike():
    _, config = tensors("c_loop_fp32")
    names: dict[str, Expert] = {"video_dit": "high", "video_dit_2": "low"}
    sigmas = schedule.sigmas(config["call"]["num_inference_steps"])
    ours = [schedule.expert_for(sigma, config["boundary_ratio"]) for sigma in sigmas[:-1].tolist()]
    assert ours == [names[name] for name in config["expert_per_step"]]


@pytest.mark.parametrize(("steps", "shift", "step"), [(14, 5, 5), (28, 5, 10), (4, 3, 1), (20, 3, 5), (10, 1, 1)])
def test_a_step_exactly_at_the_boundary_is_still_high_noise(steps, shift, step):
    sigmas = schedule.sigmas(steps, shift)
    assert math.isclose(float(sigmas[step]), 0.9, abs_tol=1e-7)
    assert schedule.high_noise_steps(sigmas) == step + 1


def test_the_boundary_is_the_same_seen_as_sigma_or_as_timestep():
    for boundary in torch.linspace(0.001, 0.999, 999, dtype=torch.float64).tolist():
        sigma = torch.tensor(boundary, dtype=torch.float32)
        timestep = schedule.timesteps(sigma)
        assert schedule.expert_for(float(timestep) / 1000, boundary) == schedule.expert_for(float(sigma), boundary)


def test_boundary_0_is_all_high_noise_and_above_1_all_low():
    sigmas = schedule.sigmas(10)
    assert schedule.high_noise_steps(sigmas, 0) == 10
    assert schedule.high_noise_steps(sigmas, 1.1) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedule.sigmas(0),
        lambda: schedule.sigmas(4, shift=0),
        lambda: schedule.sigmas(4, shift=math.nan),
        lambda: schedule.sigmas(4, sigma_min=1),
        lambda: schedule.reshift(GRID, 5, -1),
        lambda: schedule.reshift(GRID, 0, 5),
    ],
)
def test_impossible_schedules_are_refused(call):
    with pytest.raises(ConfigError, match=r"must be|at least"):
        call()


@pytest.mark.parametrize("sigmas", [torch.tensor([1.0]), torch.ones(2, 2), torch.tensor([1.0, 1.0, 0.0])])
def test_sigmas_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ShapeError, match="sigmas"):
        schedule.high_noise_steps(sigmas)
