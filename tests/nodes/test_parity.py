"""The same numbers as the official code, and as the core's own loop, through ComfyUI's models and samplers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.sampling.guidance import Guidance
from mova_core.sampling.sampler import denoise, initial_noise
from mova_core.sampling.schedule import expert_for, sigmas
from tests.comfy import needs_comfy
from tests.golden import HERE, SETS, relative_error, tensors
from tests.nodes import graph
from tests.nodes.conftest import condition
from tests.nodes.graph import FPS, Run, Scene, check_finite, evaluate, streams

pytestmark = needs_comfy

LOOP = "c_loop_fp32"
STEPS = 6


@pytest.fixture(scope="module", params=SETS)
def folder(request: pytest.FixtureRequest) -> Path:
    """A set of official tensors."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def official(run: Run, diffusers: Path, folder: Path) -> Scene:
    """The official run's checkpoint, prompts and picture."""
    golden, config = tensors(LOOP, folder)
    with torch.inference_mode():
        name = "golden" if folder == HERE else "larger"
        model, clip, vae, audio_vae = run("MOVALoader", folder=name, weight_dtype="fp32")
        prompts, call = config["prompts"], config["call"]
        size = {"width": call["width"], "height": call["height"], "frames": call["num_frames"]}
        texts = run("MOVATextEncode", clip=clip, prompt=prompts["pos"], negative_prompt=prompts["neg"])
        picture = golden["in.image_raw"][None].float() / 255
        return Scene(model, clip, vae, audio_vae, *condition(run, texts, vae, first_frame=picture, **size))


@pytest.mark.parametrize("case", [0, 1])
def test_prompt_embeddings_are_the_official_ones(run: Run, official: Scene, case: int, folder: Path) -> None:
    golden, _ = tensors("h_prompt_embeds", folder)
    prompts = ("the quick brown fox jumps over a lazy dog", "\u732b \u4e0b\u96e8")
    positive, negative = run("MOVATextEncode", clip=official.clip, prompt=prompts[case], negative_prompt="")
    for encoded, name in ((positive, f"{case}/embeds"), (negative, "2/embeds")):
        rows = encoded[0][0]
        length = golden[name].shape[1]
        assert rows.shape == (1, 512, golden[name].shape[2])
        assert not rows[:, length:].any()
        assert relative_error(rows[:, :length], golden[name]) < 2e-6


def test_the_condition_is_the_official_one(official: Scene, folder: Path) -> None:
    golden, _ = tensors(LOOP, folder)
    values = official.positive[0][1]
    known = official.model.model.latent_format.process_in(values["concat_latent_image"])
    condition = torch.cat((1 - values["concat_mask"], known), dim=1)
    assert relative_error(condition, golden["in.condition"]) < 2e-6


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_one_evaluation_is_the_official_one_of_either_expert(official: Scene, step: int, folder: Path) -> None:
    golden, _ = tensors(LOOP, folder)
    steps, _ = tensors("b_schedule")
    sigma = float(steps["deployed/6/timesteps"][step]) / 1000  # upstream rounds it otherwise than we do, by 6e-8
    latents = [golden[f"step{step - 1}/latents.{name}"] for name in ("video", "audio")]
    for ours, name in zip(evaluate(official, sigma, *latents), ("video", "audio")):
        assert relative_error(ours, golden[f"step{step}/pred_pos.{name}"]) < 5e-6


def test_the_whole_call_is_the_official_one_up_to_its_rounded_sigmas(run: Run, official: Scene, folder: Path) -> None:
    """Upstream's Euler step looks its sigmas up in a grid of 1000, 5e-4 off in the result."""
    golden, _ = tensors(LOOP, folder)
    made = sampled(run, official, seed=1234)
    wanted = (golden["out.video_vae_input"], golden["out.audio_vae_input"])
    assert max(relative_error(a, b) for a, b in zip(streams(made), wanted)) < 1e-3


