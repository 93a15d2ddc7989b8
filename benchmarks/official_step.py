"""The first step of the official code and of this one, on the same checkpoint: `python -m benchmarks.official_step`

    python -m benchmarks.official_step --repo PATH --model FOLDER [--width 640 --height 352 --frames 193] [--seeds 11]

PATH is a checkout of OpenMOSS/MOVA, FOLDER a checkpoint in the published layout. The high-noise expert, the audio tower
and the bridge are loaded by the official classes, and by this pack's own reading of the files; both take noise of each
seed at timestep 1000, with rows of a normal distribution for the text. On a card both compute in bfloat16, one after
the other; the card must hold one expert with its towers (about 36 GB), RAM the same. On the CPU in float32.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.checkpoint.source import from_folder
from mova_core.config import MovaConfig
from mova_core.shapes import DEFAULT_FPS

from .official import forward
from .official_pipeline import load
from .peak import Clip

FIRST = 1000.0  # timestep
Velocities = tuple[Tensor, Tensor]


def official_pipeline(official: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The official pipeline with what its first step needs, without VAEs, text encoder and second expert."""
    classes = {"video_dit": official.WanModel, "audio_dit": official.WanAudioModel}
    classes["dual_tower_bridge"] = official.DualTowerConditionalBridge
    parts = {name: kind.from_pretrained(folder / name, torch_dtype=dtype).eval() for name, kind in classes.items()}
    for name in ("video_dit", "audio_dit"):  # as under CUDA's autocast
        parts[name].time_embedding.float()
        parts[name].time_projection.float()
    vae = MagicMock(hop_length=960, sample_rate=48000)
    vae.config.scale_factor_spatial, vae.config.scale_factor_temporal = 8, 4
    absent = dict.fromkeys(("text_encoder", "tokenizer", "scheduler", "video_dit_2"))
    return official.MOVA(video_vae=vae, audio_vae=vae, **absent, **parts)


def inputs(clip: Clip, config: MovaConfig, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of `Mova.forward` on the CPU."""
    made = torch.Generator().manual_seed(seed)
    wanted = clip.inputs(config, dtype)
    drawn = {name: torch.randn(meta.shape, generator=made).to(meta.dtype) for name, meta in wanted.items()}
    return {name: torch.full_like(x, FIRST) if x.ndim == 1 else x for name, x in drawn.items()}


def on(device: torch.device, given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.to(device) for name, x in given.items()}


def apart(ours: Velocities, others: Velocities) -> float:
    """Relative difference, the larger of picture and sound."""
    pairs = zip(ours, others, strict=True)
    return max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="checkout of OpenMOSS/MOVA")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint in the published layout")
    for name, size in (("width", 640), ("height", 352), ("frames", 193)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11])
    parser.add_argument("--device", default="cuda")
    return parser.parse_args(given)


@torch.no_grad()
def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    device = torch.device(chosen.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = load_joint(chosen.model, "high", dtype)
    clip = Clip(height=chosen.height, width=chosen.width, frames=chosen.frames)
    drawn = {seed: inputs(clip, from_folder(chosen.model).model, seed, dtype) for seed in chosen.seeds}
    model.to(device)
    ours = {seed: tuple(x.cpu() for x in model(**on(device, x), fps=DEFAULT_FPS)) for seed, x in drawn.items()}
    model.to("cpu")
    pipe = official_pipeline(load(chosen.repo), chosen.model, dtype)
    for part in (pipe.video_dit, pipe.audio_dit, pipe.dual_tower_bridge):
        part.to(device)
    versions = f"torch {torch.__version__}, diffusers {importlib.import_module('diffusers').__version__}"
    print(f"First step of both codes on the same weights, noise and text rows: {device}, {dtype}, {versions}.")
    for seed, x in drawn.items():
        others = tuple(y.cpu() for y in forward(pipe, on(device, x)))
        print(f"seed {seed}: velocities differ by {apart(ours[seed], others):.1e}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
