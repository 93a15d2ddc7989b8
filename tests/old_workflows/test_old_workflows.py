"""Workflow files of every release, kept as they were, still fit the nodes of today.

`<version>/` holds copies of `workflows/*.json` as they were then. They are added at a release and never changed: where
one stops fitting, the node is what must be mended, or a rename needs its entry in nodes/replacements.py.
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = json.loads((ROOT / "tests" / "nodes" / "schema.json").read_text(encoding="utf-8"))
FILES = sorted(HERE.glob("*/*.json"))
TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
AFTER_SEED = "control_after_generate"

Node = dict[str, Any]


def replaced() -> set[str]:
    """Old ids for which nodes/replacements.py has an entry."""
    tree = ast.parse((ROOT / "nodes" / "replacements.py").read_text(encoding="utf-8"))
    keywords = (k for call in ast.walk(tree) if isinstance(call, ast.Call) for k in call.keywords)
    return {k.value.value for k in keywords if k.arg == "old_node_id" and isinstance(k.value, ast.Constant)}


def nodes(workflow: Node) -> Iterator[Node]:
    """Those of the graph and of its subgraphs."""
    yield from workflow["nodes"]
    for subgraph in (workflow.get("definitions") or {}).get("subgraphs", ()):
        yield from subgraph["nodes"]


def kinds(workflow: Node) -> dict[int, str]:
    """Link -> type."""
    return {link[0]: link[5] for link in workflow["links"]}


def misfits(workflow: Node) -> list[str]:
    """What of a workflow no longer fits the schema, in words."""
    found, links = [], kinds(workflow)
    for node in nodes(workflow):
        name = node["type"]
        if not name.startswith("MOVA") or name in replaced():
            continue
        if name not in SCHEMA:
            found.append(f"there is no node {name}")
            continue
        found += [f"{name}: {wrong}" for wrong in (*_inputs(node), *_widgets(node), *_outputs(node, links))]
    return found


def _inputs(node: Node) -> Iterator[str]:
    now = {entry["id"]: entry["type"] for entry in SCHEMA[node["type"]]["inputs"]}
    slots = [slot["name"] for slot in node["inputs"]]
    for slot in node["inputs"]:
        if now.get(slot["name"]) != slot["type"]:
            yield f"input {slot['name']} was {slot['type']}, and is {now.get(slot['name'], 'gone')}"
    for entry in SCHEMA[node["type"]]["inputs"]:
        if not entry["optional"] and entry["id"] not in slots:
            yield f"input {entry['id']} is required, and was not there"


def _widgets(node: Node) -> Iterator[str]:
    """A file keeps the values of widgets in their order, so each must still stand at its place."""
    now = []
    for entry in SCHEMA[node["type"]]["inputs"]:
        if entry["type"] in TYPES:
            now += [entry, {"id": AFTER_SEED, "type": "STRING"}] if entry["id"] == "seed" else [entry]
    values = node.get("widgets_values") or []
    if len(values) > len(now):
        yield f"{len(values)} widget values, and only {len(now)} widgets"
    named = node.get("widgets_values_named")
    if named and list(named) != [entry["id"] for entry in now[: len(named)]]:
        yield f"widgets were {', '.join(named)}"
    for entry, value in zip(now, values):
        if not isinstance(value, TYPES[entry["type"]]) or value not in entry.get("options", [value]):
            yield f"widget {entry['id']} does not take {value!r}"


def _outputs(node: Node, links: dict[int, str]) -> Iterator[str]:
    now = SCHEMA[node["type"]]["outputs"]
    for place, slot in enumerate(node.get("outputs", ())):
        if place >= len(now) or now[place]["type"] != slot["type"]:
            yield f"output {place} was {slot['type']}"
        for link in slot.get("links") or ():
            if link in links and links[link] not in (slot["type"], "*"):
                yield f"output {place} is linked as {links[link]}"


def read(path: Path) -> Node:
    workflow: Node = json.loads(path.read_text(encoding="utf-8"))
    return workflow


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_old_workflow_still_fits(path: Path) -> None:
    workflow = read(path)
    assert misfits(workflow) == []
    assert any(node["type"].startswith("MOVA") for node in nodes(workflow))


def test_every_release_left_its_workflows() -> None:
    releases = {
        line.removeprefix("## ").split()[0]
        for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ") and line[3:4].isdigit()
    }
    assert releases
    assert releases <= {path.parent.name for path in FILES}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("id of a node", lambda node: node.update(type="MOVAGone")),
        ("name of an input", lambda node: node["inputs"][0].update(name="gone")),
        ("type of an input", lambda node: node["inputs"][0].update(type="IMAGE")),
        ("a widget more", lambda node: node["widgets_values"].extend([0] * 20)),
        ("order of widgets", lambda node: node["widgets_values"].reverse()),
        ("a choice", lambda node: node["widgets_values"].__setitem__(6, 3)),
        ("type of an output", lambda node: node["outputs"][0].update(type="IMAGE")),
        ("an output more", lambda node: node["outputs"].extend([{"type": "IMAGE", "links": None}] * 9)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_longer_fits_is_noticed(key: str, change: Any) -> None:
    path = HERE / "0.1.0" / "mova_image_to_video_audio.json"
    workflow = copy.deepcopy(read(path))
    (sampler,) = [node for node in nodes(workflow) if node["type"] == "MOVASampler"]
    assert misfits(workflow) == []
    change(sampler)
    assert misfits(workflow), key
