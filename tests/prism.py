"""A tiny checkpoint in Prism's layout: the layers of both towers and the bridge fused under other names.

Source of the layout: the structure tests of Comfy-Org/ComfyUI at 667a5de; row-scaled float8 as its loader reads it.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mova_core.checkpoint.files import component_tensors

FUSED = {
    ("video_dit", "blocks"): "video_block",
    ("audio_dit", "blocks"): "audio_block",
    ("dual_tower_bridge", "audio_to_video_conditioners"): "a2v_conditioner",
    ("dual_tower_bridge", "video_to_audio_conditioners"): "v2a_conditioner",
}


def prism_name(part: str, key: str, fused: int) -> str:
    """Prism's name of a part's weight, where the first `fused` layers of both towers are fused."""
    head, _, rest = key.partition(".")
    number, _, leaf = rest.partition(".")
    if (part, head) in FUSED:
        if int(number) < fused:
            return f"fusion_blocks.{number}.{FUSED[part, head]}.{leaf}"
        return f"remaining_video_blocks.{int(number) - fused}.{leaf}"
    return f"{part}.{key}"


def prism_weights(folder: Path, fused: int) -> dict[str, Tensor]:
    """The weights of a published folder under Prism's names."""
    parts = ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge")
    return {prism_name(p, k, fused): v for p in parts for k, v in component_tensors(folder / p).items()}


def row_scaled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The block matrices in float8 with one scale a row, as the float8 variant of Prism stores them."""
    out: dict[str, Tensor] = {}
    for key, weight in weights.items():
        if weight.ndim != 2 or ("block" not in key and "conditioner" not in key):
            out[key] = weight
            continue
        scale = weight.float().abs().amax(dim=1, keepdim=True) / 448
        out[key] = (weight.float() / scale).to(torch.float8_e4m3fn)
        out[f"{key}.prism_scale"] = scale
    return out


def write_prism(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)
    return path
