"""The same books for the path that ComfyUI runs: its layers, its attention and its rotary kernel under our model.

Its rotary kernel is a custom operator, so fake tensors take the footprint of the fused kernel and not that of the
plain torch it falls back to. Its attention is the fused kernel of `Ledger.attention`, or, as "sage", one that makes
8-bit copies of queries, keys and values first.
"""

from typing import Any

import torch
from torch import Tensor

from mova_core.config import MovaConfig
from mova_core.shapes import DEFAULT_FPS
from tests.in_process import Pack

from .peak import Clip, Ledger, pretended

SHIFTS = (5.0, 5.0)


def account_host(
    pack: Pack,
    clip: Clip,
    config: MovaConfig,
    options: dict[str, Any],
    *,
    sage: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cuda",
) -> Ledger:
    """The books of one forward of MovaDiffusion under transformer options `options`."""
    import comfy.ldm.modules.attention as host_attention
    import comfy.ops

    with pretended():
        model = pack.module("nodes.host.model").MovaDiffusion(
            sizes=config, dtype=dtype, device=device, operations=comfy.ops.manual_cast, image_model="mova"
        )
        model.requires_grad_(False)
        inputs = clip.inputs(config, dtype, device)
        ledger = Ledger()
        ledger.exclude(model)
        for name, tensor in inputs.items():
            ledger.enter(tensor, name)

        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **more: Any) -> Tensor:
            copies = [torch.empty_like(x, dtype=torch.int8) for x in (q, k, v)] if sage and _tokens(q, k) else []
            out = ledger.attention(q, k, v, heads, "")
            del copies
            return out

        before, host_attention.optimized_attention = host_attention.optimized_attention, attention
        try:
            with ledger:
                velocities = model(
                    [inputs["video_latents"], inputs["audio_latents"]],
                    inputs["video_timestep"],
                    inputs["context"],
                    transformer_options=dict(options),
                    condition=inputs["condition"],
                    fps=DEFAULT_FPS,
                    shifts=SHIFTS,
                    held=(False, False),
                )
            del velocities
        finally:
            host_attention.optimized_attention = before
    return ledger


def _tokens(q: Tensor, k: Tensor) -> bool:
    """Whether this is attention of video tokens to each other: a quantised kernel is used for no other."""
    return min(q.shape[1], k.shape[1]) > 1024
