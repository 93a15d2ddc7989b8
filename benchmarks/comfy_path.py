"""The same books for the path that ComfyUI runs: its layers, its attention and its rotary kernel under our model.

Its rotary kernel is a custom operator, so tensors without memory leave the footprint of the fused kernel and not that
of the plain torch it falls back to. Its attention is the fused kernel of `Ledger.attention`, or, as "sage", one that
makes 8-bit copies of queries, keys and values first.
"""

from typing import Any

import torch
from torch import Tensor

from mova_core.audio_vae.codec import AudioVAE
from mova_core.config import MOVA_AUDIO_VAE, MovaConfig
from mova_core.shapes import DEFAULT_FPS
from tests.in_process import Pack

from .peak import Clip, Ledger, ungraded

SHIFTS = (5.0, 5.0)


def in_chunks(pack: Pack, feed_forward: int | None, queries: int | None) -> dict[str, Any]:
    """Transformer options of a forward that goes by so many rows at once."""
    sizes = pack.module("mova_core.estimate").ChunkSizes(feed_forward=feed_forward, queries=queries)
    asked: dict[str, Any] = pack.module("nodes.host.keys").asking({}, chunks=sizes)
    return asked


def account_host(pack: Pack, clip: Clip, config: MovaConfig, options: dict[str, Any], *, sage: bool = False) -> Ledger:
    """The books of one forward of MovaDiffusion, bf16, under transformer options `options`."""
    import comfy.ldm.modules.attention as host_attention
    import comfy.ops

    with ungraded():
        model = pack.module("nodes.host.model.diffusion").MovaDiffusion(
            sizes=config, dtype=torch.bfloat16, device="meta", operations=comfy.ops.manual_cast, image_model="mova"
        )
        model.requires_grad_(False)
        inputs = clip.inputs(config, torch.bfloat16)
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
                    clean_streams=(False, False),
                )
            del velocities
        finally:
            host_attention.optimized_attention = before
    return ledger


def decoding_peak(height: int, width: int, steps: int) -> int:
    """Bytes at most when ComfyUI's Wan VAE decodes (steps, height, width) latents in bf16."""
    import comfy.ldm.wan.vae as host

    stages = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    attention, before = host.vae_attention, torch.get_default_dtype()
    host.vae_attention = lambda: lambda q, k, v: torch.empty_like(q)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with ungraded(), torch.device("meta"):
            vae = host.WanVAE(dim=96, z_dim=16, dropout=0.0, temperal_downsample=[False, True, True], **stages)
            latents = torch.empty(1, 16, steps, height, width)
            ledger = Ledger()
            ledger.enter(latents, "input")
            with ledger:
                pictures = vae.requires_grad_(False).decode(latents)
    finally:
        host.vae_attention = attention
        torch.set_default_dtype(before)
    assert pictures.shape[2:] == (4 * steps - 3, 8 * height, 8 * width)
    return ledger.peak


def sound_decoding_peak(steps: int) -> int:
    """Bytes at most when the codec decodes so many latent steps, in float32 as always."""
    with ungraded():
        codec = AudioVAE(MOVA_AUDIO_VAE, device="meta", dtype=torch.float32).requires_grad_(False)
        latents = torch.empty(1, MOVA_AUDIO_VAE.latent_channels, steps, device="meta")
        ledger = Ledger()
        ledger.exclude(codec)
        with ledger:
            codec.decode(latents)
    return ledger.peak


def _tokens(q: Tensor, k: Tensor) -> bool:
    """Whether this is attention of video tokens to each other: a quantised kernel is used for no other."""
    return min(q.shape[1], k.shape[1]) > 1024
