"""A renamed node shows itself migrated: the table is registered with ComfyUI, and its entries lead somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.comfy import needs_comfy
from tests.in_process import Pack

pytestmark = needs_comfy


@pytest.fixture
def manager(comfy_nodes: ModuleType) -> Iterator[Any]:
    """ComfyUI's manager of replacements, empty; as it was before when the test is over."""
    from server import PromptServer

    found = PromptServer.instance.node_replace_manager
    before, found._replacements = found._replacements, {}
    yield found
    found._replacements = before


def replacement(**changed: Any) -> Any:
    from comfy_api.latest import io

    entry = {
        "old_node_id": "MOVAOldDecode",
        "new_node_id": "MOVADecode",
        "old_widget_ids": ["tile"],
        "input_mapping": [
            {"new_id": "latent", "old_id": "samples"},
            {"new_id": "tile_size", "old_id": "tile"},
            {"new_id": "overlap", "set_value": 64},
        ],
        "output_mapping": [{"new_idx": 1, "old_idx": 0}],
    }
    return io.NodeReplace(**(entry | changed))


def wrong(entries: Any, pack: Pack) -> list[str]:
    """What of the entries leads nowhere."""
    found = []
    for entry in entries:
        new = pack.nodes.get(entry.new_node_id)
        if entry.old_node_id in pack.nodes or new is None:
            found.append(f"{entry.old_node_id} -> {entry.new_node_id}")
            continue
        schema = new.GET_SCHEMA()
        known = {i.id for i in schema.inputs}
        given = {m["new_id"] for m in entry.input_mapping or ()}
        found += [f"{entry.old_node_id}: no input {name}" for name in sorted(given - known)]
        outputs = range(len(schema.outputs))
        found += [
            f"{entry.old_node_id}: no output {m['new_idx']}"
            for m in entry.output_mapping or ()
            if m["new_idx"] not in outputs
        ]
    return found


def test_every_entry_leads_from_a_node_that_is_gone_to_one_that_is_there(pack: Pack) -> None:
    assert wrong(pack.module("nodes.replacements").REPLACEMENTS, pack) == []


def test_an_entry_that_leads_nowhere_is_caught(pack: Pack) -> None:
    assert wrong([replacement()], pack) == []
    assert wrong([replacement(new_node_id="MOVANowhere")], pack)
    assert wrong([replacement(old_node_id="MOVASampler")], pack)
    assert wrong([replacement(input_mapping=[{"new_id": "nothing", "old_id": "samples"}])], pack)
    assert wrong([replacement(output_mapping=[{"new_idx": 3, "old_idx": 0}])], pack)


def test_a_prompt_with_a_renamed_node_runs_as_its_successor(pack: Pack, manager: Any) -> None:
    asyncio.run(pack.module("nodes.replacements").register((replacement(),)))
    prompt = {
        "1": {"class_type": "MOVAOldDecode", "inputs": {"samples": ["9", 0], "tile": 256}, "_meta": {}},
        "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0]}, "_meta": {}},
    }
    manager.apply_replacements(prompt)
    assert prompt["1"]["class_type"] == "MOVADecode"
    assert prompt["1"]["inputs"] == {"latent": ["9", 0], "tile_size": 256, "overlap": 64}
    assert prompt["2"]["inputs"] == {"audio": ["1", 1]}


def test_the_page_is_told_of_it(pack: Pack, manager: Any) -> None:
    asyncio.run(pack.module("nodes.replacements").register((replacement(),)))
    (told,) = manager.as_dict()["MOVAOldDecode"]
    assert (told["new_node_id"], told["old_widget_ids"]) == ("MOVADecode", ["tile"])


def test_loading_the_pack_registers_the_table(pack: Pack, manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = []

    async def take() -> None:
        registered.append("asked")

    monkeypatch.setattr(pack.module("nodes"), "register", take)
    asyncio.run(pack.extension.on_load())
    assert registered == ["asked"]
