"""The forward on a CUDA device, with ComfyUI's layers, attention and rotary kernel, is the forward on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.comfy_path import in_chunks
from tests.comfy import needs_comfy
from tests.fixtures.tiny_model import FPS, tiny_config, tiny_inputs, tiny_model
from tests.golden import relative_error
from tests.in_process import Pack

SIZES = tiny_config(head_width=128)  # the published width, for which GPUs have their fast kernels

pytestmark = [
    needs_comfy,
    pytest.mark.usefixtures("exact_float32"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT CHECKED ON A GPU: torch finds no CUDA device"),
]


def forward(
    pack: Pack, device: str, dtype: torch.dtype, rows: tuple[int | None, int | None] = (None, None)
) -> list[Tensor]:
    """Velocities on the CPU in float32, of the tiny model under ComfyUI's signature."""
    import comfy.ops

    made = pack.module("nodes.host.model.diffusion").MovaDiffusion(
        sizes=SIZES, dtype=dtype, device=device, operations=comfy.ops.manual_cast, image_model="mova"
    )
    made.load_state_dict(tiny_model(SIZES).state_dict())
    inputs = tiny_inputs()
    out = made.requires_grad_(False)(
        [inputs.video.to(device, dtype), inputs.audio.to(device, dtype)],
        inputs.video_timestep.to(device),
        inputs.context.to(device, dtype),
        transformer_options=in_chunks(pack, *rows),
        condition=inputs.condition.to(device, dtype),
        fps=FPS,
        shifts=(5.0, 5.0),
        clean_streams=(False, False),
    )
    return [velocity.float().cpu() for velocity in out]


@pytest.mark.parametrize("rows", [(None, None), (7, 5)], ids=["normal", "low"])
def test_float32_agrees_to_rounding(pack: Pack, rows: tuple[int | None, int | None]) -> None:
    wanted, found = forward(pack, "cpu", torch.float32), forward(pack, "cuda", torch.float32, rows)
    assert max(map(relative_error, found, wanted)) < 1e-5


def test_bfloat16_is_as_far_from_float32_as_on_the_cpu(pack: Pack) -> None:
    wanted = forward(pack, "cpu", torch.float32)
    here, there = (forward(pack, device, torch.bfloat16) for device in ("cpu", "cuda"))
    for reference, cpu, cuda in zip(wanted, here, there, strict=True):
        assert relative_error(cuda, reference) < 1.5 * relative_error(cpu, reference)
