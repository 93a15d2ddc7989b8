"""The bench itself, on stock nodes: what it reports is what happened."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.browser import BrowserError
from tools.comfy.events import ServerError
from tools.comfy.page import Group, Layout, Note, Page
from tools.comfy.prompts import PromptRefused
from tools.comfy.server import ComfyServer
from tools.comfy.starting import place_pack

from .conftest import RECORDER, network_attempts

pytestmark = needs_comfy

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0xC85A1E}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
}
LAYOUT = Layout(
    positions={"1": (0, 0), "2": (360, 0)},
    titles={"1": "A colour"},
    groups=[Group("Picture", ["1", "2"])],
    notes=[Note("# A note", (-460, 0), title="Read me")],
)


def picture(color: int) -> dict[str, dict]:
    """The stock graph with a colour of its own, so that nothing of it is cached."""
    graph = json.loads(json.dumps(PICTURE))
    graph["1"]["inputs"]["color"] = color
    return graph


def steps(count: int, *, seconds: float = 0.05, fail: bool = False) -> dict[str, dict]:
    """A graph that counts, showing a preview for each step (see bench_pack)."""
    return {
        "1": {"class_type": "BenchSteps", "inputs": {"steps": count, "seconds": seconds, "fail": fail}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def test_a_graph_runs_and_its_file_is_found(server: ComfyServer) -> None:
    result = server.run(picture(1))
    assert result.status == "success"
    assert result.message == ""
    assert result.executed() == ["1", "2"]
    assert Image.open(result.files[0]).size == (64, 48)
    assert server.history(result.prompt_id)["status"]["completed"]


def test_a_cached_graph_executes_nothing(server: ComfyServer) -> None:
    server.run(picture(2))
    again = server.run(picture(2))
    assert again.status == "success"
    assert again.executed() == []


def test_a_refused_graph_says_which_node_and_why(server: ComfyServer) -> None:
    graph = {"2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "bench"}}}
    with pytest.raises(PromptRefused, match=r"node 2 \(SaveImage\): Required input is missing: images"):
        server.queue(graph)


def test_progress_and_previews_reach_the_bench(server: ComfyServer) -> None:
    result = server.run(steps(4))
    assert result.text("2") == ["4"]
    assert [data["value"] for data in result.of("progress")] == [1, 2, 3, 4]
    assert [preview.node for preview in result.previews] == ["1"] * 4
    assert Image.open(io.BytesIO(result.previews[0].image)).size == (32, 24)


def test_a_failing_node_is_reported_with_its_exception(server: ComfyServer) -> None:
    result = server.run(steps(2, fail=True))
    assert result.status == "error"
    assert result.message == "ValueError: told to fail"
    assert (result.error["node_id"], result.error["node_type"]) == ("1", "BenchSteps")


def test_an_interrupted_graph_stops_at_once(server: ComfyServer) -> None:
    running = server.queue(steps(600, seconds=0.1))
    server.wait_event("progress", prompt_id=running)
    server.interrupt(running)
    assert server.wait(running, timeout=20).status == "interrupted"
    assert server.run(steps(3)).status == "success"


def test_the_server_stays_off_the_network(server: ComfyServer) -> None:
    server.run(picture(5))
    assert network_attempts(server) == []


def test_the_network_record_would_have_noticed(tmp_path: Path) -> None:
    record = tmp_path / "network.txt"
    script = "import socket\ntry: socket.create_connection(('mova.invalid', 80), 1)\nexcept OSError: pass"
    environment = {**os.environ, "PYTHONPATH": str(RECORDER), "NETWORK_RECORD": str(record)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert record.read_text() == "socket.getaddrinfo mova.invalid\n"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="unrecognized arguments: --no-such-option"):
        ComfyServer(tmp_path, arguments=["--no-such-option"]).start()


def test_a_folder_of_the_user_in_custom_nodes_is_left_alone(tmp_path: Path) -> None:
    pack, target = tmp_path / "pack", tmp_path / "custom_nodes"
    pack.mkdir()
    target.mkdir()
    with pytest.raises(ServerError, match="remove it"):
        place_pack(pack, target)


@needs_browser
def test_a_workflow_made_from_a_graph_runs_from_the_page(page: Page, server: ComfyServer) -> None:
    graph = picture(6)
    workflow = page.to_workflow(graph, LAYOUT)
    report = page.load(workflow)
    assert report.fine, report
    assert page.overlaps() == []
    assert page.widgets("1")["color"] == 6
    assert page.run().status == "success"
    assert [group["title"] for group in workflow["groups"]] == ["Picture"]
    assert {node["type"] for node in workflow["nodes"]} == {"EmptyImage", "SaveImage", "MarkdownNote"}
    assert page.errors() == []


@needs_browser
def test_the_page_shows_previews_and_the_error_of_a_node(page: Page) -> None:
    page.load(page.to_workflow(steps(5, seconds=0.2, fail=True)))
    run = page.run()
    assert (run.status, run.node, run.message) == ("error", "1", "told to fail")
    assert run.previews == 5


@needs_browser
def test_the_page_names_a_missing_node(page: Page) -> None:
    workflow = page.to_workflow(picture(7), LAYOUT)
    next(node for node in workflow["nodes"] if node["type"] == "EmptyImage")["type"] = "NoSuchNode"
    report = page.load(workflow)
    assert report.missing_types == ["NoSuchNode"]
    assert not report.intact
    assert "NoSuchNode" in report.overlay


@needs_browser
def test_an_unknown_node_makes_no_workflow(page: Page) -> None:
    with pytest.raises(BrowserError, match="NoSuchNode"):
        page.to_workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}})


@needs_browser
def test_a_screenshot_has_the_size_of_the_page(page: Page, tmp_path: Path) -> None:
    page.load(page.to_workflow(picture(8), LAYOUT))
    assert Image.open(page.screenshot(tmp_path / "page.png")).size == (1600, 1000)


@needs_browser
def test_an_unsaved_workflow_does_not_hold_the_page(page: Page) -> None:
    page.evaluate("window.addEventListener('beforeunload', event => event.preventDefault())")
    page.tab.keyboard.press("Escape")  # a browser asks only after the user has done something
    page.reload()
