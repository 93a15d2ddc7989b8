"""Nodes called as ComfyUI's executor calls them, and what the tests ask of their outputs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

FPS = 24.0
Run = Callable[..., tuple[Any, ...]]
"""run("KSampler", model=..., ...): outputs of a node, its own or ours; widgets left out have their default."""


@dataclass(frozen=True)
class Scene:
    """What `MOVA Loader`, `MOVA Text Encode` and `MOVA Image to Video+Audio` give for a tiny clip."""

    model: Any
    clip: Any
    vae: Any
    audio_vae: Any
    positive: Any
    negative: Any
    latent: dict[str, Any]

    @property
    def conditioned(self) -> dict[str, Any]:
        """Inputs of KSampler and its relatives."""
        return {"positive": self.positive, "negative": self.negative, "latent_image": self.latent}

    def but(self, **changes: Any) -> Scene:
        return replace(self, **changes)


def runner(nodes: Mapping[str, type]) -> Run:
    """`Run` on these node classes."""

    def run(node_id: str, **inputs: Any) -> tuple[Any, ...]:
        node = nodes[node_id]
        values = defaults(node) | inputs
        prepare = getattr(node, "PREPARE_CLASS_CLONE", None)  # V3
        target = prepare({"hidden_inputs": {}}) if prepare else node()
        output = getattr(target, node.FUNCTION)(**values)
        if inspect.isawaitable(output):
            output = asyncio.run(awaited(output))
        if prepare:
            return tuple(output.result or ())
        return tuple(output.get("result", ()) if isinstance(output, dict) else output or ())

    return run


async def awaited(value: Any) -> Any:
    return await value


def defaults(node: Any) -> dict[str, Any]:
    """Default of every required widget that has one; the first choice of a list."""
    found: dict[str, Any] = {}
    for name, (kind, *rest) in node.INPUT_TYPES().get("required", {}).items():
        options = rest[0] if rest else {}
        choices = kind if isinstance(kind, list) else options.get("options")
        if "default" in options:
            found[name] = options["default"]
        elif choices and isinstance(choices[0], str):
            found[name] = choices[0]
    return found


def sampled(run: Run, scene: Scene, model: Any = None, **inputs: Any) -> dict[str, Any]:
    """The joint LATENT of 'MOVA Sampler': two steps from seed 5 without guidance, where not told otherwise."""
    given = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    chosen = {"seed": 5, "steps": 2, "cfg": 1.0}
    return run("MOVASampler", **({"model": model or scene.model, **given, **chosen} | inputs))[0]


def ksampled(run: Run, scene: Scene, model: Any = None, **inputs: Any) -> dict[str, Any]:
    """The same by the stock KSampler: four steps from seed 7."""
    chosen = {"seed": 7, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    return run("KSampler", **({"model": model or scene.model, **scene.conditioned, **chosen} | inputs))[0]


def streams(latent: Mapping[str, Any]) -> list[Tensor]:
    """Video and audio of a joint LATENT; the one stream of a plain one."""
    samples = latent["samples"]
    return list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Both streams, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(streams(one), streams(other), strict=True))


def error(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The larger of both streams' relative errors."""
    return max(
        float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(streams(one), streams(other), strict=True)
    )


def check_finite(latent: Mapping[str, Any], like: Mapping[str, Any]) -> None:
    """Both streams are there, of the shapes of `like`, finite, and not empty."""
    assert [s.shape for s in streams(latent)] == [s.shape for s in streams(like)]
    for stream in streams(latent):
        assert torch.isfinite(stream).all()
        assert stream.std() > 0.01


def evaluate(scene: Scene, sigma: float, video: Tensor, audio: Tensor) -> list[Tensor]:
    """Velocities of one evaluation with the positive prompt, the way every sampler asks for it."""
    import comfy.nested_tensor
    import comfy.samplers
    import comfy.utils

    seen: list[Tensor] = []

    def once(model: Any, x: Tensor, values: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
        packed, shapes = comfy.utils.pack_latents([video, audio])
        denoised = model(packed, torch.full((len(x),), sigma), **extra_args)
        seen.extend(comfy.utils.unpack_latents((packed - denoised) / sigma, shapes))
        return x

    guider = comfy.samplers.CFGGuider(scene.model)
    guider.set_conds(scene.positive, scene.negative)
    guider.set_cfg(1.0)
    latent = comfy.nested_tensor.NestedTensor((video, audio))
    guider.sample(latent, latent, comfy.samplers.KSAMPLER(once), torch.tensor([sigma, 0.0]), disable_pbar=True)
    return seen
