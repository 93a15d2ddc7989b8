"""The loop walks a straight path exactly, changes experts once, and repeats an official run."""

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.sampling.guidance import Guidance
from mova_core.sampling.sampler import denoise, initial_noise
from mova_core.sampling.schedule import expert_for, reshift, sigmas
from tests.golden import HERE, LARGER, SETS, larger, relative_error, tensors

VIDEO, AUDIO = initial_noise((2, 4, 3, 2, 2), (2, 8, 5), torch.Generator().manual_seed(0))
CLEAN = (torch.full_like(VIDEO, 0.5), torch.full_like(AUDIO, -0.25))


def straight(video, audio, video_timestep, audio_timestep, positive, *, bridge=True):
    """A model whose path from noise to CLEAN is a straight line."""
    return VIDEO - CLEAN[0], AUDIO - CLEAN[1]


def aiming(video, audio, video_timestep, audio_timestep, positive, *, bridge=True):
    """A model that aims at CLEAN from wherever it is: velocity (x - clean) / sigma."""
    video_sigma, audio_sigma = video_timestep.view(-1, 1, 1, 1, 1) / 1000, audio_timestep.view(-1, 1, 1) / 1000
    return (video - CLEAN[0]) / video_sigma, (audio - CLEAN[1]) / audio_sigma


@pytest.mark.parametrize("model", [straight, aiming])
@pytest.mark.parametrize("steps", [1, 50])
def test_a_straight_path_arrives_in_any_number_of_steps(model, steps):
    arrived = denoise(model, VIDEO, AUDIO, sigmas(steps))
    for ours, clean in zip(arrived, CLEAN, strict=True):
        torch.testing.assert_close(ours, clean, atol=3e-6, rtol=0)


def test_audio_may_follow_a_schedule_of_its_own():
    seen = []

    def model(video, audio, video_timestep, audio_timestep, positive):
        seen.append((video_timestep.tolist(), audio_timestep.tolist()))
        return aiming(video, audio, video_timestep, audio_timestep, positive)

    schedule = sigmas(4)
    audio_schedule = reshift(schedule, 5, 3)
    _, audio = denoise(model, VIDEO, AUDIO, schedule, audio_sigmas=audio_schedule, guidance=Guidance(text_scale=1.0))
    torch.testing.assert_close(audio, CLEAN[1], atol=1e-6, rtol=0)
    pairs = zip((1000 * schedule[:-1]).tolist(), (1000 * audio_schedule[:-1]).tolist(), strict=True)
    assert seen == [([video] * 2, [audio] * 2) for video, audio in pairs]


@pytest.mark.parametrize(
    ("guidance", "evaluations"),
    [
        (Guidance(text_scale=1.0), {(True, True)}),
        (Guidance(text_scale=5), {(True, True), (False, True)}),
        (Guidance(text_scale=5, bridge_scale=3.5), {(True, True), (False, True), (False, False)}),
    ],
)
def test_guidance_1_never_asks_for_the_negative_nor_for_towers_alone(guidance, evaluations):
    calls = set()

    def model(*args, bridge=True):
        calls.add((args[-1], bridge))
        return straight(*args)

    denoise(model, VIDEO, AUDIO, sigmas(3), guidance=guidance)
    assert calls == evaluations


def test_the_expert_changes_once_at_the_boundary():
    log = []

    def model(video, audio, video_timestep, audio_timestep, positive):
        log.append(expert_for(float(video_timestep[0]) / 1000, 0.9))
        return straight(video, audio, video_timestep, audio_timestep, positive)

    denoise(model, VIDEO, AUDIO, sigmas(50), guidance=Guidance(text_scale=1.0))
    assert log == ["high"] * 18 + ["low"] * 32


def test_every_step_reports_its_clean_estimate():
    reports = []
    denoise(aiming, VIDEO, AUDIO, sigmas(5), on_step=lambda *report: reports.append(report))
    assert [report[:2] for report in reports] == [(step, 5) for step in range(5)]
    for _, _, *denoised in reports:
        for ours, clean in zip(denoised, CLEAN, strict=True):
            torch.testing.assert_close(ours, clean, atol=3e-6, rtol=0)


