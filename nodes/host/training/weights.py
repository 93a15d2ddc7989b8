"""Weights and states of a training step on ComfyUI's memory management.

Autograd keeps weights for the way back. It refuses tensors that were made in inference mode, as ComfyUI's are, and it
would read what the next layer's weights have overwritten where both pass through one buffer. So each layer's weights are
made plain for as long as the layer runs, there and back; nothing of it outlives that.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import comfy.model_management
import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ....mova_core.errors import CheckpointError
from ....mova_core.model.mova import Mova
from ..keys import Options
from ..model.runtime import prefetch

FORCED = "comfy_force_cast_weights"
SHELF_GRAIN = 64  # bytes at whose multiples a state begins


@contextmanager
def plain(
    layer: Sequence[nn.Module], device: torch.device, dtype: torch.dtype, *, copied: bool = False
) -> Iterator[None]:
    """The weights of a layer as ordinary tensors in `dtype`: unpacked where they are quantised, once.

    They must be `resident` meanwhile, or are `copied`.
    """
    with ExitStack() as after:
        for module in {id(m): m for root in layer for m in root.modules() if hasattr(m, "comfy_cast_weights")}.values():
            if getattr(module, "weight", None) is not None:
                after.callback(_restore, module, dict(module._parameters), dict(vars(module)))
                for name, value in _cast(module, device, dtype, copied).items():
                    setattr(module, name, nn.Parameter(value, requires_grad=False))
                setattr(module, FORCED, True)  # or ComfyUI's layers would quantise what comes in
        yield


def _cast(module: nn.Module, device: torch.device, dtype: torch.dtype, copied: bool) -> dict[str, Tensor]:
    asked = {"dtype": dtype, "device": device, "bias_dtype": dtype}
    weight, bias, stream = comfy.ops.cast_bias_weight(module, **asked, offloadable=True)
    if isinstance(weight, QuantizedTensor):
        weight = weight.dequantize().to(dtype)
    cast = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    made = {name: ordinary(value).clone() if copied else ordinary(value) for name, value in cast.items()}
    comfy.ops.uncast_bias_weight(module, weight, bias, stream)
    return made


def _restore(module: nn.Module, parameters: dict[str, nn.Parameter | None], state: dict[str, object]) -> None:
    module._parameters.update(parameters)
    if FORCED in state:
        setattr(module, FORCED, state[FORCED])
    else:
        delattr(module, FORCED)


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or one over the same memory that autograd may keep."""
    if not tensor.is_inference():
        return tensor.detach()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def check_unpackable(model: nn.Module) -> None:
    """Accept weights that training can read: floating point, or quantised in a way that ComfyUI unpacks.

    Raises:
        CheckpointError: another loader's own packing, such as GGUF.
    """
    for name, parameter in model.named_parameters():
        value = parameter.data
        if not isinstance(value, QuantizedTensor) and not value.is_floating_point():
            raise CheckpointError(
                f"{name} is packed as {str(value.dtype).removeprefix('torch.')} by the loader of this MODEL, which training "
                "cannot unpack. Load it with 'MOVA Loader' or 'MOVA Model Loader'; int8 there needs as little memory"
            )


class Windows:
    """Brings each layer's weights, plain, for as long as it runs; `close` ends what an exception left open."""

    def __init__(self, device: torch.device, dtype: torch.dtype, options: Options) -> None:
        self.device, self.dtype, self.options = device, dtype, options
        self.open: list[Generator[None, None, None]] = []

    def __call__(self, layers: Sequence[Sequence[nn.Module]]) -> Generator[None, None, None]:
        """Fits `Runtime.prefetch`."""
        self.open = [self._through(layers)]
        return self.open[0]

    def _through(self, layers: Sequence[Sequence[nn.Module]]) -> Generator[None, None, None]:
        fetched = prefetch(self.device, self.options)(layers)
        try:
            for layer in layers:
                next(fetched)
                with plain(layer, self.device, self.dtype):
                    yield
            next(fetched)
            yield
        finally:
            fetched.close()

    def close(self) -> None:
        for through in self.open:
            through.close()


@contextmanager
def heads(model: Mova, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """The weights after the last layer, a megabyte, as copies: their graph spans both heads."""
    with plain([model.head, model.audio_dit.head], device, dtype, copied=True):
        yield


class HostShelf:
    """Layers' inputs in host memory, one upon the other; pinned, and copied beside the computation, where the device can.

    All of its memory is taken at once, before any weights are pinned: ComfyUI then pins what the rest has room for, where
    it would otherwise fill the memory that later layers need. `close` gives it back.
    """

    def __init__(self, device: torch.device, size: float) -> None:
        management = comfy.model_management
        self.device = device
        self.stream = torch.cuda.Stream(device) if management.is_device_cuda(device) else None
        self.memory = torch.empty(int(size), dtype=torch.uint8)
        self.pinned = self.stream is not None and management.pin_memory(self.memory)
        self.held: list[Tensor] = []  # places of what lies there, the uppermost last
        self.tops = [0]  # where each of them begins, and the next one would

    def empty(self) -> "HostShelf":
        """Itself, with nothing on it: a step that was broken off leaves things."""
        self.held.clear()
        del self.tops[1:]
        return self

    def put(self, state: Tensor) -> None:
        begin = self.tops[-1]
        place = self.memory[begin : begin + state.nbytes].view(state.dtype).view(state.shape)
        self.held.append(place)
        self.tops.append(begin + -(-state.nbytes // SHELF_GRAIN) * SHELF_GRAIN)
        if self.stream is None:
            place.copy_(state)
            return
        leaving = state.clone()  # the layer overwrites `state` at once
        self._beside(self.stream, lambda: place.copy_(leaving, non_blocking=True))
        leaving.record_stream(self.stream)

    def take(self) -> Tensor:
        place = self.held.pop()
        self.tops.pop()
        state = torch.empty(place.shape, dtype=place.dtype, device=self.device)
        if self.stream is None:
            state.copy_(place)
        else:  # the next copy to this place waits its turn in the same stream
            self._beside(self.stream, lambda: state.copy_(place, non_blocking=True))
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return state

    def close(self) -> None:
        """Give the memory back."""
        if self.stream is not None:
            self.stream.synchronize()
        if self.pinned:
            comfy.model_management.unpin_memory(self.memory)
        self.empty()
        self.memory, self.pinned = torch.empty(0, dtype=torch.uint8), False

    def _beside(self, stream: torch.cuda.Stream, copy: Callable[[], object]) -> None:
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            copy()
