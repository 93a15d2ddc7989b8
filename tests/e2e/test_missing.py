"""What a workflow names and the machine lacks is told when the workflow is opened, before Run."""

from __future__ import annotations

import json

import pytest

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.page import Page
from tools.templates.library import TEMPLATES

from .graphs import MODEL, Workflow, read

pytestmark = [needs_comfy, needs_browser]

FIRST, FILES = "mova_image_to_video_audio", "mova_single_files"
ABSENT, ADDRESS = "MOVA-720p", "https://huggingface.co/OpenMOSS-Team/MOVA-720p"


def naming(name: str, old: str, new: str) -> Workflow:
    """A workflow with every `old` as `new`."""
    return json.loads(json.dumps(read(name)).replace(old, new))


def told(page: Page) -> str:
    """All words of the page: frontends differ in how they build a message."""
    page.settle(1)  # a message that goes fades
    return page.evaluate("document.body.innerText")


@pytest.mark.parametrize("name", [FIRST, *(key for key, template in TEMPLATES.items() if template.app)])
def test_a_missing_folder_is_told_with_its_size_its_address_and_the_command(page: Page, name: str) -> None:
    page.load(naming(name, MODEL, ABSENT), f"{name} absent")
    words = told(page)
    assert f"{ABSENT} belongs in models/diffusers (73 GiB), from {ADDRESS}" in words
    assert f"hf download OpenMOSS-Team/{ABSENT} --local-dir models/diffusers/{ABSENT}" in words
    page.load(read(name), name)
    assert "MOVA: not here yet" not in told(page)


def test_converted_files_are_told_one_by_one_with_the_command_that_makes_them(page: Page) -> None:
    page.load(naming(FILES, "mova_360p_", "mova_720p_"), "files absent")
    words = told(page)
    for part in ("high_noise_fp8", "low_noise_fp8", "shared_fp8", "audio_vae"):
        assert f"mova_720p_{part}.safetensors: converted from the folder" in words
    assert "python -m mova_core.checkpoint.convert" in words
    page.load(read(FILES), FILES)
    assert "MOVA: not here yet" not in told(page)
