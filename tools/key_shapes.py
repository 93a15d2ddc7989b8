"""Key -> shape of every weight in a MOVA checkpoint, as functions of the sizes. No tensors.

One function a component, in the layout published on Hugging Face:

    tower_shapes    video_dit, video_dit_2, audio_dit
    bridge_shapes   dual_tower_bridge
    dac_shapes      audio_vae, weight norm fused
    wan_vae_shapes  video_vae, diffusers names
    umt5_shapes     text_encoder, transformers names

Written apart from the models of `mova_core` on purpose: a key that both got wrong would have to be wrong twice.
"""

from dataclasses import dataclass
from math import prod

from mova_core.config import AudioVAEConfig, BridgeConfig, TowerConfig

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class WanVAESizes:
    """The Wan 2.1 video VAE. One multiplier a resolution; `temporal_downsample` has one entry a step between them."""

    base_channels: int
    latent_channels: int
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)


@dataclass(frozen=True, kw_only=True)
class UMT5Sizes:
    """The encoder half of UMT5. `vocabulary` may exceed what the tokenizer uses, as it does in the published one."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_width: int
    ffn_width: int
    position_buckets: int = 32


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + key: shape for key, shape in shapes.items()}


def layer(name: str, out: int, in_: int, *kernel: int) -> Shapes:
    """A linear layer, or a convolution when it has a kernel."""
    return {f"{name}.weight": (out, in_, *kernel), f"{name}.bias": (out,)}


def tower_shapes(tower: TowerConfig) -> Shapes:
    width = tower.width
    shapes = {
        **layer("patch_embedding", width, tower.in_channels, *tower.patch),
        **layer("text_embedding.0", width, tower.text_width),
        **layer("text_embedding.2", width, width),
        **layer("time_embedding.0", width, tower.frequency_width),
        **layer("time_embedding.2", width, width),
        **layer("time_projection.1", 6 * width, width),
    }
    for index in range(tower.layers):
        shapes |= prefixed(f"blocks.{index}.", _tower_block(width, tower.ffn_width))
    head = layer("head.head", tower.out_channels * prod(tower.patch), width)
    return shapes | {"head.modulation": (1, 2, width), **head}


def _tower_block(width: int, ffn_width: int) -> Shapes:
    return {
        "modulation": (1, 6, width),
        **prefixed("self_attn.", _attention(width, width)),
        **prefixed("cross_attn.", _attention(width, width)),
        "norm3.weight": (width,),
        "norm3.bias": (width,),
        **layer("ffn.0", ffn_width, width),
        **layer("ffn.2", width, ffn_width),
    }


def _attention(width: int, source_width: int) -> Shapes:
    """Queries and output of `width`, keys and values read from `source_width`."""
    return {
        **layer("q", width, width),
        **layer("k", width, source_width),
        **layer("v", width, source_width),
        **layer("o", width, width),
        "norm_q.weight": (width,),
        "norm_k.weight": (width,),
    }


def bridge_shapes(bridge: BridgeConfig) -> Shapes:
    directions = {
        "audio_to_video_conditioners": (bridge.video_width, bridge.audio_width),
        "video_to_audio_conditioners": (bridge.audio_width, bridge.video_width),
    }
    shapes: Shapes = {}
    for name, (width, source_width) in directions.items():
        for index in range(bridge.layers):
            norm: Shapes = {"y_norm.weight": (source_width,), "y_norm.bias": (source_width,)}
            inner = prefixed("inner.", _attention(width, source_width))
            shapes |= prefixed(f"{name}.{index}.", norm | inner)
    return shapes


def dac_shapes(dac: AudioVAEConfig) -> Shapes:
    latents = dac.latent_channels
    return {
        **prefixed("encoder.block.", _dac_encoder(dac)),
        **layer("quant_conv", 2 * latents, latents, 1),
        **layer("post_quant_conv", latents, latents, 1),
        **prefixed("decoder.model.", _dac_decoder(dac)),
    }


def _dac_encoder(dac: AudioVAEConfig) -> Shapes:
    channels = dac.encoder_width
    shapes = layer("0", channels, 1, 7)
    for index, stride in enumerate(dac.encoder_rates, 1):
        for unit in range(3):
            shapes |= _dac_residual(f"{index}.block.{unit}.block", channels)
        shapes[f"{index}.block.3.alpha"] = (1, channels, 1)
        shapes |= layer(f"{index}.block.4", 2 * channels, channels, 2 * stride)
        channels *= 2
    last = len(dac.encoder_rates) + 1
    return shapes | {f"{last}.alpha": (1, channels, 1), **layer(f"{last + 1}", dac.latent_channels, channels, 3)}


def _dac_decoder(dac: AudioVAEConfig) -> Shapes:
    channels = dac.decoder_width
    shapes = layer("0", channels, dac.latent_channels, 7)
    for index, stride in enumerate(dac.decoder_rates, 1):
        half = channels // 2
        shapes[f"{index}.block.0.alpha"] = (1, channels, 1)
        shapes[f"{index}.block.1.weight"] = (channels, half, 2 * stride)  # transposed convolution: inputs first
        shapes[f"{index}.block.1.bias"] = (half,)
        for unit in range(2, 5):
            shapes |= _dac_residual(f"{index}.block.{unit}.block", half)
        channels = half
    last = len(dac.decoder_rates) + 1
    return shapes | {f"{last}.alpha": (1, channels, 1), **layer(f"{last + 1}", 1, channels, 7)}


def _dac_residual(name: str, channels: int) -> Shapes:
    return {
        f"{name}.0.alpha": (1, channels, 1),
        **layer(f"{name}.1", channels, channels, 7),
        f"{name}.2.alpha": (1, channels, 1),
        **layer(f"{name}.3", channels, channels, 1),
    }


def wan_vae_shapes(vae: WanVAESizes) -> Shapes:
    latents = vae.latent_channels
    return {
        **prefixed("encoder.", _wan_encoder(vae)),
        **layer("quant_conv", 2 * latents, 2 * latents, 1, 1, 1),
        **layer("post_quant_conv", latents, latents, 1, 1, 1),
        **prefixed("decoder.", _wan_decoder(vae)),
    }


def _wan_encoder(vae: WanVAESizes) -> Shapes:
    channels = vae.base_channels
    shapes = layer("conv_in", channels, 3, 3, 3, 3)
    flat: list[Shapes] = []  # down_blocks is one list: residual blocks and resamplers of every resolution
    for level, multiplier in enumerate(vae.multipliers):
        for _ in range(vae.residual_blocks):
            flat.append(_wan_residual(channels, vae.base_channels * multiplier))
            channels = vae.base_channels * multiplier
        if level < len(vae.temporal_downsample):
            time = layer("time_conv", channels, channels, 3, 1, 1) if vae.temporal_downsample[level] else {}
            flat.append(layer("resample.1", channels, channels, 3, 3) | time)
    for index, block in enumerate(flat):
        shapes |= prefixed(f"down_blocks.{index}.", block)
    return shapes | _wan_middle(channels) | _wan_end(channels, 2 * vae.latent_channels)


def _wan_decoder(vae: WanVAESizes) -> Shapes:
    channels = vae.base_channels * vae.multipliers[-1]
    shapes = layer("conv_in", channels, vae.latent_channels, 3, 3, 3) | _wan_middle(channels)
    for level, multiplier in enumerate(reversed(vae.multipliers)):
        width = vae.base_channels * multiplier
        for index in range(vae.residual_blocks + 1):
            shapes |= prefixed(f"up_blocks.{level}.resnets.{index}.", _wan_residual(channels, width))
            channels = width
        if level < len(vae.temporal_downsample):
            doubles_time = vae.temporal_downsample[-1 - level]
            time = layer("time_conv", 2 * width, width, 3, 1, 1) if doubles_time else {}
            channels = width // 2
            resampler = layer("resample.1", channels, width, 3, 3) | time
            shapes |= prefixed(f"up_blocks.{level}.upsamplers.0.", resampler)
    return shapes | _wan_end(channels, 3)


def _wan_residual(in_: int, out: int) -> Shapes:
    shortcut = layer("conv_shortcut", out, in_, 1, 1, 1) if in_ != out else {}
    return {
        "norm1.gamma": (in_, 1, 1, 1),
        **layer("conv1", out, in_, 3, 3, 3),
        "norm2.gamma": (out, 1, 1, 1),
        **layer("conv2", out, out, 3, 3, 3),
        **shortcut,
    }


def _wan_middle(channels: int) -> Shapes:
    attention: Shapes = {
        "norm.gamma": (channels, 1, 1),
        **layer("to_qkv", 3 * channels, channels, 1, 1),
        **layer("proj", channels, channels, 1, 1),
    }
    return {
        **prefixed("mid_block.resnets.0.", _wan_residual(channels, channels)),
        **prefixed("mid_block.attentions.0.", attention),
        **prefixed("mid_block.resnets.1.", _wan_residual(channels, channels)),
    }


def _wan_end(channels: int, out: int) -> Shapes:
    return {"norm_out.gamma": (channels, 1, 1, 1), **layer("conv_out", out, channels, 3, 3, 3)}


def umt5_shapes(text: UMT5Sizes) -> Shapes:
    inner = text.heads * text.head_width
    attention: Shapes = {f"{name}.weight": (inner, text.width) for name in "qkv"}
    attention |= {
        "o.weight": (text.width, inner),
        "relative_attention_bias.weight": (text.position_buckets, text.heads),
    }
    ffn: Shapes = {f"{name}.weight": (text.ffn_width, text.width) for name in ("wi_0", "wi_1")}
    block = {
        **prefixed("layer.0.SelfAttention.", attention),
        "layer.0.layer_norm.weight": (text.width,),
        **prefixed("layer.1.DenseReluDense.", ffn | {"wo.weight": (text.width, text.ffn_width)}),
        "layer.1.layer_norm.weight": (text.width,),
    }
    shapes: Shapes = {"shared.weight": (text.vocabulary, text.width), "encoder.final_layer_norm.weight": (text.width,)}
    for index in range(text.layers):
        shapes |= prefixed(f"encoder.block.{index}.", block)
    return shapes
