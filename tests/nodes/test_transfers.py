"""Each weight crosses to the device exactly once a forward, in chunks or whole, by the queue or without it.

The model has its full size, on the meta device. ComfyUI's own queue code runs; what copies a weight is counted.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.comfy_path import SHIFTS, in_chunks
from benchmarks.peak import Clip
from mova_core.shapes import DEFAULT_FPS
from tests.comfy import needs_comfy
from tests.in_process import Pack

pytestmark = needs_comfy

CLIP = Clip(height=352, width=640, frames=5)  # 1760 tokens
PATHS = {"whole": (16384, None), "chunks": (1024, 1024)}
GIGABYTES = 36.74  # of one expert with audio tower and bridge, bf16


class Link:
    """The way from host to device: which layer was copied how often, and what lies prefetched."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.copies: Counter[str] = Counter()
        self.entries: list[list[str]] = []
        self.waiting = self.most_waiting = 0

    def copy(self, module: nn.Module) -> None:
        self.copies[self.names[module]] += 1

    def weight(self, module: Any, *_: Any, **__: Any) -> Any:
        """In place of comfy.ops.cast_bias_weight."""
        if not hasattr(module, "_prefetch"):
            self.copy(module)
        return module.weight, module.bias, None

    def prefetch(self, modules: list[Any], *_: Any, **__: Any) -> Any:
        """In place of comfy.ops.cast_modules_with_vbar."""
        for module in modules:
            self.copy(module)
            module._prefetch = {"signature": None}
        self.entries.append([self.names[module] for module in modules])
        return None, False

    def bytes(self, model: nn.Module) -> int:
        """Copied bytes, and the few parameters that are no layer's and stay on the device."""
        modules = dict(model.named_modules())
        copied = sum(times * size(modules[name]) for name, times in self.copies.items())
        return copied + sum(p.nbytes for n, p in model.named_parameters() if n.endswith("modulation"))


def size(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters(recurse=False))


@pytest.fixture
def model(pack: Pack) -> nn.Module:
    import comfy.ops

    config = pack.module("mova_core.config").MOVA
    built = pack.module("nodes.host.model.diffusion").MovaDiffusion(
        sizes=config, dtype=torch.bfloat16, device="meta", operations=comfy.ops.manual_cast, image_model="mova"
    )
    return built.requires_grad_(False)


def layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "comfy_cast_weights")]


def forward(pack: Pack, model: nn.Module, rows: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
        return torch.empty_like(q)

    monkeypatch.setattr("comfy.ldm.modules.attention.optimized_attention", attention)
    inputs = CLIP.inputs(model.sizes, torch.bfloat16)
    model(
        [inputs["video_latents"], inputs["audio_latents"]],
        inputs["video_timestep"],
        inputs["context"],
        transformer_options={**in_chunks(pack, *rows), "prefetch_dynamic_vbars": True},
        condition=inputs["condition"],
        fps=DEFAULT_FPS,
        shifts=SHIFTS,
        clean_streams=(False, False),
    )


@pytest.fixture(params=PATHS.values(), ids=PATHS)
def queue(pack: Pack, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> Link:
    """What ComfyUI's prefetch queue brought in a forward: under dynamic VRAM, where copies go beside computing."""
    link = Link(model)
    for module in layers(model):
        module._v = object()
    monkeypatch.setattr("comfy.model_prefetch.make_prefetch_queue", lambda queue, *_: [None, *queue, None])
    monkeypatch.setattr("comfy.model_management.ensure_pin_registerable", lambda size: None)
    monkeypatch.setattr("comfy.ops.cast_modules_with_vbar", link.prefetch)
    monkeypatch.setattr("comfy.ops.cast_bias_weight", link.weight)
    forward(pack, model, request.param, monkeypatch)
    return link


def test_the_queue_brings_each_weight_once_a_layer_at_a_time(model: nn.Module, queue: Link) -> None:
    assert set(queue.copies) == {queue.names[module] for module in layers(model)}
    assert set(queue.copies.values()) == {1}
    assert queue.bytes(model) == sum(p.nbytes for p in model.parameters())
    assert queue.bytes(model) / 1e9 == pytest.approx(GIGABYTES, abs=0.01)
    # An entry is a layer with all it uses
    assert len(queue.entries) == 40
    parts = ["blocks.{}.", "audio_dit.blocks.{}."]
    parts += [f"dual_tower_bridge.{way}_conditioners.{{}}." for way in ("audio_to_video", "video_to_audio")]
    for index, entry in enumerate(queue.entries):
        prefixes = [part.format(index) for part in parts[: 4 if index < 30 else 1]]
        assert all(any(name.startswith(prefix) for name in entry) for prefix in prefixes)
        assert all(name.startswith(tuple(prefixes)) for name in entry)
    assert not any(hasattr(module, "_prefetch") for module in layers(model))  # and nothing is left behind


@pytest.mark.parametrize("rows", PATHS.values(), ids=PATHS)
def test_without_a_queue_each_weight_is_copied_once_too(
    pack: Pack, model: nn.Module, rows: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low VRAM without dynamic VRAM: weights lie in host memory. `cast_to` is what copies them."""
    link, owner = Link(model), {}
    for module in layers(model):
        for name, parameter in module.named_parameters(recurse=False):
            away = Elsewhere(parameter)
            module._parameters[name] = away
            owner[away] = (module, name)

    def copied(weight: Any, *_: Any, **__: Any) -> Tensor:
        if isinstance(weight, Elsewhere):
            module, name = owner[weight]
            link.copies[f"{link.names[module]}.{name}"] += 1
            return torch.empty_like(weight.data)
        return weight

    monkeypatch.setattr("comfy.model_prefetch.make_prefetch_queue", lambda *_: None)
    monkeypatch.setattr("comfy.model_management.cast_to", copied)
    monkeypatch.setattr("comfy.model_management.get_offload_stream", lambda device: None)
    forward(pack, model, rows, monkeypatch)
    assert set(link.copies) == {
        f"{link.names[m]}.{n}" for m in layers(model) for n in m._parameters if m._parameters[n] is not None
    }
    assert set(link.copies.values()) == {1}
    assert all(isinstance(p, Elsewhere) for m in layers(model) for p in m.parameters(recurse=False))  # all put back


class Elsewhere(nn.Parameter):
    """A parameter of a meta model that says it lies on another device."""

    def __new__(cls, parameter: Tensor) -> "Elsewhere":
        return torch.Tensor._make_subclass(cls, parameter.data, False)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cpu")

    __hash__ = object.__hash__
    __eq__ = object.__eq__  # type: ignore[assignment]


def test_a_failed_forward_leaves_the_weights_where_they_were(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = pack.module("nodes.host.model.weights").resident
    import comfy.ops

    layer = comfy.ops.manual_cast.Linear(4, 4, device="cpu")
    weight = layer.weight
    forward = resident([layer], torch.device("meta"))
    forward.__enter__()
    assert layer.weight.device.type == "meta"
    assert not forward.__exit__(RuntimeError, RuntimeError("stop"), None)
    assert layer.weight is weight
