"""Prism's quantised layers and joint forward against tensors that its branch computed."""

import json

import pytest
import torch
from safetensors import safe_open

from mova_core.checkpoint.layouts import with_formats
from mova_core.checkpoint.load import assign
from mova_core.checkpoint.quantization import dequantized
from mova_core.checkpoint.source import from_files, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE, HIGH, LOW
from mova_core.model.mova import Mova
from mova_core.sampling import av_schedule
from tests.golden import PRISM, larger, relative_error
from tests.golden import tensors as here

PARTS = ("weight", "weight_scale", "comfy_quant", "weight.prism_scale")
CASES = {
    "high_T5_fps24": (HIGH, 24.0),
    "high_T9_fps25": (HIGH, 25.0),
    "low_T5_fps25": (LOW, 25.0),
    "low_T9_fps24": (LOW, 24.0),
    "low_one_prompt": (LOW, 24.0),
}


def tensors(name: str) -> dict[str, torch.Tensor]:
    with safe_open(PRISM / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping


def header(name: str) -> dict[str, str]:
    with safe_open(PRISM / f"{name}.safetensors", framework="pt") as file:
        return file.metadata()


def test_quantised_layers_stand_for_the_weights_that_the_branch_computes_with():
    held, _ = here("prism_quant")
    layers = {key: value for key, value in held.items() if key.startswith(("convrot.", "fp8.")) and "plain" not in key}
    layers = {key: value for key, value in layers.items() if key.split(".", 1)[1] in PARTS}
    read = dequantized(with_formats(layers, {}, "quant"), torch.float32)
    assert relative_error(read["convrot.weight"], held["convrot.plain"].float()) < 1e-6
    read = dequantized(with_formats(layers, {}, "quant"), torch.bfloat16)
    assert torch.equal(read["fp8.weight"], held["fp8.plain"])


def model_of(expert: str) -> Mova:
    source = from_files(PRISM / "weights.safetensors")
    assert source.variant.name == "Prism"
    model = Mova(source.model, device="meta")
    weights = joint_names(source.tensors(expert, AUDIO, BRIDGE))
    assign(model, {key: value.float() for key, value in weights.items()}, "weights")
    return model


def case(name: str) -> dict[str, torch.Tensor]:
    held = tensors("forward").items()
    return {key.removeprefix(f"{name}/"): value.float() for key, value in held if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", [larger(name, folder=PRISM) for name in CASES])
def test_a_file_of_prisms_layout_computes_what_the_branch_computes(name: str):
    expert, fps = CASES[name]
    held = case(name)
    times = held["in.video_time"], held["in.audio_time"]
    with torch.inference_mode():
        video, audio = model_of(expert)(
            *(held[f"in.{part}"] for part in ("video", "audio", "context")),
            *times,
            condition=held["in.reference"],
            fps=fps,
            audio_context=held.get("in.audio_context"),
        )
    assert relative_error(video, held["out.video"]) < 5e-6
    assert relative_error(audio, held["out.audio"]) < 5e-6


CARRIED = {"carried_high": (HIGH, 0.96, (9.0, 7.0)), "carried_low": (LOW, 0.5, (13.0, 7.0))}


@pytest.mark.parametrize("name", [larger(name, folder=PRISM) for name in CARRIED])
def test_audio_on_the_videos_schedule_is_denoised_as_the_branch_does(name: str):
    """The branch rounds 1000 * sigma to float32, hence 2e-5."""
    expert, sigma, shifts = CARRIED[name]
    config = json.loads(header("forward")["config"])["cases"][name]
    assert (config["sigma"], tuple(config["shifts"])) == (sigma, shifts)
    given, held, level = case("carried"), case(name), torch.tensor([sigma])
    own = av_schedule.audio_sigma(level, shifts)
    audio = av_schedule.unscaled(given["in.audio"], level, own, shifts, clean=False)
    with torch.inference_mode():
        velocities = model_of(expert)(
            given["in.video"],
            audio,
            given["in.context"],
            1000 * level,
            1000 * own,
            condition=given["in.reference"],
            fps=config["fps"],
            audio_context=given["in.audio_context"],
        )
    video = given["in.video"] - sigma * velocities[0]
    scaled = given["in.audio"] - sigma * av_schedule.scaled_velocity(audio, velocities[1], own, shifts)
    assert relative_error(video, held["denoised.video"]) < 2e-5
    assert relative_error(scaled, held["denoised.carried_audio"]) < 2e-5
