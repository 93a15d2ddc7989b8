"""What saved workflows rely on may only grow: ids, inputs and their order, outputs and theirs, choices of a list.

MOVA_UPDATE_SCHEMA=1 writes schema.json anew, and only if nothing in it was taken back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tools.docs.node_docs import FROM_HOST

pytestmark = needs_comfy

SCHEMA = Path(__file__).with_name("schema.json")
PROMISED = {
    "MOVALoader": ("folder weight_dtype", "MODEL CLIP VAE VAE"),
    "MOVATextEncode": ("clip prompt negative_prompt", "CONDITIONING CONDITIONING"),
    "MOVAImageToVideoAudio": (
        "positive negative vae width height frames fps batch_size first_frame",
        "CONDITIONING CONDITIONING LATENT",
    ),
    "MOVASampler": (
        "model positive negative latent seed steps cfg shift audio_shift sampler scheduler denoise",
        "LATENT",
    ),
    "MOVADecode": ("latent vae audio_vae tile_size overlap", "IMAGE AUDIO FLOAT"),
}

Node = dict[str, Any]


def described(pack: Pack) -> dict[str, Node]:
    return {node_id: _node(node.GET_SCHEMA()) for node_id, node in sorted(pack.nodes.items())}


def _node(schema: Any) -> Node:
    inputs = [_input(entry) for entry in schema.inputs]
    return {"inputs": inputs, "outputs": [{"name": o.display_name, "type": o.io_type} for o in schema.outputs]}


def _input(entry: Any) -> Node:
    found = {"id": entry.id, "type": entry.io_type, "optional": bool(entry.optional)}
    options = getattr(entry, "options", None)
    if options and entry.id not in FROM_HOST and all(isinstance(option, str) for option in options):
        found["options"] = list(options)
    return found


def taken_back(old: dict[str, Node], new: dict[str, Node]) -> list[str]:
    """Every promise of `old` that `new` breaks, in words."""
    broken = [f"node {node_id} is gone" for node_id in old.keys() - new.keys()]
    for node_id in old.keys() & new.keys():
        was, now = old[node_id], new[node_id]
        count = len(was["inputs"])
        if [_fixed(i) for i in now["inputs"][:count]] != [_fixed(i) for i in was["inputs"]]:
            broken.append(f"{node_id}: an input changed its id, type, place or whether it is optional")
        broken += [
            f"{node_id}: new input {i['id']} is not optional" for i in now["inputs"][count:] if not i["optional"]
        ]
        if [o["type"] for o in now["outputs"]][: len(was["outputs"])] != [o["type"] for o in was["outputs"]]:
            broken.append(f"{node_id}: an output changed its type or place")
        for before, after in zip(was["inputs"], now["inputs"]):
            lost = set(before.get("options", ())) - set(after.get("options", ()))
            broken += [f"{node_id}: {before['id']} lost the choice {option!r}" for option in sorted(lost)]
    return broken


def _fixed(entry: Node) -> tuple[Any, ...]:
    return entry["id"], entry["type"], entry["optional"]


def test_no_promise_is_taken_back(pack: Pack) -> None:
    old, new = json.loads(SCHEMA.read_text()) if SCHEMA.is_file() else {}, described(pack)
    assert taken_back(old, new) == []
    if os.environ.get("MOVA_UPDATE_SCHEMA") == "1":
        SCHEMA.write_text(json.dumps(new, indent=1) + "\n")
    else:
        assert new == old, "a node, input or output is new: MOVA_UPDATE_SCHEMA=1 adds it to schema.json"


@pytest.mark.parametrize("node_id", PROMISED)
def test_the_nodes_of_the_plain_graph_are_as_announced(pack: Pack, node_id: str) -> None:
    inputs, outputs = (names.split() for names in PROMISED[node_id])
    node = described(pack)[node_id]
    assert [i["id"] for i in node["inputs"]][: len(inputs)] == inputs
    assert [o["type"] for o in node["outputs"]][: len(outputs)] == outputs


def test_a_new_input_must_be_optional_and_last(pack: Pack) -> None:
    new = described(pack)
    one = {"id": "x", "type": "INT", "optional": True}

    def with_inputs(inputs: list[Node]) -> dict[str, Node]:
        return new | {"MOVADecode": new["MOVADecode"] | {"inputs": inputs}}

    inputs = new["MOVADecode"]["inputs"]
    assert taken_back(new, with_inputs([*inputs, one])) == []
    assert taken_back(new, with_inputs([*inputs, one | {"optional": False}]))
    assert taken_back(new, with_inputs([one, *inputs]))
    assert taken_back(new, with_inputs(inputs[1:]))
    assert taken_back(new, {k: v for k, v in new.items() if k != "MOVADecode"})


def test_every_node_and_input_explains_itself(pack: Pack) -> None:
    mute = []
    for node_id, node in pack.nodes.items():
        schema = node.GET_SCHEMA()
        mute += [
            f"{node_id}.{name}" for name in ("description", "category", "display_name") if not getattr(schema, name)
        ]
        mute += [f"{node_id}.{entry.id}" for entry in schema.inputs if not entry.tooltip]
        assert schema.category.startswith("MOVA")
    assert mute == []


def test_ids_carry_the_packs_name(pack: Pack) -> None:
    assert all(node_id.startswith("MOVA") for node_id in pack.nodes)
