"""'MOVA Bridge Strength': 0 separates the towers exactly, 1 is nothing, and the range is kept to the step."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import Run, Scene, equal, evaluate, streams

pytestmark = needs_comfy

SIGMA = 0.6


def bridged(run: Run, scene: Scene, **widgets: float) -> Scene:
    return scene.but(model=run("MOVABridgeStrength", model=scene.model, **widgets)[0])


def noise(scene: Scene, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(stream.shape, generator=generator) for stream in streams(scene.latent)]


sampled = partial(graph.sampled, steps=4, cfg=5.0)


@pytest.mark.parametrize(("into_video", "into_audio"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_a_tower_hears_the_other_exactly_when_its_direction_is_open(
    run: Run, scene: Scene, into_video: float, into_audio: float
) -> None:
    cut = bridged(run, scene, audio_to_video=into_video, video_to_audio=into_audio)
    (video, audio), (other_video, other_audio) = noise(scene, 1), noise(scene, 2)
    base = evaluate(cut, SIGMA, video, audio)
    assert torch.equal(base[0], evaluate(cut, SIGMA, video, other_audio)[0]) == (into_video == 0)
    assert torch.equal(base[1], evaluate(cut, SIGMA, other_video, audio)[1]) == (into_audio == 0)


def test_strength_1_is_the_model_itself(run: Run, scene: Scene) -> None:
    one = bridged(run, scene, audio_to_video=1.0, video_to_audio=1.0)
    assert equal(sampled(run, one), sampled(run, scene))


def test_several_nodes_multiply_and_leave_the_model_they_were_given_alone(run: Run, scene: Scene) -> None:
    twice = bridged(run, bridged(run, scene, audio_to_video=0.5), audio_to_video=3.0)
    once = bridged(run, scene, audio_to_video=1.5)
    before = sampled(run, scene)
    assert equal(sampled(run, twice), sampled(run, once))
    assert not equal(sampled(run, once), before)
    assert equal(sampled(run, scene), before)


@pytest.mark.parametrize("shift", [5.0, 3.0])
def test_the_range_is_kept_to_the_step_whatever_the_samplers_shift(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    module, seen = pack.module("nodes.host.model.diffusion"), []
    real = module.runtime

    def logged(*args: Any) -> Any:
        made = real(*args)
        seen.append((made.audio_to_video, made.video_to_audio))
        return made

    monkeypatch.setattr(module, "runtime", logged)
    ranged = bridged(run, scene, audio_to_video=0.0, video_to_audio=2.0, start_percent=0.25, end_percent=0.75)
    sampled(run, ranged, steps=8, cfg=1.0, shift=shift)
    assert seen == [(1, 1)] * 2 + [(0, 2)] * 4 + [(1, 1)] * 2


def test_a_strength_outside_its_range_changes_nothing(run: Run, scene: Scene) -> None:
    never = bridged(run, scene, audio_to_video=0.0, start_percent=0.5, end_percent=0.5)
    assert equal(sampled(run, never), sampled(run, scene))


def test_another_model_is_refused(run: Run, scene: Scene, pack: Pack) -> None:
    class Other:
        model = object()

    with pytest.raises(pack.module("mova_core.errors").MovaError, match="not MOVA"):
        run("MOVABridgeStrength", model=Other())