def test_a_raising_report_cancels():
    calls = []

    class Cancelled(Exception):  # noqa: N818
        pass

    def cancel(step, *_):
        calls.append(step)
        if step == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        denoise(straight, VIDEO, AUDIO, sigmas(5), on_step=cancel)
    assert calls == [0, 1]


def test_latents_stay_float32_under_a_bfloat16_model_and_inputs_are_not_changed():
    seen = set()

    def model(video, audio, video_timestep, audio_timestep, positive):
        seen.update(tensor.dtype for tensor in (video, audio, video_timestep, audio_timestep))
        return (VIDEO - CLEAN[0]).bfloat16(), (AUDIO - CLEAN[1]).bfloat16()

    before = VIDEO.clone(), AUDIO.clone()
    video, audio = denoise(model, VIDEO, AUDIO, sigmas(3), guidance=Guidance(text_scale=1.0))
    assert {video.dtype, audio.dtype} | seen == {torch.float32}
    assert torch.equal(VIDEO, before[0])
    assert torch.equal(AUDIO, before[1])


def test_noise_is_one_stream_video_first():
    video, audio = initial_noise((1, 2, 3), (1, 4), torch.Generator().manual_seed(7))
    stream = torch.Generator().manual_seed(7)
    assert torch.equal(video, torch.randn(1, 2, 3, generator=stream))
    assert torch.equal(audio, torch.randn(1, 4, generator=stream))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": torch.tensor([1.0])}, "n steps need"),
        ({"sigmas": torch.tensor([0.0, 1.0])}, "must fall"),
        ({"audio_sigmas": sigmas(4)}, "as many of each"),
        ({"audio": AUDIO[:1]}, "as many of each"),
    ],
)
def test_what_cannot_be_sampled_is_refused(changes, message):
    with pytest.raises(ShapeError, match=message):
        denoise(straight, **{"video": VIDEO, "audio": AUDIO, "sigmas": sigmas(3), **changes})


@pytest.mark.parametrize("folder", SETS)
def test_noise_of_an_official_run_is_drawn_alike(folder):
    golden, _ = tensors("c_loop_fp32", folder)
    theirs = golden["in.video_noise"], golden["in.audio_noise"]
    ours = initial_noise(theirs[0].shape, theirs[1].shape, torch.Generator().manual_seed(1234))
    assert all(map(torch.equal, ours, theirs))


LOOPS = [("c_loop_fp32", HERE), larger("c_loop_fp32", LARGER), larger("c_loop_bf16", LARGER)]


@pytest.mark.parametrize(("name", "folder"), LOOPS)
def test_the_velocities_of_an_official_run_lead_to_its_latents(name, folder):
    golden, config = tensors(name, folder)
    grid, _ = tensors("b_schedule")
    rounded = torch.cat([grid["deployed/6/sigma_from.video"], torch.zeros(1)])  # 6 does not divide 1000
    step = 0

    def replay(video, audio, video_timestep, audio_timestep, positive):
        branch = f"step{step}/pred_{'pos' if positive else 'neg'}"
        if step:
            assert relative_error(video, golden[f"step{step - 1}/latents.video"]) < 1e-6
            assert relative_error(audio, golden[f"step{step - 1}/latents.audio"]) < 1e-6
        return golden[f"{branch}.video"], golden[f"{branch}.audio"]

    def advance(*_):
        nonlocal step
        step += 1

    guidance = Guidance(text_scale=config["call"]["cfg_scale"])
    noise = golden["in.video_noise"], golden["in.audio_noise"]
    video, audio = denoise(replay, *noise, rounded, guidance=guidance, on_step=advance)
    assert relative_error(video, golden["step5/latents.video"]) < 1e-6
    assert relative_error(audio, golden["step5/latents.audio"]) < 1e-6
