"""A training step on a CUDA device: its gradients are those of the CPU, streamed from the host or not."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import Streamed, ends_to, random_inputs, random_model
from benchmarks.gpu_train import Pinned, adapters_of
from benchmarks.peak import Clip
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import DEFAULT_FPS
from mova_core.training.step import training_step
from tests.fixtures.tiny_model import tiny_config
from tests.golden import relative_error

CPU = torch.device("cpu")
CLIP = Clip(height=32, width=48, frames=9)
WAYS = ["resident", "streamed", "streamed, low path"]

pytestmark = [
    pytest.mark.usefixtures("exact_float32"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT CHECKED ON A GPU: torch finds no CUDA device"),
]


@pytest.fixture(scope="module")
def model() -> Mova:
    """Float32, of the published head width, for which GPUs have their fast kernels; weights in host memory."""
    tiny = tiny_config(head_width=128)
    return random_model(replace(tiny, video=replace(tiny.video, in_channels=36, out_channels=16)), CPU, torch.float32)


def gradient(model: Mova, given: dict[str, Tensor], device: torch.device, way: str) -> Tensor:
    """All adapters' gradients of one step as one vector on the CPU."""
    low = {"recompute": True, "ffn_rows": 7, "query_rows": 5} if "low" in way else {}
    stream = {"prefetch": Streamed(device)} if "streamed" in way else {}
    adapters, shelf = adapters_of(model, CPU, 4), Pinned(device)
    for _, parameter in adapters.named_parameters():
        parameter.data = parameter.data.to(device)
    placed = {name: tensor.to(device) for name, tensor in given.items()}
    training_step(model, adapters, **placed, fps=DEFAULT_FPS, runtime=Runtime(**low, **stream), shelf=lambda: shelf)
    return torch.cat([p.grad.flatten().cpu() for _, p in adapters.named_parameters() if p.grad is not None])


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_cpu(model: Mova, way: str) -> None:
    torch.manual_seed(0)
    given = random_inputs(CLIP, model.sizes, torch.float32, CPU)
    given |= {f"{s}_noise": torch.randn_like(given[f"{s}_latents"]) for s in ("video", "audio")}
    wanted = gradient(model, given, CPU, "resident")
    there, device = copy.deepcopy(model), torch.device("cuda", 0)
    if way == "resident":
        there.to(device)
    else:
        ends_to(there, device)
    assert relative_error(gradient(there, given, device, way), wanted) < 5e-6
