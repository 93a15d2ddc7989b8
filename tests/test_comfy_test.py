"""comfy-test.toml says what is so: the pack's nodes, and a workflow that needs no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
tomllib = pytest.importorskip("tomllib", reason="part of Python since 3.11")
TEST = tomllib.loads((ROOT / "comfy-test.toml").read_text(encoding="utf-8"))["test"]
WITH_WEIGHTS = {"MODEL", "CLIP", "VAE"}


def test_the_expected_nodes_are_the_promised_ones() -> None:
    promised = json.loads((ROOT / "tests" / "nodes" / "schema.json").read_text(encoding="utf-8"))
    assert TEST["expected_nodes"] == sorted(promised)


@pytest.mark.parametrize("name", TEST["workflows"]["cpu"])
def test_a_workflow_for_machines_without_weights_loads_none(name: str) -> None:
    workflow = json.loads((ROOT / "workflows" / name).read_text(encoding="utf-8"))
    given = {output["type"] for node in workflow["nodes"] for output in node.get("outputs", [])}
    assert any(node["type"].startswith("MOVA") for node in workflow["nodes"])
    assert not given & WITH_WEIGHTS


@pytest.mark.parametrize("folder", ["", "mova_core", "nodes", "tools", "benchmarks", "tests"])
def test_sources_hold_no_character_that_its_check_for_windows_refuses(folder: str) -> None:
    """Write others as escapes: it stops at the first level otherwise, and runs no other."""
    for path in (ROOT / folder).glob("**/*.py" if folder else "*.py"):
        path.read_text(encoding="utf-8").encode("cp1252")
