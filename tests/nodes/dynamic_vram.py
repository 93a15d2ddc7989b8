"""ComfyUI's dynamic VRAM on the CPU: its patcher and layers as they are, over a card that is this process's own memory.

Under dynamic VRAM weights stay on the host; before a layer computes, they are brought to the card, into the place that
`comfy_aimdo` keeps for each, or where the card has no room into a buffer for the moment. `Card` stands for the card
and for that library. Host weights are `HostWeight`: they can be copied and nothing else, so a computation that takes a
weight that was not brought fails, as it would between two devices.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor, nn

from benchmarks.comfy_path import in_chunks
from tests.in_process import Pack

CARD = torch.device("cpu", 0)  # not equal to torch.device("cpu"), where tensors made on it are all the same
HOST = torch.device("meta")  # what a host weight says of itself
COPYING = {
    "to",
    "copy_",
    "detach",
    "untyped_storage",
    "numel",
    "element_size",
    "size",
    "dim",
    "stride",
    "is_contiguous",
}
COPYING |= {
    "requires_grad_",
    "storage_offset",
    "__hash__",
    "data_ptr",
    "nelement",
    "is_floating_point",
    "is_pinned",
    "empty_like",
}


class HostWeight(nn.Parameter):
    """A parameter in host memory."""

    def __new__(cls, parameter: Tensor) -> HostWeight:
        return torch.Tensor._make_subclass(cls, parameter.data, False)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return HOST

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        if name not in COPYING | {"__get__", "__set__"}:
            raise RuntimeError(f"{name} computes with a weight in host memory")
        with torch._C.DisableTorchFunctionSubclass():
            made = function(*args, **(kwargs or {}))
            if name == "__set__":  # of its data, by the patcher, to what lies on the card
                args[0].__class__ = nn.Parameter
            return made.clone() if name == "to" and made is args[0] else made


class Stream:
    """Of copies: they are done when asked for."""

    def wait_stream(self, other: Any) -> None:
        """Nothing is under way."""

    def as_context(self, stream: Any) -> Any:
        return nullcontext()


class Buffer:
    """Room on the card for the weights of one layer on their way."""

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def size(self) -> int:
        return len(self.bytes)

    def get(self, size: int, offset: int = 0) -> tuple[Buffer, int, int]:
        if size + offset > len(self.bytes):
            kept, self.bytes = self.bytes, torch.full((size + offset,), 0xFF, dtype=torch.uint8)
            self.bytes[: len(kept)] = kept
        return self, offset, size


class Places:
    """A model's weights on the card, as `comfy_aimdo.model_vbar.ModelVBAR`: the first to come stay, up to a size."""

    def __init__(self, card: Card) -> None:
        self.card, self.offset = card, 0
        self.bytes: dict[int, Tensor] = {}
        self.pinned: Counter[int] = Counter()

    def prioritize(self) -> None:
        """There is no other."""

    def loaded_size(self) -> int:
        return sum(map(len, self.bytes.values()))

    def free_memory(self, size: float) -> int:
        freed = self.loaded_size()
        assert not +self.pinned, "weights in use were given away"
        self.bytes.clear()
        self.card.generation += 1
        return freed

    def alloc(self, size: int) -> tuple[Places, int, int]:
        self.offset += 1
        return self, self.offset, size

    def fault(self, place: int, size: int) -> bytes | None:
        if place not in self.bytes:
            if self.loaded_size() + size > self.card.room:
                return None
            self.bytes[place] = torch.full((size,), 0xFF, dtype=torch.uint8)
            self.card.brought += 1
        self.pinned[place] += 1
        return self.card.generation.to_bytes(4, "little") + place.to_bytes(4, "little")

    def unpin(self, place: int) -> None:
        self.pinned[place] -= 1
        assert self.pinned[place] >= 0, "given back more often than taken"


