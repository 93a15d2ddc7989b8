"""The subgraph blueprints: listed by the server, opened whole by the page, and run by it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.comfy import PACK, needs_browser, needs_comfy
from tools.comfy.page import Page
from tools.comfy.server import ComfyServer
from tools.routes.media import describe_mp4
from tools.templates.blueprints import BLUEPRINTS, SUBGRAPHS, opened

from .graphs import FRAMES, SMALL

SAMPLERS = ("MOVAFastSampler", "MOVAFilmFastSampler")
FILES = sorted(SUBGRAPHS.glob("*.json"))
SCHEMA = json.loads((PACK / "tests" / "nodes" / "schema.json").read_text(encoding="utf-8"))
RUN = """
(values) => {
  const host = app.graph._nodes[0];
  for (const node of host.subgraph._nodes) {
    for (const widget of node.widgets ?? []) if (widget.name in values) widget.value = values[widget.name];
  }
  for (const widget of host.widgets) if (widget.name in values) widget.value = values[widget.name];
  const taken = host.inputs.findIndex((slot) => slot.name === 'video');
  if (taken >= 0) {
    const load = LiteGraph.createNode('LoadVideo');
    app.graph.add(load);
    load.widgets.find((widget) => widget.name === 'file').value = values.file;
    load.connect(0, host, taken);
  }
  const save = LiteGraph.createNode('SaveVideo');
  app.graph.add(save);
  host.connect(0, save, 0);
  return true;
}"""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def knobs(blueprint: dict[str, Any]) -> list[str]:
    return [slot["name"] for slot in blueprint["nodes"][0]["inputs"] if "widget" in slot]


def test_there_is_a_file_for_each() -> None:
    assert {path.stem for path in FILES} == set(BLUEPRINTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_shows_the_promised_knobs_and_no_other(path: Path) -> None:
    promised = list(dict.fromkeys(called for _, _, called in BLUEPRINTS[path.stem]().knobs))
    assert knobs(read(path)) == promised


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_gives_a_video_and_holds_only_promised_nodes(path: Path) -> None:
    blueprint = read(path)
    (host,), (inside,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert [output["type"] for output in host["outputs"]] == ["VIDEO"]
    assert {node["type"] for node in inside["nodes"] if node["type"].startswith("MOVA")} <= SCHEMA.keys()
    assert inside["name"] == host["title"] == path.stem
    assert inside["description"]


@needs_comfy
def test_the_server_lists_them(server: ComfyServer) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    listed = json.load(opener.open(f"{server.url}/global_subgraphs", timeout=30))
    ours = {entry["name"] for entry in listed.values() if entry["source"] == "custom_node"}
    assert {path.stem for path in FILES} <= ours


@needs_comfy
@needs_browser
@pytest.mark.parametrize("name", BLUEPRINTS)
def test_each_opens_with_nothing_red_and_runs_with_the_values_of_its_knobs(
    page: Page, server: ComfyServer, name: str
) -> None:
    assert opened(page, read(SUBGRAPHS / f"{name}.json")) == []
    words = {"lines": "Mova: Hello.", "text": f"[one] {FRAMES} frames\n{SMALL['prompt']}"}
    page.evaluate(RUN, {**SMALL, **words, "steps": 2, "quality": "light", "seed": 7})
    graph = page.api_graph()
    sampler = next(node for node in graph.values() if node["class_type"] in SAMPLERS)
    seeds = [node["inputs"]["seed"] for node in graph.values() if "seed" in node["inputs"]]
    assert (sampler["inputs"]["steps"], sampler["inputs"]["quality"], seeds) == (2, "light", [7])
    if name == "MOVA Talk":
        builder = next(node for node in graph.values() if node["class_type"] == "MOVAPromptBuilder")
        assert (sampler["inputs"]["bridge_cfg"], builder["inputs"]["lines"]) == (3.5, "Mova: Hello.")
    before = clips(server)
    run = page.run()
    assert run.status == "success", run
    (clip,) = clips(server) - before
    facts = describe_mp4(clip)
    assert facts["frames"] == (2 * FRAMES - SMALL["overlap"] if name == "MOVA Extend" else FRAMES)
    assert facts["audio_peak"] > 0


def clips(server: ComfyServer) -> set[Path]:
    """What was saved, without takes and films that 'MOVA Film' keeps for itself."""
    return set((server.output / "video").rglob("*.mp4"))
