"""The arrows between modules, and what no module may do, read from the source. Each rule is shown to catch its case."""

import ast
import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layers import HOST_LAYERS, LAYERS

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"torch", "safetensors", "ftfy", "PIL"}  # what mova_core may need beside the standard library
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}
HOST_HEIGHT = {part: height for height, parts in enumerate(HOST_LAYERS) for part in parts}
ALONE = {  # what one module of the core may import, beside OUTSIDE: comfy_kitchen in a function that uses it
    "mova_core/checkpoint/kitchen.py": "comfy_kitchen",
    "mova_core/mp4.py": "av",
    "mova_core/checkpoint/convert/command.py": "tqdm",
    "mova_core/checkpoint/convert/work.py": "tqdm",
}
NEVER = {"ctypes", "diffusers", "einops", "http", "huggingface_hub", "marshal", "multiprocessing", "numpy", "pickle"}
NEVER |= {"requests", "shelve", "socket", "subprocess", "transformers", "urllib", "runpy", "importlib"}
CLOSURES = {"getclosurevars", "cell_contents", "__closure__"}
COPIES_FUNCTIONS = "nodes/host/patching/namesakes.py"  # hands a closure on, unread, to one with other defaults
CALLS = {"print", "eval", "exec", "compile", "__import__", "breakpoint", "input"}