class Card:
    """A card with `room` bytes for the weights of each model, and `streams` that copy beside computing."""

    def __init__(self, room: float, streams: int = 2) -> None:
        self.room, self.copying, self.generation, self.brought = room, streams, 1, 0
        self.models: list[Places] = []
        self.streams, self.turn = [(Stream(), Buffer()), (Stream(), Buffer())], 0

    def places(self, size: float, index: int) -> Places:
        self.models.append(Places(self))
        return self.models[-1]

    def next_stream(self, device: Any) -> Stream | None:
        if not self.copying:
            return None
        self.turn = 1 - self.turn
        return self.streams[self.turn][0]

    def buffer(self, stream: Stream, device: Any) -> Buffer:
        return next(buffer for each, buffer in self.streams if each is stream)

    @staticmethod
    def tensor(place: tuple[Any, int, int], device: Any) -> Tensor:
        """In place of comfy_aimdo.torch.aimdo_to_tensor."""
        owner, offset, size = place
        if isinstance(owner, Places):
            return owner.bytes[offset]
        return owner.bytes[offset : offset + size]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let ComfyUI find this card, and its dynamic VRAM switched on."""
        import comfy.memory_management
        import comfy.model_management
        import comfy.model_patcher

        management = "comfy.model_management"
        monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
        monkeypatch.setattr(f"{management}.is_device_cpu", lambda device: device is None)
        monkeypatch.setattr(f"{management}.get_torch_device", lambda: CARD)
        monkeypatch.setattr(f"{management}.NUM_STREAMS", self.copying)
        monkeypatch.setattr(f"{management}.get_offload_stream", self.next_stream)
        monkeypatch.setattr(f"{management}.current_stream", lambda device: Stream())
        monkeypatch.setattr(f"{management}.get_aimdo_cast_buffer", self.buffer)
        monkeypatch.setattr(f"{management}.ensure_pin_registerable", lambda size: None)
        monkeypatch.setattr("comfy.pinned_memory.pin_memory", lambda *_, **__: False)
        monkeypatch.setattr("comfy.pinned_memory.get_pin", lambda *_, **__: None)
        monkeypatch.setattr("comfy_aimdo.torch.aimdo_to_tensor", self.tensor)
        monkeypatch.setattr("comfy_aimdo.host_buffer.HostBuffer", HostBuffer)
        monkeypatch.setattr("comfy_aimdo.model_mmap.ModelMMAP", MappedFile)
        monkeypatch.setattr("comfy_aimdo.model_vbar.ModelVBAR", self.places)
        monkeypatch.setattr("comfy_aimdo.model_vbar.vbar_fault", lambda place: place[0].fault(*place[1:]))
        monkeypatch.setattr("comfy_aimdo.model_vbar.vbar_unpin", lambda place: place and place[0].unpin(place[1]))
        monkeypatch.setattr("comfy_aimdo.model_vbar.vbars_analyze", lambda *_: 0)


def hold(module: nn.Module) -> None:
    """Put the weights of a module into host memory. Quantised ones are no single storage, and stay what they are."""
    for each in module.modules():
        for name, parameter in list(each.named_parameters(recurse=False)):
            if type(parameter.data).__name__ != "QuantizedTensor":
                setattr(each, name, HostWeight(parameter))


class HostBuffer:
    """Pinned host memory, of which none is taken here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.size = 0


class MappedFile:
    """A file in memory, as `comfy_aimdo.model_mmap.ModelMMAP`."""

    def __init__(self, path: str) -> None:
        self.file = Path(path).open("rb")  # noqa: SIM115, tensors read from it as long as they live
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)

    def get(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def get_file_handle(self) -> BinaryIO:
        return self.file


ROOMS = {"all stay": 1e12, "some stay": 3e6, "none stays": 0}


STREAMS = {"copies beside computing": 2, "one after the other": 0}


CHUNKS = (17, 13)  # each layer's weights are used several times a forward


def on_card(
    pack: Pack, diffusers: Path, card: Card, monkeypatch: pytest.MonkeyPatch, weight_dtype: str = "fp32"
) -> Any:
    """The tiny MODEL with its weights in host memory, beside a card."""
    card.install(monkeypatch)
    source = pack.module("mova_core.checkpoint.source").from_folder(diffusers / "tiny")
    model = pack.module("nodes.host.loaders.loading").load_model(source, weight_dtype)
    model.model_options.setdefault("transformer_options", {}).update(in_chunks(pack, *CHUNKS))
    assert model.is_dynamic()
    assert model.low.is_dynamic()
    for each in (model, model.low):
        hold(each.model.diffusion_model)
    return model
