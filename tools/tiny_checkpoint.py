"""A complete MOVA checkpoint in the published layout, of random weights and a few megabytes: for tests and demos.

    python tools/tiny_checkpoint.py DIR

Every component is there, at sizes that keep what matters apart (more video layers than audio layers, several heads,
widths that differ), so code that confuses two sizes fails. Values depend on the seed, component and key alone: two runs
give the same bytes. The weights are scaled so that activations stay near one; the pictures and sounds they make are
moving blots and hiss.
"""

import argparse
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mova_core.config import AudioVAEConfig, BridgeConfig, MovaConfig, SchedulerConfig, TowerConfig
from tools.json_files import write_json
from tools.key_shapes import (
    Shapes,
    UMT5Sizes,
    WanVAESizes,
    bridge_shapes,
    dac_shapes,
    tower_shapes,
    umt5_shapes,
    wan_vae_shapes,
)
from tools.published_configs import (
    bridge_config,
    dac_config,
    model_index,
    scheduler_config,
    tower_config,
    umt5_config,
    wan_vae_config,
)
from tools.tiny_tokenizer import write_tokenizer

WEIGHTS = "diffusion_pytorch_model.safetensors"
VIDEO_SHARDS = 3


@dataclass(frozen=True, kw_only=True)
class TinySizes:
    """Sizes of all components. Any sizes fit, the published ones too: tiny is what `tiny_sizes` chooses."""

    mova: MovaConfig
    audio_vae: AudioVAEConfig
    video_vae: WanVAESizes
    text: UMT5Sizes
    scheduler: SchedulerConfig

    def __post_init__(self) -> None:
        """Components that exchange tensors agree on their channels."""
        pairs = {
            "text width": (self.text.width, self.mova.video.text_width),
            "audio latent channels": (self.audio_vae.latent_channels, self.mova.audio.in_channels),
            "video latent channels": (self.video_vae.latent_channels, self.mova.video.out_channels),
        }
        for name, (one, other) in pairs.items():
            if one != other:
                raise ValueError(f"components disagree on the {name}: {one} and {other}")


def tiny_sizes(*, video_layers: int = 3, audio_layers: int = 2, audio_latent_channels: int = 8) -> TinySizes:
    """Heads of 128 as published, everything else as small as it can be without two sizes becoming one."""
    tower = partial(TowerConfig, text_width=32, frequency_width=64, eps=1e-6)
    video = tower(
        width=256,
        heads=2,
        layers=video_layers,
        ffn_width=40,
        in_channels=36,
        out_channels=16,
        patch=(1, 2, 2),
    )
    audio = tower(
        width=128,
        heads=1,
        layers=audio_layers,
        ffn_width=56,
        in_channels=audio_latent_channels,
        out_channels=audio_latent_channels,
        patch=(1,),
    )
    bridge = BridgeConfig(
        layers=min(video_layers, audio_layers),
        video_width=video.width,
        audio_width=audio.width,
        head_width=128,
        audio_rate=50.0,
        eps=1e-6,
    )
    return TinySizes(
        mova=MovaConfig(video=video, audio=audio, bridge=bridge),
        audio_vae=AudioVAEConfig(
            encoder_width=2,
            encoder_rates=(2, 3, 4, 5, 8),
            decoder_width=32,
            decoder_rates=(8, 5, 4, 3, 2),
            latent_channels=audio_latent_channels,
            sample_rate=48000,
        ),
        video_vae=WanVAESizes(base_channels=4, latent_channels=16),
        text=UMT5Sizes(vocabulary=512, width=32, layers=2, heads=4, head_width=8, ffn_width=72),
        scheduler=SchedulerConfig(shift=5.0, sigma_min=0.0, boundary=0.9),
    )


TINY = tiny_sizes()


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, sizes: TinySizes = TINY) -> Path:
    """Write the whole checkpoint and return its folder, made if absent. The same arguments give the same bytes.

    All weights are bfloat16. A folder that holds a checkpoint of other sizes is overwritten file by file.

    Raises:
        ValueError: the text encoder has fewer embeddings than the tokenizer has identifiers.
    """
    folder = Path(folder)
    identifiers = write_tokenizer(folder / "tokenizer")
    if identifiers > sizes.text.vocabulary:
        raise ValueError(f"the tokenizer has {identifiers} identifiers, the text encoder {sizes.text.vocabulary}")
    write_json(folder / "model_index.json", model_index(sizes.scheduler))
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(sizes.scheduler))
    for name, component in components(sizes).items():
        write_json(folder / name / "config.json", component.config)
        weights = {key: initial(seed, f"{name}.{key}", shape) for key, shape in component.shapes.items()}
        write_weights(folder / name / component.weights, weights, component.shards)
    return folder


