"""The film workflows on a real server: every shot on disk, what the page is told, and what a killed server leaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.comfy import PACK, needs_comfy
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.server import ComfyServer

from .graphs import MODEL, Graph, api_graph, node_of, read, small, write_inputs

pytestmark = needs_comfy

SIX = "\n".join(
    f"[s{n}] {'goes on, overlap 5, 4 frames' if n in (2, 5) else '5 frames'}\nPicture number {n}." for n in range(1, 7)
)


def film(name: str, text: str, **changes: object) -> Graph:
    graph = small(api_graph(read("mova_film")), steps=1, text=text, **changes)
    graph[node_of(graph, "MOVAFilm")]["inputs"]["name"] = name
    return graph


def takes(server: ComfyServer, name: str) -> list[Path]:
    return sorted((server.output / "mova_films" / name).glob("*/*/take.json"))


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ComfyServer, Mapping[Path, bytes]]]:
    """A server after one that was killed when two of six shots were on disk, and what lay there."""
    base = tmp_path_factory.mktemp("films")
    with ComfyServer(base, pack=PACK) as server:
        write_tiny_checkpoint(server.models / "diffusers" / MODEL)
        write_inputs(server.input)
        server.queue(film("six", SIX))
        deadline = time.monotonic() + 120
        while len(takes(server, "six")) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(server.pid, signal.SIGKILL)
    whole = {path: path.read_bytes() for path in takes(server, "six")}
    with ComfyServer(base, pack=PACK) as server:
        yield server, whole


def test_a_killed_server_leaves_whole_takes_and_makes_the_others_after_a_restart(
    restarted: tuple[ComfyServer, Mapping[Path, bytes]],
) -> None:
    server, whole = restarted
    assert 2 <= len(whole) < 6
    made = server.run(film("six", SIX))
    assert made.status == "success", made.message
    assert len(takes(server, "six")) == 6
    assert all(path.read_bytes() == content for path, content in whole.items())


def test_of_a_changed_film_two_shots_are_made_and_the_page_is_told_of_one_node(
    restarted: tuple[ComfyServer, Mapping[Path, bytes]],
) -> None:
    server, _ = restarted
    assert server.run(film("six", SIX)).status == "success"
    before = takes(server, "six")
    graph = film("six", SIX.replace("number 4", "number four"))
    own = node_of(graph, "MOVAFilm")
    changed = server.run(graph)
    assert changed.status == "success", changed.message
    assert len(takes(server, "six")) == len(before) + 2
    assert {preview.node for preview in changed.previews} <= {own} | {
        p.node for p in changed.previews if "shot" in p.node
    }
    shown = [data for data in changed.of("executing") if data.get("node") and "shot4of6" in data["node"]]
    assert {data["display_node"] for data in shown} == {own}
