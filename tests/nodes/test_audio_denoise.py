"""Picture and sound may start at different noise levels: the sampler then walks the core's loop of two schedules."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.ops import Runtime
from mova_core.sampling.guidance import Guidance
from mova_core.sampling.sampler import denoise, initial_noise
from mova_core.sampling.schedule import expert_for, sigmas
from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import FPS, Run, Scene, check_finite, equal, streams

pytestmark = needs_comfy

STEPS, SEED = 4, 11


@pytest.fixture(scope="module")
def draft(scene: Scene, pack: Pack) -> Scene:
    """The scene with something in its latent."""
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        made = [torch.randn(stream.shape, generator=generator) for stream in streams(scene.latent)]
        samples = pack.module("nodes.host.joint_latents").joint(*made)
    return scene.but(latent={**scene.latent, "samples": samples})


sampled = partial(graph.sampled, seed=SEED, steps=STEPS, cfg=5.0)


def reference(scene: Scene, folder: Path, values: Tensor, audio_values: Tensor, guidance: Guidance) -> list[Tensor]:
    """The core's loop on both streams, each noised to its own start."""
    models = {expert: load_joint(folder, expert) for expert in ("high", "low")}
    form = scene.model.model.latent_format
    given = streams(scene.latent)
    noise = initial_noise(*(s.shape for s in given), torch.Generator().manual_seed(SEED))
    clean = form.process_in(given[0]), given[1]
    starts = float(values[0]), float(audio_values[0])
    latents = [sigma * n + (1 - sigma) * x for sigma, n, x in zip(starts, noise, clean)]
    kept = scene.positive[0][1]
    condition = torch.cat((1 - kept["concat_mask"], form.process_in(kept["concat_latent_image"])), dim=1)

    def predict(
        video: Tensor, audio: Tensor, when: Tensor, audio_when: Tensor, positive: bool, bridge: bool = True
    ) -> Any:
        text = (scene.positive if positive else scene.negative)[0][0]
        run = Runtime() if bridge else Runtime(audio_to_video=0.0, video_to_audio=0.0)
        model = models[expert_for(float(when[0]) / 1000)]
        return model(video, audio, text, when, audio_when, condition=condition, fps=FPS, runtime=run)

    video, audio = denoise(predict, *latents, values, audio_sigmas=audio_values, guidance=guidance)
    return [form.process_out(video), audio]


@pytest.mark.parametrize(
    ("video_denoise", "audio_denoise", "audio_shift", "bridge"),
    [(0.5, 1.0, 5.0, 1.0), (1.0, 0.4, 9.0, 1.0), (0.5, 1.0, 2.0, 3.0)],
)
def test_both_streams_walk_the_cores_loop_from_their_own_start(
    run: Run,
    draft: Scene,
    diffusers: Path,
    video_denoise: float,
    audio_denoise: float,
    audio_shift: float,
    bridge: float,
) -> None:
    widgets = {"denoise": video_denoise, "audio_denoise": audio_denoise, "audio_shift": audio_shift}
    made = sampled(run, draft, **widgets, bridge_cfg=bridge)
    check_finite(made, draft.latent)
    values, audio_values = (
        sigmas(int(STEPS / share), shift)[-STEPS - 1 :]
        for share, shift in ((video_denoise, 5.0), (audio_denoise, audio_shift))
    )
    guidance = Guidance(text_scale=5.0, bridge_scale=bridge)
    wanted = reference(draft, diffusers / "tiny", values, audio_values, guidance)
    assert max(relative_error(a, b) for a, b in zip(streams(made), wanted)) < 1e-5


@pytest.mark.parametrize("same", [0.0, 0.5])
def test_the_same_denoise_for_both_is_the_plain_sampler_bit_for_bit(run: Run, draft: Scene, same: float) -> None:
    assert equal(sampled(run, draft, denoise=0.5, audio_denoise=same), sampled(run, draft, denoise=0.5))


def test_equal_schedules_walked_as_a_pair_are_comfyuis_euler(run: Run, draft: Scene, pack: Pack) -> None:
    samplers, guiders = pack.module("nodes.host.sampling.samplers"), pack.module("nodes.host.sampling.guiders")
    values = sigmas(STEPS)
    guidance, span = (
        pack.module("mova_core.sampling.guidance").Guidance(),
        pack.module("mova_core.sampling.schedule").Span(),
    )
    guider = guiders.guider(draft.model, draft.positive, draft.negative, guidance, span)
    walked = [
        samplers.sample(guider, draft.latent, seed=SEED, sampler=samplers.sampler_of("euler", audio), values=values)
        for audio in (None, values)
    ]
    assert max(relative_error(a, b) for a, b in zip(*map(streams, walked))) < 1e-5


@pytest.mark.parametrize("kept", [0, 1])
def test_a_held_stream_stays_whatever_its_schedule(run: Run, draft: Scene, pack: Pack, kept: int) -> None:
    joint = pack.module("nodes.host.joint_latents").joint
    masks = [torch.full_like(stream[:, :1], float(n != kept)) for n, stream in enumerate(streams(draft.latent))]
    held = draft.but(latent={**draft.latent, "noise_mask": joint(*masks)})
    made = sampled(run, held, denoise=0.5, audio_denoise=1.0)
    change = [relative_error(a, b) for a, b in zip(streams(made), streams(draft.latent))]
    assert change[kept] < 1e-6
    assert change[1 - kept] > 0.1


def test_a_part_held_by_the_mask_stays_and_the_rest_is_made(run: Run, draft: Scene, pack: Pack) -> None:
    video, audio = streams(draft.latent)
    mask = torch.ones_like(audio[:, :1])
    mask[..., : mask.shape[-1] // 2] = 0
    masks = pack.module("nodes.host.joint_latents").joint(torch.ones_like(video[:, :1]), mask)
    made = sampled(run, draft.but(latent={**draft.latent, "noise_mask": masks}), denoise=0.5, audio_denoise=1.0)
    half = audio.shape[-1] // 2
    assert relative_error(streams(made)[1][..., :half], audio[..., :half]) < 1e-6
    assert relative_error(streams(made)[1][..., half:], audio[..., half:]) > 0.1


def test_a_sampler_of_one_noise_level_is_refused(run: Run, scene: Scene, pack: Pack) -> None:
    with pytest.raises(pack.module("mova_core.errors").ConfigError, match="choose euler"):
        sampled(run, scene, sampler="dpmpp_2m", audio_denoise=0.5)
