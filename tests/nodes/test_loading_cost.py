"""Loading maps files: no copy, shared parts once, and what is let go is gone."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch

from benchmarks.loader import fresh, make_folder
from tests.comfy import needs_comfy
from tests.in_process import Pack

pytestmark = [needs_comfy, pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")]

PYTHON_OBJECTS = 60e6  # bytes of modules, names and headers for some 4000 weights, whatever their size


def test_a_folder_is_mapped_and_not_copied(tmp_path: Path) -> None:
    """In a process of its own. benchmarks/RESULTS.md has the same for 2.5 GB."""
    cost = fresh(make_folder(tmp_path / "folder", 0.4))
    assert cost["bytes"] > 3e8
    assert cost["mapped twice"] == 0
    assert cost["anonymous"] * cost["bytes"] < PYTHON_OBJECTS
    assert cost["anonymous after use"] * cost["bytes"] < PYTHON_OBJECTS
    assert cost["peak"] < 1 + 2 * PYTHON_OBJECTS / cost["bytes"]


def test_a_folder_that_is_let_go_is_unmapped(pack: Pack, tmp_path: Path) -> None:
    """360p, then 720p, then 360p again, as a user switches: each time the other folder's weights and maps are gone."""
    from comfy import model_management

    loading = pack.module("nodes.host.loaders.loading")
    source = pack.module("mova_core.checkpoint.source")
    folders = {name: make_folder(tmp_path / name, 0.06) for name in ("360p", "720p")}

    def mapped() -> set[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {name for name, folder in folders.items() if any(str(folder) in line for line in lines)}

    with torch.inference_mode():
        model, earlier = None, None
        for name in ("360p", "720p", "360p"):
            model = loading.load_model(source.from_folder(folders[name]))
            model_management.load_models_gpu([model, model.low])
            if earlier is not None:
                model_management.cleanup_models_gc()
            gc.collect()
            assert mapped() == {name}
            assert earlier is None or not [tensor for tensor in earlier if tensor() is not None]
            towers = (model.model.diffusion_model, model.low.model.diffusion_model)
            earlier = [weakref.ref(parameter) for tower in towers for parameter in tower.parameters()]
            del towers
