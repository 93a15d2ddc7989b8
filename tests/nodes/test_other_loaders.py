"""Files that the converter wrote, in ComfyUI's own loader: it takes an expert for Wan, and sound makes MOVA of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.quantization import FORMATS
from tests.comfy import needs_comfy
from tests.nodes.graph import Run, Scene, equal, error, sampled

pytestmark = needs_comfy

PARTS = ("video_dit", "video_dit_2", "shared", "merged")
Names = dict[str, str]


@pytest.fixture(scope="module", params=["bf16", *FORMATS])
def names(request: pytest.FixtureRequest, comfy_base: Path, diffusers: Path) -> Names:
    """Part -> its file in one precision, as the loaders list it."""
    files = convert(diffusers / "tiny", comfy_base / "models", precision=request.param, parts=PARTS, name="others")
    return {file.metadata["mova"]: file.path.name for file in files}


def wan(run: Run, name: str, weight_dtype: str = "default") -> Any:
    return run("UNETLoader", unet_name=name, weight_dtype=weight_dtype)[0]


def attached(run: Run, name: str, shared: str, weight_dtype: str = "default", **widgets: Any) -> Any:
    return run("MOVAAttachSound", model=wan(run, name, weight_dtype), shared=shared, **widgets)[0]


def joined(run: Run, high: Any, low: Any) -> Any:
    return run("MOVAJoinExperts", high_noise=high, low_noise=low, boundary=0.9)[0]


def ours(run: Run, names: Names) -> Any:
    files = {"high_noise": names["video_dit"], "low_noise": names["video_dit_2"], "shared": names["shared"]}
    return run("MOVAModelLoader", **files, weight_dtype="default")[0]


@pytest.mark.parametrize("part", ["video_dit", "video_dit_2", "merged"])
def test_comfyuis_own_loader_takes_every_converted_file_whole_for_wan(
    run: Run, names: Names, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = wan(run, names[part])
    assert type(model.model).__name__ == "WAN21"
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == (1 if part == "merged" else 0)
    for line in said:
        assert line.startswith("unet unexpected")
        assert all(f"'{prefix}." in line for prefix in ("audio_dit", "dual_tower_bridge", "video_dit_2"))


def test_with_sound_attached_the_two_experts_are_the_model(run: Run, scene: Scene, names: Names) -> None:
    high, low = (attached(run, names[part], names["shared"]) for part in ("video_dit", "video_dit_2"))
    assert equal(sampled(run, scene, joined(run, high, low)), sampled(run, scene, ours(run, names)))


def test_a_merged_file_serves_as_high_noise_expert_and_as_shared_file(run: Run, scene: Scene, names: Names) -> None:
    high = attached(run, names["merged"], names["merged"])
    low = attached(run, names["video_dit_2"], names["merged"])
    assert equal(sampled(run, scene, joined(run, high, low)), sampled(run, scene, ours(run, names)))


@pytest.mark.parametrize("names", ["bf16"], indirect=True)
@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_experts_that_comfyuis_loader_made_narrow_take_sound_too(
    run: Run, scene: Scene, names: Names, weight_dtype: str
) -> None:
    high, low = (attached(run, names[part], names["shared"], weight_dtype) for part in ("video_dit", "video_dit_2"))
    assert high.model.diffusion_model.blocks[0].ffn[0].weight.dtype.itemsize == 1
    assert 0 < error(sampled(run, scene, joined(run, high, low)), sampled(run, scene, ours(run, names))) < 0.15