def test_decoding_is_the_official_one(run: Run, official: Scene, pack: Any, folder: Path) -> None:
    golden, config = tensors(LOOP, folder)
    joint = pack.module("nodes.host.joint_latents").joint(golden["out.video_vae_input"], golden["out.audio_vae_input"])
    latent = {**official.latent, "samples": joint}
    images, audio, fps = run("MOVADecode", latent=latent, vae=official.vae, audio_vae=official.audio_vae)[:3]
    assert fps == FPS
    assert relative_error(2 * images.movedim(-1, 0)[None] - 1, golden["out.video"]) < 5e-6
    samples = config["audio_num_samples"]
    assert relative_error(audio["waveform"], golden["out.audio"][..., :samples]) < 5e-6


# --- the core's own loop, which needs no official tensors ------------------------------------------------------------


sampled = partial(graph.sampled, steps=STEPS, cfg=5.0, sampler="euler", scheduler="mova")


def core_result(scene: Scene, folder: Path, *, seed: int, audio_shift: float, cfg: float) -> list[Tensor]:
    """What mova_core's loop makes of the same noise, text and condition."""
    models = {expert: load_joint(folder, expert) for expert in ("high", "low")}
    video, audio = initial_noise(*(s.shape for s in streams(scene.latent)), torch.Generator().manual_seed(seed))
    batch = len(video)
    values = scene.positive[0][1]
    known = scene.model.model.latent_format.process_in(values["concat_latent_image"])
    given = torch.cat((1 - values["concat_mask"], known), dim=1).expand(batch, -1, -1, -1, -1)
    text = {True: scene.positive, False: scene.negative}

    def predict(video: Tensor, audio: Tensor, when: Tensor, audio_when: Tensor, positive: bool) -> Any:
        model = models[expert_for(float(when[0]) / 1000)]
        context = text[positive][0][0].expand(batch, -1, -1)
        return model(video, audio, context, when, audio_when, condition=given, fps=FPS)

    guidance = Guidance(text_scale=cfg)
    audio_values = sigmas(STEPS, audio_shift)
    result = denoise(predict, video, audio, sigmas(STEPS), audio_sigmas=audio_values, guidance=guidance)
    return [scene.model.model.latent_format.process_out(result[0]), result[1]]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("audio_shift", "cfg"), [(5.0, 5.0), (9.0, 5.0), (2.0, 5.0), (9.0, 1.0)])
def test_the_sampler_walks_the_cores_own_loop(
    run: Run, scene: Scene, diffusers: Path, batch: int, audio_shift: float, cfg: float
) -> None:
    texts = (scene.positive, scene.negative)
    if batch > 1:
        scene = scene.but(latent=condition(run, texts, scene.vae, batch_size=batch)[2])
    made = sampled(run, scene, seed=7, audio_shift=audio_shift, cfg=cfg)
    check_finite(made, scene.latent)
    wanted = core_result(scene, diffusers / "tiny", seed=7, audio_shift=audio_shift, cfg=cfg)
    assert max(relative_error(a, b) for a, b in zip(streams(made), wanted)) < 1e-5


def test_the_clips_of_a_batch_come_from_different_noise(run: Run, scene: Scene) -> None:
    latent = condition(run, (scene.positive, scene.negative), scene.vae, batch_size=2)[2]
    for stream in streams(sampled(run, scene.but(latent=latent), seed=7, steps=2)):
        assert not torch.equal(stream[0], stream[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("default", 0.05), ("bf16", 0.05)])
def test_bfloat16_weights_stay_near_float32(run: Run, scene: Scene, dtype: str, tolerance: float) -> None:
    model = run("MOVALoader", folder="tiny", weight_dtype=dtype)[0]
    rough, exact = (sampled(run, s, seed=7, cfg=1.0) for s in (scene.but(model=model), scene))
    check_finite(rough, exact)
    assert max(relative_error(a, b) for a, b in zip(streams(rough), streams(exact))) < tolerance
