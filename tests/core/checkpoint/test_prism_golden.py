"""Prism's quantised layers and joint forward against tensors that its branch computed."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mova_core.checkpoint.layouts import with_formats
from mova_core.checkpoint.load import assign
from mova_core.checkpoint.quantization import dequantized
from mova_core.checkpoint.source import from_files, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE, HIGH, LOW
from mova_core.model.mova import Mova
from tests.golden import GOLDEN, relative_error

PRISM = GOLDEN.parent / "golden_prism"
pytestmark = pytest.mark.skipif(not PRISM.is_dir(), reason=f"NOT CHECKED AGAINST PRISM'S BRANCH: no {PRISM}")


def tensors(name: str) -> dict[str, torch.Tensor]:
    with safe_open(PRISM / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping


def test_quantised_layers_stand_for_the_weights_that_the_branch_computes_with():
    held = tensors("quant")
    layers = {key: value for key, value in held.items() if key.startswith(("convrot.", "fp8.")) and "plain" not in key}
    layers = {key: value for key, value in layers.items() if key.split(".", 1)[1] in PARTS}
    read = dequantized(with_formats(layers, {}, "quant"), torch.float32)
    assert relative_error(read["convrot.weight"], held["convrot.plain"].float()) < 1e-6
    read = dequantized(with_formats(layers, {}, "quant"), torch.bfloat16)
    assert torch.equal(read["fp8.weight"], held["fp8.plain"])


PARTS = ("weight", "weight_scale", "comfy_quant", "weight.prism_scale")
CASES = {"high_T5_fps24": (HIGH, 24.0), "low_T5_fps25": (LOW, 25.0)}


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_prisms_layout_computes_what_the_branch_computes(case: str, tmp_path: Path):
    expert, fps = CASES[case]
    source = from_files(PRISM / "weights.safetensors")
    assert source.variant.name == "Prism"
    model = Mova(source.model, device="meta")
    weights = joint_names(source.tensors(expert, AUDIO, BRIDGE))
    assign(model, {key: value.float() for key, value in weights.items()}, "weights")
    held = {
        key.removeprefix(f"{case}/"): value.float() for key, value in tensors("forward").items() if key.startswith(case)
    }
    with torch.inference_mode():
        video, audio = model(
            held["in.video"],
            held["in.audio"],
            held["in.context"],
            held["in.video_time"],
            held["in.audio_time"],
            condition=held["in.reference"],
            fps=fps,
            audio_context=held["in.audio_context"],
        )
    assert relative_error(video, held["out.video"]) < 5e-6
    assert relative_error(audio, held["out.audio"]) < 5e-6
