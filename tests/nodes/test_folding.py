"""What few people change is folded away, unfolded where a workflow changes it, and at its default everywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.comfy import PACK, needs_comfy
from tests.in_process import Pack
from tools.templates.library import TEMPLATES
from tools.templates.template import ids
from tools.templates.workflows import workflow_file

pytestmark = needs_comfy

FILES = [*sorted((PACK / "workflows").glob("*.json")), *sorted((PACK / "subgraphs").glob("*.json"))]
AT_ONCE = 10  # widgets that a node shows before it is unfolded


def widgets(node: Any) -> list[Any]:
    return [entry for entry in node.GET_SCHEMA().inputs if hasattr(entry, "default") or hasattr(entry, "options")]


def folded(node: Any) -> dict[str, Any]:
    """Advanced inputs and their defaults."""
    return {entry.id: entry.default for entry in widgets(node) if entry.advanced}


def saved(path: Any) -> Iterator[dict[str, Any]]:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    yield from workflow["nodes"]
    for subgraph in (workflow.get("definitions") or {}).get("subgraphs", ()):
        yield from subgraph["nodes"]


def test_no_node_shows_more_than_ten_widgets_at_once(pack: Pack) -> None:
    shown = {node_id: len(widgets(node)) - len(folded(node)) for node_id, node in pack.nodes.items()}
    assert {node_id: count for node_id, count in shown.items() if count > AT_ONCE} == {}


def test_what_is_folded_has_a_default(pack: Pack) -> None:
    assert [node_id for node_id, node in pack.nodes.items() if None in folded(node).values()] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_node_with_other_values_than_the_folded_defaults_is_unfolded(pack: Pack, path: Any) -> None:
    for node in saved(path):
        if node["type"] in pack.nodes:
            named = node.get("widgets_values_named", {})
            changed = [n for n, value in folded(pack.nodes[node["type"]]).items() if named.get(n, value) != value]
            assert not changed or node.get("showAdvanced"), f"{node['type']}: {changed}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_does_not_name_is_at_its_default(pack: Pack, name: str) -> None:
    """The page keeps values from graph to graph by id and name; none of another template may be left in a file."""
    template = TEMPLATES[name]
    nodes = {str(node["id"]): node for node in saved(workflow_file(name))}
    for key, number in ids(template).items():
        node = template.nodes[key]
        if node.type in pack.nodes:
            named = nodes[number].get("widgets_values_named", {})
            unsaid = {
                entry.id: entry.default for entry in widgets(pack.nodes[node.type]) if entry.id not in node.inputs
            }
            unsaid = {entry: value for entry, value in unsaid.items() if value is not None}
            assert {entry: named.get(entry) for entry in unsaid} == unsaid, node.type
