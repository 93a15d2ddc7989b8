"""A ComfyUI that lacks something the pack needs is told so, with its version and the one that is needed."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.comfy import PACK, needs_comfy

pytestmark = needs_comfy
NAME = "mova_in_an_old_comfyui"


@pytest.fixture
def package(comfy_nodes: ModuleType) -> Iterator[ModuleType]:
    """The pack imported afresh under a name of its own."""
    spec = importlib.util.spec_from_file_location(NAME, PACK / "__init__.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        del sys.modules[name]


@pytest.mark.parametrize("lacking", ["comfy.nested_tensor", "comfy.model_prefetch", "comfy_api.latest"])
def test_what_is_missing_is_named_with_both_versions(
    package: ModuleType, lacking: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.setattr(sys.modules["comfyui_version"], "__version__", "0.3.50")
    with pytest.raises(ImportError, match=re.escape(lacking)) as caught:
        asyncio.run(package.comfy_entrypoint())
    assert "This is ComfyUI 0.3.50, and they need 0.33.0 or newer" in str(caught.value)
    assert "Traceback" in caplog.text


def test_the_version_asked_for_is_the_one_the_registry_is_told() -> None:
    needed = re.search(r'requires-comfyui = ">=([\d.]+)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"))
    source = (PACK / "__init__.py").read_text(encoding="utf-8")
    assert needed
    assert f'NEEDED = "{needed[1]}"' in source


def test_the_help_pages_lie_where_the_pack_says(package: ModuleType) -> None:
    assert (Path(PACK) / package.WEB_DIRECTORY / "docs").is_dir()
