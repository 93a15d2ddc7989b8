"""ComfyUI inside the test process: imported on the CPU, with our pack loaded the way ComfyUI loads packs."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.comfy import COMFYUI, PACK


@dataclass(frozen=True)
class Pack:
    """The loaded pack.

    Attributes:
        package: its `__init__` module, under the name ComfyUI gives it.
        extension: what its `comfy_entrypoint` returned.
        nodes: node id -> node class.
    """

    package: ModuleType
    extension: Any
    nodes: Mapping[str, type]

    def module(self, name: str) -> ModuleType:
        """A module of the pack as its nodes see it: `pack.module("nodes.host")`."""
        return importlib.import_module(f"{self.package.__name__}.{name}")

    def run(self, node_id: str, **inputs: Any) -> tuple[Any, ...]:
        """Outputs of one node called directly: no validation, no defaults filled in."""
        output = self.nodes[node_id].execute(**inputs)
        if inspect.isawaitable(output):
            output = asyncio.run(awaited(output))
        return tuple(output.result or ())


async def awaited(value: Any) -> Any:
    return await value


def prepare_comfyui(base: Path) -> ModuleType:
    """Make ComfyUI importable in this process and return its `nodes` module.

    Its folders are put under `base`. Pytest's arguments are not parsed: without `main.py`, ComfyUI parses none.
    """
    assert COMFYUI is not None, "mark this test needs_comfy"
    sys.path.insert(0, str(COMFYUI))  # before the repository, whose `nodes` folder would hide ComfyUI's nodes.py
    from comfy.cli_args import args

    args.cpu, args.base_directory, args.disable_api_nodes = True, str(base), True
    args.database_url = "sqlite:///:memory:"
    for folder in ("models", "input", "output", "custom_nodes", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    import server

    import nodes

    found = Path(nodes.__file__ or "").parent
    assert found == COMFYUI, f"`nodes` was imported from {found} before ComfyUI; import our modules relatively"
    server.PromptServer(asyncio.new_event_loop())
    asyncio.run(nodes.init_public_apis())
    return nodes


def stock_nodes(nodes: ModuleType) -> dict[str, type]:
    """ComfyUI's own nodes by id, after loading comfy_extras."""
    asyncio.run(nodes.init_builtin_extra_nodes())
    return nodes.NODE_CLASS_MAPPINGS


def load_pack(nodes: ModuleType, folder: Path = PACK) -> Pack:
    """Load a V3 pack as ComfyUI's `load_custom_node` does, except that an exception is not swallowed."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec, f"{folder} has no __init__.py"
    assert spec.loader
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    extension, classes = asyncio.run(enter(package))
    found = {node.GET_SCHEMA().node_id: node for node in classes}
    nodes.NODE_CLASS_MAPPINGS.update(found)
    return Pack(package, extension, found)


async def enter(package: ModuleType) -> tuple[Any, list[Any]]:
    """The pack's extension and its node classes."""
    extension = package.comfy_entrypoint()
    if inspect.isawaitable(extension):
        extension = await extension
    await extension.on_load()
    return extension, await extension.get_node_list()
