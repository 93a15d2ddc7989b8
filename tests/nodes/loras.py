"""LoRA files and weights for tests of both experts."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.nodes.graph import Scene

Q = "blocks.0.self_attn.q"


def shape(scene: Scene, key: str) -> torch.Size:
    return scene.model.model.diffusion_model.state_dict()[f"{key}.weight"].shape


def write_lora(base: Path, name: str, shapes: dict[str, torch.Size], up: str = "lora_B", down: str = "lora_A") -> str:
    random = torch.Generator().manual_seed(5)
    tensors = {}
    for key, (rows, columns) in shapes.items():
        tensors[f"{key}.{up}.weight"] = torch.randn(rows, 4, generator=random) * 0.1
        tensors[f"{key}.{down}.weight"] = torch.randn(4, columns, generator=random) * 0.3
    folder = base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    return f"{name}.safetensors"
