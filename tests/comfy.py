"""Which tests need a real ComfyUI, and what happens where there is none.

A test marked `needs_comfy` (or `needs_browser`) is skipped there, by the hooks of tests/conftest.py, and the summary
counts it; with MOVA_REQUIRE_COMFYUI=1 (MOVA_REQUIRE_BROWSER=1) it fails instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.comfy.browser import find_chromium
from tools.comfy.find import find_comfyui

COMFYUI: Path | None = find_comfyui()
CHROMIUM: str | None = find_chromium()
PACK = Path(__file__).resolve().parents[1]

needs_comfy = pytest.mark.comfy
needs_browser = pytest.mark.browser

NO_COMFYUI = "no ComfyUI checkout (COMFYUI_PATH, else ~/comfy/ComfyUI)"
NO_BROWSER = "no Chromium, Chrome or Edge (CHROMIUM_PATH, else the search path)"


def wanting(item: pytest.Item) -> tuple[str, str] | None:
    """What a test needs and this machine lacks: the reason, and the variable that makes it a failure."""
    marks = {mark.name for mark in item.iter_markers()}
    if COMFYUI is None and marks & {"comfy", "browser"}:
        return NO_COMFYUI, "MOVA_REQUIRE_COMFYUI"
    if CHROMIUM is None and "browser" in marks:
        return NO_BROWSER, "MOVA_REQUIRE_BROWSER"
    return None


def skip_or_fail(item: pytest.Item) -> None:
    """Skip a test that needs what is not here, or fail it where that is required to be here."""
    if lack := wanting(item):
        reason, required = lack
        if os.environ.get(required) == "1":
            pytest.fail(f"{reason}, and {required}=1", pytrace=False)
        pytest.skip(reason)
