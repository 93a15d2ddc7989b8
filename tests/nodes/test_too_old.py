"""Where the nodes cannot be loaded, the log says which module it is, and what to do about that one."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.comfy import COMFYUI, PACK, needs_comfy

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


def refusal(package: ModuleType) -> str:
    with pytest.raises(ImportError) as caught:
        asyncio.run(package.comfy_entrypoint())
    return str(caught.value)


@pytest.mark.parametrize("lacking", ["comfy.nested_tensor", "comfy.model_prefetch", "comfy_api.latest"])
def test_a_missing_part_of_comfyui_is_named_with_both_versions(
    package: ModuleType, lacking: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.setattr(sys.modules["comfyui_version"], "__version__", "0.3.50")
    message = refusal(package)
    assert f"{lacking} is part of ComfyUI. This is ComfyUI 0.3.50, and the MOVA nodes need 0.34.0 or newer" in message
    assert "Traceback" in caplog.text


def test_what_a_part_of_comfyui_lacks_is_no_package(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("comfy.samplers.KSampler.SAMPLERS")
    assert "comfy.samplers is part of ComfyUI" in refusal(package)


def test_a_comfyui_that_would_show_held_sound_noised_is_refused(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was at the release of 0.33.0; checkouts that bear that number and have what is asked for load."""
    monkeypatch.setattr(sys.modules["comfyui_version"], "__version__", "0.33.0")
    assert asyncio.run(package.comfy_entrypoint()) is not None
    monkeypatch.delattr("comfy.latent_formats.LatentFormat.fix_empty_latent")
    message = refusal(package)
    assert "fix_empty_latent" in message
    assert "the MOVA nodes need 0.34.0 or newer: update ComfyUI" in message


@pytest.mark.parametrize(
    ("lacking", "whose", "requirements"),
    [
        ("ftfy", "this pack", PACK / "requirements.txt"),
        ("av", "ComfyUI", (COMFYUI or PACK) / "requirements.txt"),
        ("tokenizers", "ComfyUI", (COMFYUI or PACK) / "requirements.txt"),
    ],
)
def test_a_missing_package_comes_with_the_command_that_installs_it(
    package: ModuleType, lacking: str, whose: str, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    message = refusal(package)
    assert f"{lacking} is a package that {whose} requires" in message
    assert f'"{sys.executable}" -m pip install -r "{requirements}"' in message
    assert "update ComfyUI" not in message


def test_a_missing_file_of_the_pack_is_its_own_fault(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"{NAME}.mova_core.shapes", None)
    assert "mova_core.shapes is a file of this pack: install the pack again" in refusal(package)


def test_an_error_that_names_no_module_leaves_the_traceback(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy.latent_formats.LatentFormat", None)
    monkeypatch.setattr(sys.modules["comfyui_version"], "__version__", "0.99.0")
    assert "This is ComfyUI 0.99.0" in refusal(package)


def test_the_version_asked_for_is_the_one_the_registry_is_told() -> None:
    needed = re.search(r'requires-comfyui = ">=([\d.]+)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"))
    source = (PACK / "__init__.py").read_text(encoding="utf-8")
    assert needed
    assert f'NEEDED = "{needed[1]}"' in source


def test_the_help_pages_lie_where_the_pack_says(package: ModuleType) -> None:
    assert (Path(PACK) / package.WEB_DIRECTORY / "docs").is_dir()