# --- what is in the folder -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Component:
    """One folder of weights: its config.json, the shapes it holds, the name of its file, and how many."""

    config: dict[str, Any]
    shapes: Shapes
    weights: str = WEIGHTS
    shards: int = 1


def components(sizes: TinySizes) -> dict[str, Component]:
    mova = sizes.mova
    video = Component(config=tower_config("WanModel", mova.video), shapes=tower_shapes(mova.video), shards=VIDEO_SHARDS)
    audio = tower_config("WanAudioModel", mova.audio) | {"require_clip_embedding": True, "vae_type": "dac"}
    return {
        "video_dit": video,
        "video_dit_2": video,
        "audio_dit": Component(config=audio, shapes=tower_shapes(mova.audio)),
        "dual_tower_bridge": Component(config=bridge_config(mova), shapes=bridge_shapes(mova.bridge)),
        "audio_vae": Component(config=dac_config(sizes.audio_vae), shapes=dac_shapes(sizes.audio_vae)),
        "video_vae": Component(config=wan_vae_config(sizes.video_vae), shapes=wan_vae_shapes(sizes.video_vae)),
        "text_encoder": Component(
            config=umt5_config(sizes.text), shapes=umt5_shapes(sizes.text), weights="model.safetensors"
        ),
    }


# --- values --------------------------------------------------------------------------------------------------------


def constant(std: float) -> Callable[[tuple[int, ...]], float]:
    return lambda shape: std


def fan_in(gain: float = 1.0) -> Callable[[tuple[int, ...]], float]:
    """Outputs of variance gain**2 for inputs of variance one."""
    return lambda shape: gain / prod(shape[1:]) ** 0.5


def transposed_fan_in() -> Callable[[tuple[int, ...]], float]:
    """As `fan_in`, for a transposed convolution with a kernel of two strides: two taps a channel reach a sample."""
    return lambda shape: (2 * shape[0]) ** -0.5


# Pattern of "component.key" -> mean, and standard deviation of the shape. The first that matches counts.
VALUES = (
    (r"\.bias$", 0.0, constant(0.02)),
    (r"\.(\w*norm\w*\.weight|gamma|alpha)$", 1.0, constant(0.1)),
    (r"\.modulation$", 0.0, constant(0.05)),
    (r"\.relative_attention_bias\.weight$", 0.0, constant(0.5)),
    (r"^text_encoder\.shared\.weight$", 0.0, constant(1.0)),
    (r"\.SelfAttention\.[qk]\.weight$", 0.0, fan_in(0.6)),  # T5 does not divide its scores by the head width
    (r"^audio_vae\.decoder\.model\.\d\.block\.1\.weight$", 0.0, transposed_fan_in()),
    (r"^audio_vae\.decoder\.model\.7\.weight$", 0.0, fan_in(0.2)),  # the last: loud, not clipped
    (r"^video_vae\.decoder\.conv_out\.weight$", 0.0, fan_in(0.6)),  # the last: strong colours, few clipped
    (r"^audio_vae\..*\.block\.3\.weight$", 0.0, fan_in(0.3)),  # residual branches, fifteen in a row
    (r"\.weight$", 0.0, fan_in()),
)


def initial(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """A bfloat16 weight: normal noise from seed and name alone, scaled by the first fitting row of VALUES."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    mean, std = next((mean, std(shape)) for pattern, mean, std in VALUES if re.search(pattern, name))
    return (mean + std * torch.randn(shape, generator=generator)).to(torch.bfloat16)


# --- files ---------------------------------------------------------------------------------------------------------


def write_weights(path: Path, weights: dict[str, Tensor], shards: int = 1) -> None:
    """One safetensors file, or `shards` of them with the index that says where each key is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        save_file(weights, path, metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for number, keys in enumerate(_even_parts(weights, shards), 1):
        name = f"{path.stem}-{number:05}-of-{shards:05}{path.suffix}"
        save_file({key: weights[key] for key in keys}, path.parent / name, metadata={"format": "pt"})
        where |= dict.fromkeys(keys, name)
    total = {"total_size": sum(weight.nbytes for weight in weights.values())}
    write_json(path.parent / f"{path.name}.index.json", {"metadata": total, "weight_map": where})


def _even_parts(weights: dict[str, Tensor], count: int) -> list[list[str]]:
    """The keys in order, cut where a further 1/count of the bytes is full."""
    total = sum(weight.nbytes for weight in weights.values())
    parts: list[list[str]] = [[] for _ in range(count)]
    before = 0
    for key, weight in weights.items():
        parts[before * count // total].append(key)
        before += weight.nbytes
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny MOVA checkpoint of random weights.")
    parser.add_argument("folder", type=Path, help="where to write it; made if absent")
    parser.add_argument("--seed", type=int, default=0, help="other values, same sizes")
    options = parser.parse_args()
    folder = write_tiny_checkpoint(options.folder, seed=options.seed)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
