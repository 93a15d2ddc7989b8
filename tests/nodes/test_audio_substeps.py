"""Steps of the sound between those of the picture: one is the plain loop, and deaf they are the audio tower alone."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch

from mova_core.sampling.sampler import initial_noise
from mova_core.sampling.schedule import sigmas
from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import Run, Scene, check_finite, equal, streams

pytestmark = needs_comfy

STEPS, SEED = 3, 11


sampled = partial(graph.sampled, seed=SEED, steps=STEPS, cfg=5.0)


def bridged(run: Run, scene: Scene, into_video: float, into_audio: float) -> Scene:
    return scene.but(
        model=run("MOVABridgeStrength", model=scene.model, audio_to_video=into_video, video_to_audio=into_audio)[0]
    )


@pytest.fixture
def forwards(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ "full" or "audio" for every condition evaluated."""
    module, seen = pack.module("nodes.host.model.base_model"), []
    for name, kind in (("_denoise", "full"), ("_audio_only", "audio")):
        real = getattr(module.MovaDiffusion, name)

        def logged(self: Any, x: Any, *rest: Any, real: Any = real, kind: str = kind, **more: Any) -> Any:
            seen.extend([kind] * len(x[0]))
            return real(self, x, *rest, **more)

        monkeypatch.setattr(module.MovaDiffusion, name, logged)
    return seen


@pytest.mark.parametrize("audio_shift", [5.0, 9.0])
def test_one_substep_is_the_plain_loop(run: Run, scene: Scene, audio_shift: float) -> None:
    plain = sampled(run, scene, audio_shift=audio_shift)
    assert equal(sampled(run, scene, audio_shift=audio_shift, audio_substeps=1), plain)


@pytest.mark.parametrize("scales", [{"cfg": 1.0}, {"cfg": 5.0}, {"cfg": 5.0, "bridge_cfg": 3.5, "audio_cfg": 2.0}])
def test_where_the_sound_hears_nothing_it_walks_its_finer_schedule_alone(
    run: Run, scene: Scene, scales: dict[str, float]
) -> None:
    deaf = bridged(run, scene, 0.0, 0.0)
    made = sampled(run, deaf, audio_substeps=4, **scales)
    video, _ = streams(sampled(run, deaf, **scales))
    _, audio = streams(sampled(run, deaf, **scales | {"steps": 4 * STEPS}))
    assert relative_error(streams(made)[0], video) < 1e-5
    assert relative_error(streams(made)[1], audio) < 1e-5


@pytest.mark.parametrize(
    ("scales", "conditions"), [({"cfg": 1.0}, 1), ({"cfg": 5.0}, 2), ({"cfg": 5.0, "bridge_cfg": 3.5}, 3)]
)
def test_the_video_is_evaluated_no_more_often(
    run: Run, scene: Scene, forwards: list[str], scales: dict[str, float], conditions: int
) -> None:
    made = sampled(run, scene, audio_substeps=3, **scales)
    check_finite(made, scene.latent)
    assert forwards.count("full") == STEPS * conditions
    assert forwards.count("audio") == STEPS * 2 * conditions
    assert not equal(made, sampled(run, scene, **scales))


def test_what_is_heard_is_the_video_of_the_step(run: Run, scene: Scene, pack: Pack) -> None:
    """One step of the picture: the sound is that of the core's `audio_velocity`, walked by hand."""
    core = pack.module("mova_core.model.audio_only")
    runtime = pack.module("mova_core.ops").Runtime
    values = sigmas(4)
    made = sampled(run, scene, steps=1, cfg=1.0, audio_substeps=4)

    model = scene.model.model.diffusion_model  # a first step is the high-noise expert's
    video, audio = initial_noise(*(s.shape for s in streams(scene.latent)), torch.Generator().manual_seed(SEED))
    kept = scene.positive[0][1]
    condition = torch.cat(
        (1 - kept["concat_mask"], scene.model.model.latent_format.process_in(kept["concat_latent_image"])), dim=1
    )
    kept: dict[int, Any] = {}
    context = scene.positive[0][0]
    when = torch.tensor([1000.0])
    _, velocity = super(type(model), model).forward(
        video, audio, context, when, when, condition=condition, fps=24.0, runtime=runtime(keep=kept.__setitem__)
    )
    audio = audio + velocity * (values[1] - values[0])
    for begin, end in pairwise(values[1:]):
        alone = core.audio_velocity(model, audio, context, 1000 * begin[None], kept, runtime())
        audio = audio + alone * (end - begin)
    assert relative_error(streams(made)[1], audio) < 1e-5


def test_it_works_with_prompts_windows_masks_and_other_nodes(run: Run, scene: Scene, pack: Pack) -> None:
    both = run("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=scene.negative)[0]
    check_finite(sampled(run, scene.but(positive=both), audio_substeps=2), scene.latent)
    for node, widgets in {
        "ContextWindowsManual": {"context_length": 2, "context_overlap": 1, "dim": 2},
        "LTXVSpatioTemporalGuidance": {"blocks": "1"},
        "LTXVModalityGuidance": {},
        "EasyCache": {"reuse_threshold": 1.0, "start_percent": 0.0, "end_percent": 1.0},
        "LazyCache": {"reuse_threshold": 1.0, "start_percent": 0.0, "end_percent": 1.0},
    }.items():
        patched = scene.but(model=run(node, model=scene.model, **widgets)[0])
        check_finite(sampled(run, patched, audio_substeps=2, bridge_cfg=3.5), scene.latent)
    video, audio = streams(scene.latent)
    masks = pack.module("nodes.host.joint_latents").joint(torch.ones_like(video[:, :1]), torch.zeros_like(audio[:, :1]))
    held = scene.but(latent={**scene.latent, "noise_mask": masks})
    assert streams(sampled(run, held, audio_substeps=3))[1].abs().max() < 1e-6


def test_a_sampler_of_one_noise_level_is_refused(run: Run, scene: Scene, pack: Pack) -> None:
    with pytest.raises(pack.module("mova_core.errors").ConfigError, match="choose euler"):
        sampled(run, scene, sampler="uni_pc", audio_substeps=2)
