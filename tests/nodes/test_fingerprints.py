"""Fingerprints of values: equal for what computes the same, also loaded again; different for every edit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.fixtures.tiny_lora import write_tiny_lora
from tests.fixtures.vanishing import at_every_look
from tests.in_process import Pack
from tests.nodes.graph import Run

pytestmark = needs_comfy


@pytest.fixture(scope="module")
def told(pack: Pack) -> Any:
    return pack.module("nodes.host.kept.fingerprints").fingerprint


@pytest.fixture(scope="module")
def lora(comfy_base: Path) -> str:
    write_tiny_lora(comfy_base / "models" / "loras" / "told.safetensors", 1)
    write_tiny_lora(comfy_base / "models" / "loras" / "told_too.safetensors", 1)
    write_tiny_lora(comfy_base / "models" / "loras" / "told_other.safetensors", 2)
    return "told.safetensors"


def put(run: Run, node: str, model: Any, **widgets: Any) -> Any:
    return run(node, model=model, **widgets)[0]


def plain(value: Any) -> Any:
    return value


def closed(value: Any) -> Any:
    return lambda: value


def test_a_model_loaded_again_has_the_same_fingerprint_and_a_run_does_not_change_it(run, scene, told):
    again = run("MOVALoader", folder="tiny", weight_dtype="fp32")[0]
    before = told(scene.model)
    assert before == told(again)
    assert before.opaque == ()
    run("MOVASampler", model=again, positive=scene.positive, negative=scene.negative, latent=scene.latent, steps=2)
    assert told(again) == before


def test_patches_in_place_are_told_as_patches_and_not_as_other_weights(run, scene, told, lora):
    patched = put(run, "MOVALoraLoader", scene.model, lora_name=lora)
    before, plain_one = told(patched), told(scene.model)
    assert before != plain_one
    run("MOVASampler", model=patched, positive=scene.positive, negative=scene.negative, latent=scene.latent, steps=2)
    fresh = run("MOVALoader", folder="tiny", weight_dtype="fp32")[0]
    assert told(patched) == before
    assert told(scene.model) == plain_one
    assert told(put(run, "MOVALoraLoader", fresh, lora_name="told_too.safetensors")) == before


def test_every_edit_of_a_model_is_told(run, scene, told, lora):
    other = run("MOVALoader", folder="tiny", weight_dtype="bf16")[0]
    model = scene.model
    edits = {
        "as it is": model,
        "precision": other,
        "lora": put(run, "MOVALoraLoader", model, lora_name=lora),
        "lora, weaker": put(run, "MOVALoraLoader", model, lora_name=lora, strength=0.5),
        "another lora": put(run, "MOVALoraLoader", model, lora_name="told_other.safetensors"),
        "bypass": put(run, "LoraLoaderBypassModelOnly", model, lora_name=lora, strength_model=1.0),
        "bypass, weaker": put(run, "LoraLoaderBypassModelOnly", model, lora_name=lora, strength_model=0.5),
        "bridge": put(run, "MOVABridgeStrength", model, audio_to_video=0.5, video_to_audio=1.0),
        "bridge, other": put(run, "MOVABridgeStrength", model, audio_to_video=0.6, video_to_audio=1.0),
        "shift": put(run, "ModelSamplingSD3", model, shift=3.0),
        "compute dtype": put(run, "ModelComputeDtype", model, dtype="bf16"),
        "cache": put(run, "EasyCache", model, reuse_threshold=0.2, start_percent=0.1, end_percent=0.9, verbose=False),
        "cache, other": put(
            run, "EasyCache", model, reuse_threshold=0.3, start_percent=0.1, end_percent=0.9, verbose=False
        ),
        "high alone": run("MOVASplitExperts", model=model)[0],
        "low alone": run("MOVASplitExperts", model=model)[1],
    }
    digests = {name: told(edited).digest for name, edited in edits.items()}
    assert len(set(digests.values())) == len(edits), digests


def test_one_weight_is_told_apart_from_another(told):
    one = torch.nn.Linear(300, 300)
    before = told(one)
    with torch.no_grad():
        one.weight *= 1.001
    assert told(one) != before


def test_closures_are_not_read_but_named(run, scene, told):
    guided = [put(run, "APG", scene.model, eta=eta, norm_threshold=5.0, momentum=0.0) for eta in (0.5, 0.6)]
    assert told(guided[0]) == told(guided[1])
    assert "APG" in str(told(guided[0]).opaque)
    assert told(closed(1)) == told(closed(2))
    assert told(closed(1)).opaque


def test_conditionings_and_latents_are_told_by_every_bit(run, scene, told):
    assert told(scene.positive) != told(scene.negative)
    copied = [[prompt.clone(), dict(values)] for prompt, values in scene.positive]
    assert told(copied) == told(scene.positive)
    copied[0][0][0, 0, 0] = torch.nextafter(copied[0][0][0, 0, 0], torch.tensor(9.0))
    assert told(copied) != told(scene.positive)
    assert told({**scene.latent, "frame_rate": 12.0}) != told(scene.latent)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        ("1", 1),
        (None, "None"),
        ([1, [2]], [1, 2]),
        ([1, 2], (1, 2)),
        ({"a": 1}, {"b": 1}),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(2), torch.zeros(2).int()),
        (partial(plain, 1), partial(plain, 2)),
        (plain, closed),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_things_that_differ_are_told_apart(told, one, other):
    assert told(one) == told(one)
    assert told(one) != told(other)


def test_the_order_of_a_mapping_does_not_count_and_a_circle_ends(told):
    assert told({"a": 1, "b": 2}) == told({"b": 2, "a": 1})
    assert told({1, 2}) == told({2, 1})
    circle: list[Any] = [1]
    circle.append(circle)
    assert told(circle).digest


def test_what_cannot_be_read_is_named(told):
    assert told(iter([1])).opaque
    deep: Any = 1
    for _ in range(99):
        deep = [deep]
    assert told(deep).opaque


def test_a_workflow_is_told_by_links_and_not_by_ids(pack):
    graph = pack.module("nodes.host.kept.graph").Graph

    def above(dynprompt: Any, node: str) -> str:
        return graph(dynprompt).above([node, 0])

    def prompt(names: dict[str, str], eta: float) -> Any:
        nodes = {
            names["apg"]: {"class_type": "APG", "inputs": {"model": [names["load"], 0], "eta": eta}},
            names["load"]: {"class_type": "MOVALoader", "inputs": {"folder": "tiny"}},
        }
        return SimpleNamespace(get_node=nodes.__getitem__)

    one, renumbered = {"apg": "1", "load": "2"}, {"apg": "7", "load": "3:4"}
    assert above(prompt(one, 0.5), "1") == above(prompt(renumbered, 0.5), "7")
    assert above(prompt(one, 0.5), "1") != above(prompt(one, 0.6), "1")


def of_text(pack: Pack, text: str) -> str:
    """What a graph makes of a text widget."""
    node = {"class_type": "PrimitiveString", "inputs": {"value": text}}
    return pack.module("nodes.host.kept.graph").Graph(SimpleNamespace(get_node=lambda _: node)).above(["1", 0])


@pytest.mark.parametrize("text", ["a long prompt, " * 30, "a/" * 400, "nul\0", "..", "~", "\ud800", "x" * 999])
def test_a_text_that_no_file_could_be_called_is_a_text(pack, text):
    assert of_text(pack, text) == of_text(pack, text) != of_text(pack, text + "!")


def test_a_file_that_vanishes_while_it_is_looked_at_makes_the_graph_unknown(pack, comfy_base):
    place = comfy_base / "input" / "vanishing.txt"
    told = [made for _, made in at_every_look(place, lambda: place.write_text("a"), lambda: of_text(pack, place.name))]
    assert len(told) > 2
    assert pack.module("nodes.host.kept.graph").UNKNOWN in told
