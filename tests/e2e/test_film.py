"""The film workflows on a real server: every shot on disk, what the page is told, and what a killed server leaves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.comfy import PACK, needs_comfy
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.server import ComfyServer

from .graphs import MODEL, Graph, api_graph, node_of, read, small, write_inputs

pytestmark = needs_comfy

SIX = "\n".join(
    f"[s{n}] {'goes on, overlap 5, 4 frames' if n in (2, 5) else '5 frames'}\nPicture number {n}." for n in range(1, 7)
)


def film(name: str, text: str, **changes: object) -> Graph:
    graph = small(api_graph(read("mova_film")), steps=2, text=text, **changes)
    graph[node_of(graph, "MOVAFilm")]["inputs"]["name"] = name
    return graph


def takes(server: ComfyServer, name: str) -> list[Path]:
    return sorted((server.output / "mova_films" / name).glob("*/*/take.json"))


def test_a_film_is_made_and_of_a_changed_one_two_shots(comfy: ComfyServer) -> None:
    graph = film("six", SIX)
    own = node_of(graph, "MOVAFilm")
    made = comfy.wait(comfy.queue(graph))
    assert made.status == "success", made.message
    assert len(takes(comfy, "six")) == 6
    assert {preview.node for preview in made.previews} <= {own} | {p.node for p in made.previews if "shot" in p.node}
    shown = [data for data in made.of("executing") if data.get("node") and "shot4of6" in data["node"]]
    assert {data["display_node"] for data in shown} == {own}
    changed = comfy.wait(comfy.queue(film("six", SIX.replace("number 4", "number four"))))
    assert changed.status == "success", changed.message
    assert len(takes(comfy, "six")) == 8


def test_a_killed_server_leaves_whole_takes_and_makes_the_others_after_a_restart(tmp_path: Path) -> None:
    graph = film("killed", SIX)
    with ComfyServer(tmp_path, pack=PACK) as server:
        write_tiny_checkpoint(server.models / "diffusers" / MODEL)
        write_inputs(server.input)
        server.queue(graph)
        deadline = time.monotonic() + 120
        while len(takes(server, "killed")) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(server.pid, signal.SIGKILL)
    whole = {path: path.read_bytes() for path in takes(server, "killed")}
    assert 2 <= len(whole) < 6
    with ComfyServer(tmp_path, pack=PACK) as server:
        result = server.wait(server.queue(graph))
        assert result.status == "success", result.message
    assert len(takes(server, "killed")) == 6
    assert all(path.read_bytes() == content for path, content in whole.items())
