"""One ComfyUI server with the pack, and one browser page on it, for all end-to-end tests.

A clip that plays keeps a core busy: it is paused after each test, and the page is closed after the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.soak import write_files
from tests.comfy import PACK
from tests.fixtures.single_files import write_single_files
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.tiny_companions import write_companions
from tests.fixtures.tiny_lora import write_tiny_lora
from tools.comfy.browser import chromium
from tools.comfy.page import Page
from tools.comfy.server import ComfyServer
from tools.comfy.starting import place_pack

from .graphs import MODEL, NAMES, api_graph, read, write_inputs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RECORDER = Path(__file__).parent / "network_record"
BENCH_PACK = Path(__file__).parent / "bench_pack"
FRONTEND = os.environ.get("MOVA_FRONTEND")  # the `static` folder of a comfyui-frontend-package other than ComfyUI's own


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack and what the soak needs, and with no other models yet."""
    base = tmp_path_factory.mktemp("server")
    write_files(base)
    place_pack(BENCH_PACK, base / "custom_nodes" / "bench")
    path = os.pathsep.join(filter(None, (str(RECORDER), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "NETWORK_RECORD": str(base / "network.txt")}
    frontend = ["--front-end-root", FRONTEND] if FRONTEND else []
    with ComfyServer(base, pack=PACK, environment=environment, arguments=frontend) as running:
        yield running


@pytest.fixture(scope="package")
def comfy(server: ComfyServer) -> ComfyServer:
    """The server with models where the workflows look for them, and with pictures, a sound and a clip."""
    write_tiny_checkpoint(server.models / "diffusers" / MODEL)
    write_single_files(server.models)
    for node in (node for name in NAMES for node in api_graph(read(name)).values()):
        if "lora_name" in node["inputs"]:
            write_tiny_lora(server.models / "loras" / node["inputs"]["lora_name"])
    write_companions(server.models)
    write_inputs(server.input)
    return server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def shared_page(comfy: ComfyServer, browser: Browser) -> Iterator[Page]:
    with Page.open(browser, comfy.url) as opened:
        yield opened


@pytest.fixture
def page(shared_page: Page) -> Iterator[Page]:
    """ComfyUI's page in a browser, knowing of all models. Load a workflow before looking: tests share the page."""
    yield shared_page
    shared_page.evaluate("document.querySelectorAll('video').forEach((video) => video.pause())")


def network_attempts(server: ComfyServer) -> list[str]:
    """Every look of the server at the network beyond loopback so far."""
    record = server.base / "network.txt"
    return record.read_text().splitlines() if record.is_file() else []