def imports(path: str, tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every module imported, as a dotted name from the root of the repository or from outside, and whether ours."""
    package = path.split("/")[:-1]
    for node in ast.walk(_run(tree)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module]), True
            else:
                yield from ((".".join([*base, alias.name]), True) for alias in node.names)


def _run(tree: ast.AST) -> ast.AST:
    """Without what is imported for type checkers alone: keys may name the types of what lies under them."""

    class Run(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    return Run().visit(copy.deepcopy(tree))


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with a module of the pack at `path`, relative to the repository."""
    tree, found = ast.parse(source), []
    for name, ours in imports(path, tree):
        top = name.split(".")[0]
        if top in NEVER or (not ours and top in ("mova_core", "tests", "tools")):
            found.append(f"imports {name}")
        elif path.startswith("mova_core/"):
            found += _core(path, name, ours)
        elif ours and path.startswith("nodes/host") and top == "nodes":
            found += _host(path, name)
        elif not ours and not path.startswith("nodes/host"):
            api = name.startswith("comfy_api.latest") and path.startswith("nodes/")
            if not (api or top == "torch" or top in sys.stdlib_module_names):
                found.append(f"imports {name} beside the host")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.append(f"global {node.names}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append(f"calls {node.func.id}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.hub.load", "os.system"):
            found.append(f"calls {ast.unparse(node.func)}")
        elif isinstance(node, ast.Attribute) and node.attr in CLOSURES - _allowed(path):
            found.append(f"reads a closure: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and node.attr == "__class__" and isinstance(node.ctx, ast.Store):
            found.append(f"swaps a class: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and node.attr == "cuda" and not path.startswith("nodes/host"):
            found.append(f"names a device: {ast.unparse(node)}")
    return found


def _allowed(path: str) -> set[str]:
    return {"__closure__"} if path == COPIES_FUNCTIONS else set()


def _core(path: str, name: str, ours: bool) -> list[str]:
    if not ours:
        top = name.split(".")[0]
        known = top in OUTSIDE or top in sys.stdlib_module_names or top == ALONE.get(path)
        return [] if known else [f"imports {name}"]
    package, other = f"{name}..".split(".")[:2]
    own = path.split("/")[1].removesuffix(".py")
    if package != "mova_core" or not {own, other} <= HEIGHT.keys():
        return [f"imports {name}, which has no place in LAYERS"]
    return [] if own == other or HEIGHT[other] < HEIGHT[own] else [f"{own} imports {name}, which is not below it"]


def _host(path: str, name: str) -> list[str]:
    _, host, other = f"{name}..".split(".")[:3]
    own = path.split("/")[2].removesuffix(".py")
    if host != "host":
        return [f"the host imports {name}"]
    if not {own, other} <= HOST_HEIGHT.keys():
        return [f"imports {name}, which has no place in HOST_LAYERS"]
    return (
        []
        if own == other or HOST_HEIGHT[other] < HOST_HEIGHT[own]
        else [f"{own} imports {name}, which is not below it"]
    )


def test_no_test_module_imports_another() -> None:
    """What two need stands in tests/fixtures, a conftest.py, or a module beside them."""
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {ast.unparse(node)}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and re.search(r"\btest_\w+", ast.unparse(node))
    ]
    assert found == []


def modules() -> list[Path]:
    return [ROOT / "__init__.py", *(p for part in ("mova_core", "nodes") for p in sorted((ROOT / part).rglob("*.py")))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_keeps_the_rules(path):
    assert complaints(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mova_core/model/mova.py", "import comfy.ops"),
        ("mova_core/model/mova.py", "def f():\n    from comfy_api.latest import io"),
        ("mova_core/model/mova.py", "import folder_paths"),
        ("mova_core/model/mova.py", "import numpy as np"),
        ("mova_core/model/mova.py", "import mova_core.ops"),
        ("mova_core/model/mova.py", "from mova_core.ops import cast"),
        ("mova_core/model/mova.py", "from ..checkpoint.files import read_header"),
        ("mova_core/model/mova.py", "from ..sampling import schedule"),
        ("mova_core/sampling/sampler.py", "from ..model.mova import Mova"),
        ("mova_core/sampling/sampler.py", "from .. import model"),
        ("mova_core/checkpoint/load.py", "from ...nodes import host"),
        ("mova_core/config.py", "from .ops import cast"),
        ("mova_core/errors.py", "from . import config"),
        ("mova_core/newcomer.py", "from . import config"),
        ("mova_core/text.py", "import transformers"),
        ("mova_core/checkpoint/files.py", "import pickle"),
        ("mova_core/checkpoint/files.py", "import torch\ntorch.load('x')"),
        ("mova_core/checkpoint/files.py", "import torch\ntorch.load('x', weights_only=True)"),
        ("mova_core/checkpoint/lora_files.py", "import torch\ntorch.load('x', weights_only=True)"),
        ("mova_core/checkpoint/files.py", "from urllib.request import urlopen"),
        ("mova_core/checkpoint/files.py", "exec('1')"),
        ("mova_core/checkpoint/files.py", "__import__('os')"),
        ("mova_core/segments.py", "import av"),
        ("mova_core/ops.py", "COUNT = 0\ndef f():\n    global COUNT\n    COUNT = 1"),
        ("mova_core/ops.py", "import torch\nx = torch.ones(1).cuda"),
        ("nodes/sampling.py", "import comfy.samplers"),
        ("nodes/sampling.py", "import folder_paths"),
        ("nodes/sampling.py", "from nodes import NODE_CLASS_MAPPINGS"),
        ("nodes/sampling.py", "from mova_core.shapes import audio_steps"),
        ("nodes/sampling.py", "import torch\ntorch.cuda.empty_cache()"),
        ("nodes/sampling.py", "print('hello')"),
        ("nodes/host/model/base_model.py", "import requests"),
        ("nodes/host/model/base_model.py", "from mova_core.ops import cast"),
        ("nodes/host/model/base_model.py", "from ...sampling import MovaSampler"),
        ("nodes/host/model/base_model.py", "from ..experts import pair"),
        ("nodes/host/patching/patcher.py", "from ..model.memory import plan"),
        ("nodes/host/types.py", "from .keys import Options"),
        ("nodes/host/newcomer.py", "from .keys import Options"),
        ("nodes/host.py", "import subprocess"),
        ("nodes/host/experts/pair.py", "import inspect\ninspect.getclosurevars(f)"),
        ("nodes/host/experts/pair.py", "f.__closure__[0].cell_contents"),
        ("nodes/host/patching/namesakes.py", "f.__closure__[0].cell_contents"),
        ("nodes/host/patching/patcher.py", "made.__class__ = Other"),
        ("__init__.py", "import comfy"),
        ("__init__.py", "eval('1')"),
    ],
)
def test_a_broken_rule_is_caught(path, source):
    assert complaints(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mova_core/sampling/sampler.py", "from .schedule import sigmas\nfrom ..errors import ShapeError"),
        ("mova_core/checkpoint/load.py", "from . import configs\nfrom ..model.mova import Mova\nmodel.eval()"),
        ("mova_core/checkpoint/convert.py", "import json, safetensors.torch\nfrom ..config import MOVA"),
        ("nodes/sampling.py", "from comfy_api.latest import io\nfrom . import host\nfrom ..mova_core import shapes"),
        ("nodes/host/model/base_model.py", "import comfy.ops, folder_paths\nfrom ....mova_core.model.mova import Mova"),
        ("nodes/host/films/film.py", "from ..kept.fingerprints import digest\nfrom ..kept.graph import Graph"),
        ("__init__.py", "async def comfy_entrypoint():\n    from .nodes import MovaExtension"),
    ],
)
def test_what_is_allowed_is_not_caught(path, source):
    assert complaints(path, source) == []


def test_looking_at_the_pack_imports_no_node():
    body = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    top = ast.Module(body=[node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], type_ignores=[])
    assert all(name in sys.stdlib_module_names for name, _ in imports("__init__.py", top))


def test_installing_the_pack_replaces_nothing_that_comfyui_brings():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    needed = {line.split("#")[0].strip() for line in lines} - {""}
    assert needed <= {"ftfy", "pyloudnorm"}
