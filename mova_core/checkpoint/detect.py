"""What a file holds and how large its parts are, from key names and shapes alone."""

import math
from collections.abc import Mapping

from ..config import HEAD_WIDTH, AudioVAEConfig, BridgeConfig, TowerConfig
from ..errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
UNKNOWN = "nothing this package knows"

# The first row whose keys are all there names the file. Keys without the prefix a checkpoint may put before them.
SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the MOVA bridge", ("audio_to_video_conditioners.0.inner.q.weight",)),
    ("an LTX audio-video model", ("transformer_blocks.0.audio_attn1.to_q.weight",)),
    ("an LTX video model", ("transformer_blocks.0.attn1.to_q.weight", "patchify_proj.weight")),
    ("a Wan VACE model", ("vace_blocks.0.self_attn.q.weight",)),
    ("a Wan 2.1 image-to-video model", ("blocks.0.cross_attn.k_img.weight",)),
    ("a Wan-shaped transformer", ("blocks.0.self_attn.q.weight", "patch_embedding.weight", "head.modulation")),
    ("a DAC audio VAE", ("encoder.block.0.bias", "decoder.model.0.bias")),
    ("the decode half of a DAC audio VAE", ("post_quant_conv.bias", "decoder.model.0.bias")),
    ("a Wan video VAE in diffusers' layout", ("decoder.mid_block.resnets.0.conv1.weight", "quant_conv.weight")),
    ("a Wan video VAE", ("decoder.middle.0.residual.0.gamma",)),
    ("a T5 text encoder", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
)


def describe(shapes: Shapes) -> str:
    """A few words on what a file with these keys is, for error messages."""
    if any(".lora_" in key or (key.endswith((".lora_A", ".lora_B", ".alpha")) and "lora" in key) for key in shapes):
        return "a LoRA"
    for name, keys in SIGNATURES:
        if all(key in shapes for key in keys):
            if name != "a Wan-shaped transformer":
                return name
            patch = shapes["patch_embedding.weight"]
            if len(patch) == 3:
                return "the MOVA audio tower"
            if len(patch) != 5:
                return UNKNOWN
            kind = {36: "image-to-video expert, of MOVA or Wan 2.2", 16: "text-to-video model"}.get(patch[1], "model")
            return f"a Wan {kind} ({patch[1]} input channels)"
    return UNKNOWN


def _layers(shapes: Shapes, prefix: str) -> int:
    return len({key[len(prefix) :].split(".", 1)[0] for key in shapes if key.startswith(prefix)})


def tower_config(shapes: Shapes, where: str, heads: int | None = None, eps: float = 1e-6) -> TowerConfig:
    """Sizes of a tower. Unless said, heads are 128 wide and eps 1e-6, as in every published tower: no shape tells.

    Raises:
        CheckpointError: the keys are not a tower's.
    """
    try:
        width, in_channels, *patch = shapes["patch_embedding.weight"]
        outputs = shapes["head.head.weight"][0]
        return TowerConfig(
            width=width,
            heads=heads or max(1, width // HEAD_WIDTH),
            layers=_layers(shapes, "blocks."),
            ffn_width=shapes["blocks.0.ffn.0.weight"][0],
            in_channels=in_channels,
            out_channels=outputs // math.prod(patch),
            patch=tuple(patch),
            text_width=shapes["text_embedding.0.weight"][1],
            frequency_width=shapes["time_embedding.0.weight"][1],
            eps=eps,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{where} holds {describe(shapes)}, not a MOVA tower ({error!s:.200}). Download the folder again"
        ) from error


def bridge_config(shapes: Shapes, where: str, head_width: int = HEAD_WIDTH, audio_rate: float = 50.0) -> BridgeConfig:
    """Sizes of the bridge. Unless said, head width and latent steps a second are the deployed ones.

    Raises:
        CheckpointError: the keys are not a bridge's.
    """
    try:
        video, audio = shapes["audio_to_video_conditioners.0.inner.k.weight"]
        return BridgeConfig(
            layers=_layers(shapes, "audio_to_video_conditioners."),
            video_width=video,
            audio_width=audio,
            head_width=head_width,
            audio_rate=audio_rate,
            eps=1e-6,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{where} holds {describe(shapes)}, not the MOVA bridge ({error!s:.200}). Download the folder again"
        ) from error


def audio_vae_config(shapes: Shapes, where: str) -> AudioVAEConfig:
    """Sizes of the codec from its (folded) weights; a stride is half its kernel. 48 kHz, which no shape tells. Of a
    decode half the encoder is the decoder's mirror.

    Raises:
        CheckpointError: the keys are not a DAC's.
    """
    try:
        stages = range(1, _layers(shapes, "decoder.model.") - 2)
        decoder = [shapes[f"decoder.model.{n}.block.1.weight"][2] // 2 for n in stages]
        decoder_width, latent_channels, _ = shapes["decoder.model.0.weight"]
        encoder, encoder_width = decoder[::-1], decoder_width
        if any(key.startswith("encoder.") for key in shapes):
            encoder = [shapes[f"encoder.block.{n}.block.4.weight"][2] // 2 for n in stages]
            encoder_width = shapes["encoder.block.0.weight"][0]
        return AudioVAEConfig(
            encoder_width=encoder_width,
            encoder_rates=tuple(encoder),
            decoder_width=decoder_width,
            decoder_rates=tuple(decoder),
            latent_channels=latent_channels,
            sample_rate=48000,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{where} holds {describe(shapes)}, not a DAC audio VAE ({error!s:.200}). Download the file again"
        ) from error
