"""The whole official run: both experts, guidance, every step, the sound. Prompt and picture come in as tensors.

Upstream looks each sigma up in a grid of 1000 (see `mova_core/sampling/schedule.py`); to compare the rest, the loop is
given upstream's own numbers.
"""

import pytest
import torch
import torch.nn.functional as F

from mova_core.checkpoint.load import load_audio_vae, load_joint
from mova_core.sampling.sampler import denoise
from mova_core.sampling.schedule import expert_for, sigmas
from tests.golden import SETS, relative_error, tensors


@pytest.fixture(scope="module", params=SETS)
def folder(request):
    """A set of official tensors."""
    return request.param


@pytest.fixture(scope="module")
def official(folder):
    return tensors("c_loop_fp32", folder)


@pytest.fixture(scope="module")
def run(official, folder):
    """Latents at the start of each step and at the end, and the expert of each step."""
    given, header = official
    experts = {name: load_joint(folder / "tiny_hf", name) for name in ("high", "low")}
    contexts = [
        F.pad(given[f"in.context_{p}"], (0, 0, 0, 512 - given[f"in.context_{p}"].shape[1])) for p in ("neg", "pos")
    ]
    seen, used = [], []

    def model(video, audio, video_timestep, audio_timestep, positive):
        step = int((given["timesteps"][:, 0] - video_timestep).abs().argmin())
        video_timestep, audio_timestep = given["timesteps"][step, :, None]  # upstream's model hears the exact ones
        expert = expert_for(float(video_timestep) / 1000, header["boundary_ratio"])
        if positive:
            seen.append((video, audio))
            used.append({"high": "video_dit", "low": "video_dit_2"}[expert])
        return experts[expert](
            video,
            audio,
            contexts[positive],
            video_timestep,
            audio_timestep,
            condition=given["in.condition"],
            fps=header["call"]["video_fps"],
        )

    schedule, _ = tensors("b_schedule")
    snapped = torch.cat([schedule["deployed/6/sigma_from.video"], schedule["deployed/6/sigma_to.video"][-1:]]).float()
    with torch.no_grad():
        seen.append(denoise(model, given["in.video_noise"], given["in.audio_noise"], snapped))
    return seen, used


def test_latents_after_every_step_are_those_of_the_official_run(official, run):
    given, header = official
    latents = run[0][1:]
    assert len(latents) == header["call"]["num_inference_steps"] == 6
    for step, (video, audio) in enumerate(latents):
        assert relative_error(video, given[f"step{step}/latents.video"]) < 1e-5
        assert relative_error(audio, given[f"step{step}/latents.audio"]) < 1e-5


def test_each_step_uses_the_expert_of_the_official_run(official, run):
    assert run[1] == official[1]["expert_per_step"]


def test_our_timesteps_are_those_of_the_official_run(official):
    ours = 1000 * sigmas(6, shift=5.0)[:-1]
    torch.testing.assert_close(ours, official[0]["timesteps"][:, 0], rtol=3e-7, atol=0)


def test_the_sound_is_that_of_the_official_run(official, run, folder):
    given, _ = official
    with torch.no_grad():
        vae = load_audio_vae(folder / "tiny_hf")
        assert relative_error(vae.decode(given["out.audio_vae_input"]), given["out.audio"]) < 1e-6
        assert relative_error(vae.decode(run[0][-1][1]), given["out.audio"]) < 1e-5


def test_a_folder_within_a_folder_is_found_for_the_codec_too(folder):
    inner, outer = (
        load_audio_vae(path).state_dict() for path in (folder / "tiny_hf" / "audio_vae", folder / "tiny_hf")
    )
    assert all(torch.equal(inner[key], outer[key]) for key in outer)
