"""Tiny files of the sizes that ComfyUI fixes for Wan where no header says otherwise: text of 4096, 256 frequencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.nodes.graph import Scene
from tools.key_shapes import bridge_shapes, tower_shapes
from tools.tiny_checkpoint import initial, tiny_sizes

EXPERTS = ("video_dit", "video_dit_2")
Weights = dict[str, Tensor]


def wan_sized_weights() -> dict[str, Weights]:
    """video_dit, video_dit_2 and shared, under the names of single files."""
    sizes = tiny_sizes().mova
    wide = {"text_width": 4096, "frequency_width": 256}
    video, audio = replace(sizes.video, **wide), replace(sizes.audio, **wide)
    shared = {f"audio_dit.{k}": s for k, s in tower_shapes(audio).items()}
    shared |= {f"dual_tower_bridge.{k}": s for k, s in bridge_shapes(sizes.bridge).items()}
    experts = {
        part: {k: initial(seed, f"video_dit.{k}", s) for k, s in tower_shapes(video).items()}
        for seed, part in enumerate(EXPERTS)
    }
    return {**experts, "shared": {k: initial(0, k, s) for k, s in shared.items()}}


def write_wan_sized(folder: Path) -> dict[str, str]:
    """Part -> the name of its file in `folder`, without any header of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for part, weights in wan_sized_weights().items():
        names[part] = f"wan_sized_{part}.safetensors"
        save_file(weights, folder / names[part])
    return names


def wide_text(scene: Scene) -> Scene:
    """The scene with prompt embeddings of that width."""
    words = torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(4))
    return scene.but(positive=[[words, scene.positive[0][1]]], negative=[[words, scene.negative[0][1]]])
