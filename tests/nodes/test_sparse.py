"""Sparse self-attention in ComfyUI: both paths and experts, the video alone; core's own node is not silently dense."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.conftest import condition
from tests.nodes.graph import Run, Scene, equal, streams

pytestmark = needs_comfy


@pytest.fixture(scope="module")
def scene(scene: Scene, run: Run) -> Scene:
    """Of 17 frames: 5 latent ones, of which the last is a tail."""
    with torch.inference_mode():
        texts = run("MOVATextEncode", clip=scene.clip, prompt="A cat plays the piano.", negative_prompt="blurry")
        positive, negative, latent = condition(run, texts, scene.vae, frames=17)
        return scene.but(positive=positive, negative=negative, latent=latent)


sampled = partial(graph.sampled, seed=3, steps=3)


def error(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(relative_error(a, b) for a, b in zip(streams(one), streams(other)))


def test_no_sparsity_is_the_model_as_it_was(run: Run, scene: Scene) -> None:
    dense = run("MOVASparseAttention", model=scene.model, sparsity=0.0)[0]
    assert equal(sampled(run, scene, dense), sampled(run, scene, scene.model))


def test_it_is_the_same_on_both_memory_paths_and_reaches_both_experts(run: Run, scene: Scene, pack: Pack) -> None:
    sparse = run("MOVASparseAttention", model=scene.model, sparsity=0.6, cdf=0.0)[0]
    normal, dense = sampled(run, scene, sparse), sampled(run, scene, scene.model)
    assert error(normal, dense) > 1e-3
    chunks, asking = pack.module("mova_core.estimate").ChunkSizes, pack.module("nodes.host.keys").asking
    low = sparse.clone()
    options = low.model_options["transformer_options"]
    low.model_options["transformer_options"] = asking(options, chunks=chunks(feed_forward=5, queries=5))
    assert error(sampled(run, scene, low), normal) < 1e-5
    late = run("MOVASparseAttention", model=scene.model, sparsity=0.6, cdf=0.0, dense_share=0.6)[0]
    assert 1e-4 < error(sampled(run, scene, late), dense) != error(normal, dense)


def test_it_begins_where_it_is_told_to(run: Run, scene: Scene) -> None:
    never = run("MOVASparseAttention", model=scene.model, sparsity=0.6, cdf=0.0, dense_share=1.0)[0]
    assert equal(sampled(run, scene, never), sampled(run, scene, scene.model))


@pytest.fixture
def comfys(scene: Scene) -> tuple[Any, list[tuple[int, int]]]:
    """A MODEL with an override as ComfyUI's node makes it, and the (queries, keys) that it was asked with."""
    seen: list[tuple[int, int]] = []

    def override(func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any, **more: Any) -> Tensor:
        seen.append((q.shape[1], k.shape[1]))
        return func(q, k, v, heads, *rest, **more)

    override.__module__ = "comfy_extras.nodes_sparse_attention"
    model = scene.model.clone()
    model.model_options["transformer_options"] = {
        **model.model_options.get("transformer_options", {}),
        "optimized_attention_override": override,
    }
    return model, seen


@pytest.mark.parametrize("mode", ["normal", "low"])
def test_comfys_own_node_is_asked_with_all_queries_for_the_video_alone(
    run: Run, scene: Scene, pack: Pack, comfys: tuple[Any, list[tuple[int, int]]], mode: str, monkeypatch: Any
) -> None:
    model, seen = comfys
    memory, chunks = pack.module("nodes.host.model.memory"), pack.module("mova_core.estimate").ChunkSizes
    monkeypatch.setitem(memory.MEMORY_MODES, "low", chunks(feed_forward=5, queries=5))
    sampled(run, scene, run("MOVAMemory", model=model, mode=mode)[0])
    video, layers = streams(scene.latent)[0], scene.model.model.sizes.video.layers
    tokens = video[0, 0].numel() // 4
    assert seen == [(tokens, tokens)] * layers * 3
    assert scene.model.model.rows.queries is None


def test_two_kinds_of_it_are_refused(run: Run, pack: Pack, comfys: tuple[Any, Any]) -> None:
    with pytest.raises(pack.module("mova_core.errors").PatchError, match="one of the two"):
        run("MOVASparseAttention", model=comfys[0])


def test_a_card_that_cannot_compile_is_told_so(pack: Pack, monkeypatch: Any) -> None:
    host, core = pack.module("nodes.host.model.sparse"), pack.module("mova_core.model.sparse")
    monkeypatch.setattr("comfy.model_management.is_device_cuda", lambda device: True)

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(core, "fused", broken)
    q = torch.rand(1, 64, 8)
    place = pack.module("mova_core.ops").Place((4, 4, 4), 0)
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="Triton"):
        host.attend(q, q, q, 1, place, core.Sparsity(), None)


def test_preflight_counts_what_is_left_out(run: Run, scene: Scene) -> None:
    given = {"latent": scene.latent, "steps": 2}
    half = run("MOVASparseAttention", model=scene.model, sparsity=0.5, dense_share=0.5)[0]
    assert (
        "80% is computed" in run("MOVAPreflight", model=half, **given)[0]
    )  # 0.6 of 5 latent frames, in half the steps
    assert "is computed" not in run("MOVAPreflight", model=scene.model, **given)[0]


def test_preflight_and_the_fast_sampler_say_what_they_do_not_know_of_comfys_own(
    run: Run, scene: Scene, pack: Pack, comfys: tuple[Any, list[tuple[int, int]]]
) -> None:
    model, seen = comfys
    told = run("MOVAPreflight", model=model, latent=scene.latent, steps=2)[0]
    assert "'Model Sparse Attention' finds out as it runs what it leaves out" in told
    assert seen == []  # what is timed is dense, whatever its length
    assert "Model Sparse Attention" not in run("MOVAPreflight", model=scene.model, latent=scene.latent, steps=2)[0]
    fast, recipes = pack.module("nodes.host.sampling.fast"), pack.module("mova_core.sampling.fast")
    recipe = recipes.recipe_of("light", 2)
    assert "if 'Model Sparse Attention' left nothing out" in fast.cost(model, scene.latent, recipe)
    assert "Model Sparse Attention" not in fast.cost(scene.model, scene.latent, recipe)


def test_the_fast_samplers_cost_counts_what_is_left_out(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, recipes = pack.module("nodes.host.sampling.fast"), pack.module("mova_core.sampling.fast")
    asked: list[float] = []
    real = fast.recipe_work
    monkeypatch.setattr(fast, "recipe_work", lambda *given: asked.append(given[3]) or real(*given))
    sparse = run("MOVASparseAttention", model=scene.model, sparsity=0.5, dense_share=0.5)[0]
    for model in (scene.model, sparse):
        fast.cost(model, scene.latent, recipes.recipe_of("light", 2))
    assert asked == [1.0, pytest.approx(0.8)]
