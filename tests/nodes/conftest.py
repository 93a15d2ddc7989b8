"""ComfyUI and the pack in this process, on the CPU, for unit tests of nodes. Mark those tests `needs_comfy`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.in_process import Pack, load_pack, prepare_comfyui, stock_nodes


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base directory of the ComfyUI in this process: `models`, `input` and `output` lie in it."""
    return tmp_path_factory.mktemp("comfy")


@pytest.fixture(scope="session")
def comfy_nodes(comfy_base: Path) -> ModuleType:
    """ComfyUI's own `nodes` module, with `comfy` importable."""
    return prepare_comfyui(comfy_base)


@pytest.fixture(scope="session")
def stock(comfy_nodes: ModuleType) -> dict[str, type]:
    """ComfyUI's own nodes by id, those of comfy_extras included."""
    return stock_nodes(comfy_nodes)


@pytest.fixture(scope="session")
def pack(comfy_nodes: ModuleType) -> Pack:
    """This pack, loaded as ComfyUI loads a custom node pack."""
    return load_pack(comfy_nodes)
