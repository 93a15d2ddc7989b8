"""Runs of the fast sampler that several tests need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.in_process import Pack
from tests.nodes.graph import Scene

STEPS, SEED = 3, 11


def patched(scene: Scene, strength: float = 1.0, names: tuple[str, ...] = ("self_attn.q", "ffn.0", "head.head")) -> Any:
    """The scene's MODEL with low-rank changes on both experts, as a LoRA loader puts them on."""
    from comfy.weight_adapter.lora import LoRAAdapter

    model = scene.model.clone()
    make = torch.Generator().manual_seed(5)
    patches = {}
    for name, weight in scene.model.model.diffusion_model.named_parameters():
        if name.startswith(("blocks.", "head.")) and name.endswith(tuple(f"{part}.weight" for part in names)):
            down = torch.randn(4, weight.shape[1], generator=make) * 0.3
            up = torch.randn(weight.shape[0], 4, generator=make) * 0.3
            key = f"diffusion_model.{name}"
            patches[key] = LoRAAdapter({key}, (up, down, 4.0, None, None, None))
    assert len(patches) >= 3
    model.add_patches(patches, strength)
    return model


def by_recipe(pack: Pack, scene: Scene, model: Any = None, untaught: Any = None, **changes: Any) -> dict[str, Any]:
    """A run by a recipe that no quality stands for."""
    fast, recipes = pack.module("nodes.host.sampling.fast"), pack.module("mova_core.sampling.fast")
    recipe = replace(recipes.Recipe(steps=STEPS), **changes)
    conds = scene.positive, scene.negative
    return fast.sample_fast(model or scene.model, untaught or scene.model, conds, scene.latent, recipe, SEED)
