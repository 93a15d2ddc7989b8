"""Denies torchaudio to this pack and to nobody else, and gives ComfyUI the resampler of its newer versions.

`pytest -p tests.nodes.no_torchaudio tests/nodes` runs everything so. ComfyUI itself imports torchaudio where it has no
resampler of its own, so the module cannot simply be hidden.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest

from tests.comfy import PACK


def of_the_pack(name: str) -> bool:
    """Whether a module is this pack's, under whatever name ComfyUI or a test has loaded it."""
    file = getattr(sys.modules.get(name.split(".")[0]), "__file__", None) or ""
    return file == str(PACK / "__init__.py")


def denying(real: Callable[..., Any]) -> Callable[..., Any]:
    """An `__import__` for which torchaudio is not installed, where the pack asks."""

    def deny(name: str, globals: Mapping[str, Any] | None = None, *rest: Any, **more: Any) -> Any:  # noqa: A002 - as Python names it
        if name.split(".")[0] == "torchaudio" and of_the_pack(str((globals or {}).get("__name__", ""))):
            raise ModuleNotFoundError("No module named 'torchaudio'", name="torchaudio")
        return real(name, globals, *rest, **more)

    return deny


def core_audio() -> ModuleType:
    """`comfy.audio` as newer versions have it: there already, or the same function by torchaudio."""
    if importlib.util.find_spec("comfy.audio"):
        return importlib.import_module("comfy.audio")
    from torchaudio.functional import resample as torchaudio_resample

    def resample(
        waveform: Any,
        orig_freq: int,
        new_freq: int,
        lowpass_filter_width: int = 6,
        rolloff: float = 0.99,
        resampling_method: str = "sinc_interp_hann",
        beta: float | None = None,
    ) -> Any:
        return torchaudio_resample(
            waveform, orig_freq, new_freq, lowpass_filter_width, rolloff, resampling_method, beta
        )

    module = ModuleType("comfy.audio")
    module.resample = resample  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="session", autouse=True)
def _no_torchaudio(comfy_nodes: ModuleType) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "__import__", denying(builtins.__import__))
        patch.setitem(sys.modules, "comfy.audio", core_audio())
        yield
