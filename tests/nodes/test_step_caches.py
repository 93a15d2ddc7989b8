"""ComfyUI's EasyCache and LazyCache on MOVA: both streams skip together, and nothing crosses the change of expert."""

from typing import Any

import pytest

from mova_core.sampling.schedule import sigmas
from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, check_finite, equal

pytestmark = needs_comfy

STEPS = 10
CACHES = ["EasyCache", "LazyCache"]


@pytest.fixture
def evaluated(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """(video sigma, expert) of every forward that reached the towers."""
    host = pack.module("nodes.host.model.diffusion")
    forward, calls = host.Mova.forward, []

    def counted(self: Any, video: Any, audio: Any, context: Any, timestep: Any, *rest: Any, **more: Any) -> Any:
        calls.append((float(timestep[0]) / 1000, id(self)))
        return forward(self, video, audio, context, timestep, *rest, **more)

    monkeypatch.setattr(host.Mova, "forward", counted)
    return calls


def sample(run: Run, scene: Scene, model: Any, **more: Any) -> dict[str, Any]:
    inputs = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "seed": 3, "cfg": 1.0}
    return run("MOVASampler", model=model, **(inputs | {"steps": STEPS} | more))[0]


def cached(run: Run, node: str, model: Any, threshold: float) -> Any:
    return run(node, model=model, reuse_threshold=threshold, start_percent=0.0, end_percent=1.0, verbose=False)[0]


@pytest.mark.parametrize("node", CACHES)
def test_each_expert_is_asked_before_anything_is_skipped(
    run: Run, scene: Scene, evaluated: list[tuple[float, str]], node: str
) -> None:
    """With a threshold that skips whatever may be skipped: three evaluations of each expert, no more, no less."""
    clip = sample(run, scene, cached(run, node, scene.model, 1e6))
    check_finite(clip, scene.latent)
    high, low = ([sigma for sigma, _ in evaluated if (sigma >= 0.9) is above] for above in (True, False))
    assert len({expert for _, expert in evaluated}) == 2
    assert 1 <= len(high) <= 3
    assert 1 <= len(low) <= 3
    needed = next(sigma for sigma in sigmas(STEPS).tolist() if sigma < 0.9)
    assert max(low) == pytest.approx(needed, abs=1e-6)  # from its first step on


@pytest.mark.parametrize("node", CACHES)
def test_a_threshold_of_zero_changes_nothing(run: Run, scene: Scene, node: str) -> None:
    assert equal(sample(run, scene, cached(run, node, scene.model, 0.0)), sample(run, scene, scene.model))


@pytest.mark.parametrize("node", CACHES)
def test_the_cache_works_again_after_the_change(
    run: Run, scene: Scene, evaluated: list[tuple[float, str]], node: str
) -> None:
    """Emptied, not broken: with a threshold that steps exceed now and then, it is asked more than once."""
    sample(run, scene, cached(run, node, scene.model, 0.05), steps=30)
    low = [sigma for sigma, _ in evaluated if sigma < 0.9]
    assert 2 < len(low) < 28


def test_a_cache_holds_every_audio_channel(run: Run, scene: Scene, pack: Pack) -> None:
    """The stock node keeps as many channels as the video latent has; a MOVA audio latent has 128."""
    model = cached(run, "EasyCache", scene.model, 3.0)
    holder = model.model_options["transformer_options"]["easycache"]
    holder.output_channels = 4  # fewer than the tiny audio latent has, as 16 is fewer than 128
    clone = type(holder).clone
    seen: list[int] = []

    def remembered(self: Any) -> Any:
        seen.append(self.output_channels)
        return clone(self)

    type(holder).clone = remembered
    try:
        check_finite(sample(run, scene, model), scene.latent)
    finally:
        type(holder).clone = clone
    assert seen == [4]
    assert holder.output_channels == 4  # the run's own copy was corrected, not the MODEL


def test_an_emptied_cache_keeps_its_count_and_expects_nothing(stock: dict[str, type], pack: Pack) -> None:
    from comfy_extras.nodes_easycache import EasyCacheHolder

    holder = EasyCacheHolder(0.2, 0.0, 1.0, subsample_factor=8, offload_cache_diff=False, output_channels=16)
    holder.total_steps_skipped, holder.relative_transformation_rate = 4, 0.7
    pack.module("nodes.host.experts.step_caches").forget(holder)
    assert holder.total_steps_skipped == 4
    assert not holder.has_relative_transformation_rate()
