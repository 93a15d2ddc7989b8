"""Random LoRAs of the tiny checkpoint's size, under the names that a workflow asks for.

python tools/tiny_lora.py FOLDER NAME ...   # e.g. ComfyUI's models/loras
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.key_shapes import tower_shapes
from tools.tiny_checkpoint import TINY

RANK = 4
LAYERS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "ffn.0", "ffn.2")


def write_tiny_lora(path: Path, seed: int = 0) -> Path:
    """A LoRA of the attention and feed-forward layers of a video expert, as Wan's are written, alpha half the rank."""
    noise = torch.Generator().manual_seed(seed)
    shapes = tower_shapes(TINY.mova.video)
    tensors = {}
    for key in shapes:
        layer = key.removesuffix(".weight")
        if key.startswith("blocks.") and layer.endswith(LAYERS) and key.endswith(".weight"):
            rows, columns = shapes[key]
            tensors[f"diffusion_model.{layer}.lora_down.weight"] = torch.randn(RANK, columns, generator=noise) * 0.3
            tensors[f"diffusion_model.{layer}.lora_up.weight"] = torch.randn(rows, RANK, generator=noise) * 0.1
            tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(RANK / 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    for seed, name in enumerate(sys.argv[2:]):
        print(write_tiny_lora(Path(sys.argv[1]) / name, seed))


if __name__ == "__main__":
    main()
