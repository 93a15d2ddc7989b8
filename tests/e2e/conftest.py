"""One ComfyUI server with the pack, and one browser page on it, for all end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.soak import write_files
from tests.comfy import PACK
from tools.browser import Page
from tools.comfy_server import ComfyServer, place_pack

RECORDER = Path(__file__).parent / "network_record"
BENCH_PACK = Path(__file__).parent / "bench_pack"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack and what the soak needs, and with no other models yet."""
    base = tmp_path_factory.mktemp("server")
    write_files(base)
    place_pack(BENCH_PACK, base / "custom_nodes" / "bench")
    path = os.pathsep.join(filter(None, (str(RECORDER), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "NETWORK_RECORD": str(base / "network.txt")}
    with ComfyServer(base, pack=PACK, environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def page(server: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """ComfyUI's page in a browser. Load a workflow before looking: tests share the page."""
    with Page.open(server.url, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def network_attempts(server: ComfyServer) -> list[str]:
    """Every look of the server at the network beyond loopback so far."""
    record = server.base / "network.txt"
    return record.read_text().splitlines() if record.is_file() else []
