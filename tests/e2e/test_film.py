"""The film workflows on a real server: every shot on disk, what the page is told, and what a killed server leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mova_core.kept.runs import states
from tests.comfy import PACK, needs_comfy
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.server import ComfyServer
from tools.routes.media import describe_mp4, write_mp4

from .graphs import MODEL, Graph, api_graph, node_of, read, small, write_inputs

pytestmark = needs_comfy

SIX = "\n".join(
    f"[s{n}] {'goes on, overlap 5, 4 frames' if n in (2, 5) else '5 frames'}\nPicture number {n}." for n in range(1, 7)
)
STEPS = 6
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # tensors this small only wait for a second one
TENSORS = ("latents.safetensors", "end.safetensors")  # of a take: its latents, its last pictures and all its sound


def film(name: str, text: str, **changes: object) -> Graph:
    graph = small(api_graph(read("mova_film")), **{"steps": 1, "text": text} | changes)
    graph[node_of(graph, "MOVAFilm")]["inputs"]["name"] = name
    return graph


def takes(server: ComfyServer, name: str) -> list[Path]:
    return sorted((server.output / "mova_films" / name).glob("*/*/take.json"))


def await_(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ComfyServer, Mapping[str, bytes]]]:
    """A server after one that was killed within the third of six shots, and the takes that lay there, by shot.

    In between the film's folder was given another name.
    """
    base = tmp_path_factory.mktemp("films")
    with ComfyServer(base, pack=PACK, environment=ONE_THREAD) as server:
        write_tiny_checkpoint(server.models / "diffusers" / MODEL)
        write_inputs(server.input)
        server.queue(film("six", SIX, steps=STEPS, resume="on"))
        await_(lambda: len(takes(server, "six")) == 2)
        await_(lambda: any(state.step >= 2 for state in states(server.output / "mova_runs")))
        os.kill(server.pid, signal.SIGKILL)
    whole = {path.parent.parent.name: path.read_bytes() for path in takes(server, "six")}
    (server.output / "mova_films" / "six").rename(server.output / "mova_films" / "moved")
    with ComfyServer(base, pack=PACK, environment=ONE_THREAD) as server:
        yield server, whole


def test_after_a_kill_within_a_shot_it_goes_on_and_all_is_to_the_bit_as_if_nothing_had_been(
    restarted: tuple[ComfyServer, Mapping[str, bytes]],
) -> None:
    server, whole = restarted
    assert list(whole) == ["s1", "s2"]
    made = server.run(film("moved", SIX, steps=STEPS, resume="on"))
    assert made.status == "success", made.message
    assert "Goes on from step" in server.log()
    assert not list((server.output / "mova_runs").iterdir())
    found = takes(server, "moved")
    assert [path.read_bytes() for path in found[:2]] == list(whole.values())
    assert not [path for path in (server.output / "mova_films").rglob("*") if path.name.startswith(".")]
    unkilled = server.run(film("unkilled", SIX, steps=STEPS, resume="off"))
    assert unkilled.status == "success", unkilled.message
    assert len(found) == len(takes(server, "unkilled")) == 6
    for one, other in zip(found, takes(server, "unkilled")):
        for name in TENSORS:
            kept, made_at_once = load_file(one.with_name(name)), load_file(other.with_name(name))
            assert kept.keys() == made_at_once.keys()
            assert all(torch.equal(kept[key], made_at_once[key]) for key in kept), (one, name)


def test_of_a_changed_film_two_shots_are_made_and_the_page_is_told_of_one_node(
    restarted: tuple[ComfyServer, Mapping[str, bytes]],
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


def test_a_film_for_a_recording_runs_as_its_file_says(restarted: tuple[ComfyServer, Mapping[str, bytes]]) -> None:
    server, _ = restarted
    seconds = torch.arange(3 * 48000) / 48000
    spoken = 0.3 * torch.sin(6000 * seconds) * ((seconds % 1.0) < 0.7)  # three words with pauses between
    write_mp4(server.input / "voice.mp4", torch.zeros(72, 32, 32, 3), 24, spoken[None], 48000)
    graph = small(api_graph(read("mova_film_voice")), steps=1, audio="voice.mp4")
    made = server.run(graph)
    assert made.status == "success", made.message
    headers = [json.loads(path.read_text()) for path in takes(server, "voice")]
    assert {header["shot"] for header in headers} == {"close", "wide", "hands"}
    (joined,) = (server.output / "mova_films" / "voice").glob("film_*.mp4")
    facts = describe_mp4(joined)
    assert facts["frames"] == sum(header["frames"] - header["held"] for header in headers)
    assert facts["frames"] == pytest.approx(72, abs=4)


def test_a_cancelled_run_goes_on_from_its_last_step(restarted: tuple[ComfyServer, Mapping[str, bytes]]) -> None:
    server, _ = restarted
    graph = small(api_graph(read("mova_image_to_video_audio")), steps=200, resume="on")
    running = server.queue(graph)
    server.wait_event("progress", prompt_id=running, value=20)
    server.interrupt(running)
    assert server.wait(running).status == "interrupted"
    again = server.queue(graph)
    server.wait_event("progress", prompt_id=again, value=30)
    server.interrupt(again)
    stopped = server.wait(again)
    assert stopped.status == "interrupted"
    assert min(data["value"] for data in stopped.of("progress") if data["value"]) >= 20
    shutil.rmtree(server.output / "mova_runs")
