"""Nothing is imported but what every ComfyUI requires, the oldest supported and the newest read, or requirements.txt.

comfyui_requirements.json holds what those two ComfyUIs require, by name, with the commits they were read at.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTS = json.loads(Path(__file__).with_name("comfyui_requirements.json").read_text(encoding="utf-8"))
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfyui_version"}
COMFYUI |= {"folder_paths", "latent_preview", "node_helpers", "nodes", "server"}
PACKAGES = {"PIL": "pillow", "yaml": "pyyaml"}  # package of a module, where it is called otherwise
NEWER = "nodes/host/newer.py"  # may ask for what not every ComfyUI has, and go on without


OPTIONAL = {"nodes/host/meters/faces.py": {"cv2"}}  # asked for where it is installed, and done without


def own() -> set[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {re.split(r"[<>=~! ]", line)[0].lower() for line in lines if line and not line.startswith("#")}


def foreign(source: str) -> Iterator[tuple[str, bool]]:
    """Top-level modules from outside that are imported anywhere in a source, and whether failing is provided for."""
    tree = ast.parse(source)
    tried = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type) for h in node.handlers if h.type)
        for child in node.body
        for inner in ast.walk(child)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in COMFYUI:
                yield top, id(node) in tried


def lacking(path: str, source: str) -> set[str]:
    """Modules that one of the two ComfyUIs and requirements.txt do not bring."""
    listed = [set(of["packages"]) | own() for of in LISTS.values()]
    found = set()
    for top, tried in foreign(source):
        having = [PACKAGES.get(top, top).replace("_", "-").lower() in packages for packages in listed]
        optional = tried and (top in OPTIONAL.get(path, ()) or (path == NEWER and any(having)))
        if not all(having) and not optional:
            found.add(top)
    return found


def modules() -> list[Path]:
    return [ROOT / "__init__.py", *(p for part in ("mova_core", "nodes") for p in sorted((ROOT / part).rglob("*.py")))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_import_comes_with_comfyui_or_with_the_pack(path: Path) -> None:
    assert lacking(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nodes/host/loaders/audio_vae.py", "import torchaudio"),
        (
            "nodes/host/loaders/audio_vae.py",
            "def f():\n    try:\n        import torchaudio\n    except ImportError:\n        pass",
        ),
        (NEWER, "import torchaudio"),
        (NEWER, "try:\n    import soundfile\nexcept ImportError:\n    pass"),
        ("mova_core/text.py", "from diffusers.models import x"),
        ("nodes/host/meters/faces.py", "import cv2"),
        ("nodes/host/media/video.py", "try:\n    import cv2\nexcept ImportError:\n    pass"),
    ],
)
def test_an_import_that_nobody_brings_is_caught(path: str, source: str) -> None:
    assert lacking(path, source)


def test_what_is_brought_is_not_caught() -> None:
    source = "import torch, PIL.Image, ftfy, av, json, comfy.ops\nfrom comfy_kitchen import x\nfrom . import y"
    assert lacking("nodes/host/model/base_model.py", source) == set()
    assert lacking(NEWER, "try:\n    import torchaudio\nexcept (ImportError, OSError):\n    pass") == set()


def test_the_newest_list_is_of_a_comfyui_without_torchaudio() -> None:
    """Else this test could not see what it is for."""
    assert "torchaudio" in LISTS["oldest"]["packages"]
    assert "torchaudio" not in LISTS["newest"]["packages"]
    assert all(re.fullmatch(r"[0-9a-f]{40}", of["commit"]) for of in LISTS.values())
