"""The training benchmark's own logic, on the CPU at tiny size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, gpu_train
from benchmarks.peak import Clip
from mova_core.config import MovaConfig
from mova_core.ops import Runtime
from mova_core.shapes import DEFAULT_FPS
from mova_core.training.step import training_step
from tests.fixtures.tiny_model import tiny_config

CPU = torch.device("cpu")
CLIP = Clip(height=32, width=48, frames=9)


@pytest.fixture
def config() -> MovaConfig:
    tiny = tiny_config()
    return replace(tiny, video=replace(tiny.video, in_channels=36, out_channels=16))


def test_every_run_of_the_table_is_made_and_is_a_row(config: MovaConfig) -> None:
    model = gpu.random_model(config, CPU, torch.float32)
    found = [row for stream in (True, False) for row in gpu_train.steps(model, [CLIP], CPU, 1, stream, rank=2)]
    names = [f"48x32, 9 pictures, {how}" for how in ("streamed, whole", "streamed, low", "resident, whole")]
    assert [each.name for each in found] == names
    for each in found:
        assert each.seconds > each.forward > 0
        assert each.row().count("|") == gpu_train.HEADING.splitlines()[0].count("|")


def test_streamed_weights_and_shelved_states_give_the_gradients_of_resident_ones(config: MovaConfig) -> None:
    model = gpu.random_model(config, CPU, torch.float32)
    inputs = gpu.random_inputs(CLIP, config, torch.float32, CPU)
    noise = {f"{s}_noise": torch.randn_like(inputs[f"{s}_latents"]) for s in ("video", "audio")}
    gradients = []
    for streamed in (False, True):
        adapters, shelf = gpu_train.adapters_of(model, CPU, 2), gpu_train.Pinned(CPU)
        run = Runtime(prefetch=gpu.Streamed(CPU)) if streamed else Runtime()
        more = {"shelf": lambda shelf=shelf: shelf} if streamed else {}
        training_step(model, adapters, **inputs, **noise, fps=DEFAULT_FPS, runtime=run, **more)  # type: ignore[arg-type]
        gradients.append([p.grad for _, p in adapters.named_parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
