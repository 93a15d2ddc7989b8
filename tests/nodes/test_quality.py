"""One choice of quality in a workflow: the fast levels read LoRA files, the plain ones do without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfy import PACK, needs_comfy
from tests.e2e.graphs import Graph, api_graph, node_of, read, small
from tests.fixtures.tiny_lora import write_tiny_lora
from tests.in_process import Pack
from tests.nodes.executor import Executor
from tests.nodes.graph import Run, Scene, equal

pytestmark = needs_comfy

APP = "mova_talk.app"


@pytest.fixture
def loras(comfy_base: Path) -> Iterator[Path]:
    """The LoRA folder, empty before and after."""
    folder = comfy_base / "models" / "loras"
    aside = folder.with_name("loras aside")
    if folder.is_dir():
        folder.rename(aside)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)
    if aside.is_dir():
        aside.rename(folder)


def write_pair(loras: Path) -> None:
    from mova_core.checkpoint.distillation import PUBLISHED_PAIR

    for seed, name in enumerate(PUBLISHED_PAIR.values()):
        write_tiny_lora(loras / name, seed)


@pytest.fixture
def short(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain levels take two steps."""
    plain = pack.module("mova_core.sampling.fast").PLAIN_STEPS
    for quality in plain:
        monkeypatch.setitem(plain, quality, 2)


@pytest.fixture
def app(pack: Pack, stock: Any, diffusers: Path, comfy_base: Path) -> Graph:
    """The app's graph, small, on the tiny checkpoint, up to the LATENT."""
    graph = small(api_graph(read(APP)), folder="tiny", width=32, height=32, frames=5)
    graph[node_of(graph, "MOVALoader")]["inputs"]["folder"] = "tiny"
    sampler = node_of(graph, "MOVAFastSampler")
    picture = node_of(graph, "LoadImage")
    graph[picture] = {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 255}}
    for kind in ("SaveVideo", "CreateVideo", "MOVADecode"):
        del graph[node_of(graph, kind)]
    seen = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 1]}}
    return {**graph, "seen": seen}


def at(graph: Graph, quality: str) -> Graph:
    sampler = node_of(graph, "MOVAFastSampler")
    return {**graph, sampler: {**graph[sampler], "inputs": {**graph[sampler]["inputs"], "quality": quality}}}


@pytest.fixture
def asked(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every time that LoRA files are asked for."""
    module, seen = pack.module("nodes.host.loras.lora"), []
    real = module.distilled
    monkeypatch.setattr(module, "distilled", lambda *given: seen.append(given) or real(*given))
    return seen


@pytest.mark.usefixtures("short")
def test_the_app_runs_at_full_without_lora_files_and_says_at_light_what_it_lacks(
    app: Graph, loras: Path, asked: list[Any]
) -> None:
    execute = Executor()
    assert [execute(at(app, quality)).error for quality in ("full", "max")] == ["", ""]
    assert asked == []
    for quality in ("light", "standard", "high"):
        error = execute(at(app, quality)).error
        assert "no pair of distillation LoRAs is in" in error
        assert "260412" in error
        assert "choose quality full or max" in error
    write_pair(loras)
    asked.clear()
    assert [execute(at(app, quality)).error for quality in ("light", "standard", "high")] == ["", "", ""]
    assert len(asked) == 1  # and cached


@pytest.mark.usefixtures("short")
def test_full_is_the_joint_sampler_with_its_guidance(run: Run, scene: Scene) -> None:
    given = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "seed": 3}
    made = run("MOVAFastSampler", model=None, teacher=scene.model, quality="full", bridge_cfg=3.5, steps=8, **given)[0]
    wanted = run("MOVASampler", model=scene.model, steps=2, cfg=5.0, bridge_cfg=3.5, **given)[0]
    assert equal(made, wanted)


def test_both_files_are_two_lora_loaders(run: Run, scene: Scene, loras: Path) -> None:
    write_pair(loras)
    high, low = sorted(path.name for path in loras.iterdir())
    given = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "seed": 3, "steps": 2}
    by_hand = run("MOVALoraLoader", model=scene.model, lora_name=high, expert="high")[0]
    by_hand = run("MOVALoraLoader", model=by_hand, lora_name=low, expert="low")[0]
    one, other = run("MOVADistillation", model=scene.model)[0], by_hand
    assert equal(run("MOVAFastSampler", model=one, **given)[0], run("MOVAFastSampler", model=other, **given)[0])
    chosen = run("MOVADistillation", model=scene.model, high_noise=high, low_noise=low, strength=0.0)[0]
    plain = run("MOVAFastSampler", model=scene.model, **given)[0]
    assert equal(run("MOVAFastSampler", model=chosen, **given)[0], plain)


@pytest.mark.parametrize("name", sorted(path.stem for path in (PACK / "subgraphs").glob("*.json")))
def test_every_blueprint_offers_quality_and_starts_at_full(name: str) -> None:
    import json

    host = json.loads((PACK / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))
    (inside,) = host["definitions"]["subgraphs"]
    (sampler,) = [node for node in inside["nodes"] if node["type"] in ("MOVAFastSampler", "MOVAFilmFastSampler")]
    assert sampler["widgets_values_named"]["quality"] == "full"
    assert "quality" in [slot["name"] for slot in inside["inputs"]]
    assert "MOVADistillation" in [node["type"] for node in inside["nodes"]]


def test_dual_guidance_is_for_the_plain_levels_alone(pack: Pack) -> None:
    recipes, errors = pack.module("mova_core.sampling.fast"), pack.module("mova_core.errors")
    assert recipes.recipe_of("full", 8, 3.5).evaluations == 150
    assert recipes.recipe_of("max", 8, 1.0).evaluations == 40
    assert recipes.recipe_of("light", 8, 3.5) == recipes.recipe_of("light", 8)
    with pytest.raises(errors.ConfigError, match="guidance by the bridge"):
        recipes.Recipe(bridge_scale=3.5)
