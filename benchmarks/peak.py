"""Account for every byte of a forward pass at full size, without the memory: tensors on torch's meta device.

A `Ledger` sees each operator. It enters the storage of every result that is not in its books yet, rounded up to the
512 bytes that allocators hand out, and strikes it when the last tensor on it is gone. So the peak it reports follows
from the lifetimes of the real code. Weights and inputs are entered beforehand; weights do not count.

Not seen: what a kernel takes for itself while it runs (matrix product workspace, tens of MB), and the CUDA context.
Attention is modelled as a fused kernel: its result and a float32 logarithm a head and query. So is RMS norm, which
torch has one kernel for on a GPU only.

Axes: B batch, L queries, S keys, N heads, K head width.
"""

import dataclasses
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mova_core.config import MOVA, MovaConfig
from mova_core.model.mova import Mova
from mova_core.ops import Place, Runtime, learning
from mova_core.shapes import DEFAULT_FPS, AudioShape, VideoShape, audio_latent_shape, audio_steps, video_latent_shape
from mova_core.text import CONTEXT_ROWS
from mova_core.training.adapters import Adapters, targets
from mova_core.training.step import training_step

GIB = 2**30
GRAIN = 512  # bytes, the allocators' smallest unit
SIZE_360P = (352, 640)  # height, width
SIZE_720P = (720, 1280)
FRAMES = 193
MATRIX = ("mm", "addmm", "bmm", "baddbmm", "convolution")
NO_TRAFFIC = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", *MATRIX)


@dataclass(frozen=True)
class Entry:
    """One storage: its bytes, the operator that made it, and the shape and dtype of the first tensor on it."""

    bytes: int
    made_by: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Ledger(TorchDispatchMode):
    """Books of live storages, memory traffic and floating point work while it is active.

    Attributes:
        now, peak: bytes of live storages, weights apart.
        at_peak: what was live then, largest first.
        largest: dtype -> bytes of the largest storage of that dtype.
        matrix_flops, attention_flops: multiplications and additions.
        traffic: operator -> bytes read and written by everything but matrix products and attention.
    """

    def __init__(self, grain: int = GRAIN) -> None:
        super().__init__()
        self.grain = grain
        self.fused = _Fused(self)
        self.live: dict[int, Entry] = {}
        self.watched: dict[int, weakref.ref[Any]] = {}
        self.weights: set[int] = set()
        self.now = self.peak = self.matrix_flops = self.attention_flops = 0
        self.at_peak: list[Entry] = []
        self.largest: Counter[torch.dtype] = Counter()
        self.traffic: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.split("::")[-1]
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in results:
            self.enter(tensor, name)
        if self.now > self.peak:
            self.peak = self.now
            self.at_peak = sorted(self.live.values(), key=lambda entry: -entry.bytes)
        self._count(func, name, args, kwargs, result, results)
        return result

    def __enter__(self) -> "Ledger":
        self.fused.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.fused.__exit__(*raised)

    def enter(self, tensor: Tensor, made_by: str) -> None:
        """Book the storage of `tensor` unless it is known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live or key in self.weights:
            return
        size = -(-storage.nbytes() // self.grain) * self.grain
        self.live[key] = Entry(size, made_by, tuple(tensor.shape), tensor.dtype)
        self.now += size
        self.largest[tensor.dtype] = max(self.largest[tensor.dtype], size)
        self.watched[key] = weakref.ref(storage, lambda _: self._strike(key))

    def exclude(self, module: nn.Module) -> None:
        """Leave the weights of `module` out of the books."""
        self.weights |= {p.untyped_storage()._cdata for p in (*module.parameters(), *module.buffers())}

    def _strike(self, key: int) -> None:
        self.now -= self.live.pop(key).bytes
        del self.watched[key]

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, result: Any, results: list[Tensor]) -> None:
        packet = func._overloadpacket
        if packet in flop_registry:
            self.matrix_flops += flop_registry[packet](*args, **kwargs, out_val=result)
        if name in NO_TRAFFIC or _is_view(func):
            return
        given = args[1:] if name == "copy_" else (args, {k: v for k, v in kwargs.items() if k != "out"})
        read = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        written = results or [a for a, s in zip(args, func._schema.arguments) if s.alias_info and s.alias_info.is_write]
        self.traffic[name] += sum(map(_bytes, read)) + sum(map(_bytes, written))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None) -> Tensor:
        """A fused kernel on (B, L, N*K) queries and (B, S, N*K) keys and values; fits `Runtime.attention`."""
        if learning(q, k, v):
            return _Attention.apply(self, heads, q, k, v)  # type: ignore[no-any-return, no-untyped-call]
        batch, queries, width = q.shape
        out = torch.empty_like(q)
        q.new_empty((batch, heads, queries), dtype=torch.float32)  # log of the softmax's sum, gone at once
        self.attention_flops += 4 * batch * queries * k.shape[1] * width
        return out


class _Attention(torch.autograd.Function):
    """The kernel with its gradient: kept are q, k, v, the result and the softmax's logarithms; products of two
    and a half times the forward's work, and queries' gradients summed in float32."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, heads: int, *qkv: Tensor) -> Tensor:
        q, k, _ = qkv
        batch, queries, width = q.shape
        out = torch.empty_like(q)
        ctx.ledger, ctx.work = ledger, 4 * batch * queries * k.shape[1] * width
        ctx.save_for_backward(*qkv, out, q.new_empty((batch, heads, queries), dtype=torch.float32))
        ledger.attention_flops += ctx.work
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, _, sums = ctx.saved_tensors
        ctx.ledger.attention_flops += ctx.work * 5 // 2
        found = [torch.empty_like(each) for each in (q, k, v)]
        summed = torch.empty_like(q, dtype=torch.float32)
        shares = torch.empty_like(sums)
        del summed, shares
        return None, None, *found


class _Norm(torch.autograd.Function):
    """RMS norm with its gradient: kept are what went in and a float32 factor a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.empty_like(gradient)


class _Fused(TorchFunctionMode):
    """RMS norm of tensors without memory is one kernel, as on a GPU: its result and a float32 factor a row."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.rms_norm or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        if learning(args[0]):
            return _Norm.apply(args[0])  # type: ignore[no-untyped-call]
        out = torch.empty_like(args[0])
        factors = out.new_empty(out.shape[:-1], dtype=torch.float32)
        moved = (leaf for leaf in (*tree_leaves((args, kwargs)), out, factors) if isinstance(leaf, Tensor))
        self.ledger.traffic["rms_norm"] += sum(map(_bytes, moved))
        return out


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _bytes(tensor: Tensor) -> int:
    """What reading or writing `tensor` moves; a broadcast one is held in cache."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


@contextmanager
def ungraded() -> Iterator[None]:
    """No gradients, and no inference mode either: in that one, a linear layer is one operator of unknown work."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def few_layers(layers: int, plain: int = 1, config: MovaConfig = MOVA) -> MovaConfig:
    """`config` with `layers` layers of both towers and the bridge, and `plain` more of the video tower alone."""
    return MovaConfig(
        video=dataclasses.replace(config.video, layers=layers + plain),
        audio=dataclasses.replace(config.audio, layers=layers),
        bridge=dataclasses.replace(config.bridge, layers=layers),
    )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What is denoised: pictures of (height, width), `frames` of them, and their sound."""

    height: int
    width: int
    frames: int = FRAMES
    batch: int = 1

    def inputs(self, config: MovaConfig, dtype: torch.dtype) -> dict[str, Tensor]:
        """Arguments of `Mova.forward` without memory; latents and timesteps are float32, as samplers keep them."""
        video = video_latent_shape(
            VideoShape(batch=self.batch, frames=self.frames, height=self.height, width=self.width)
        )
        steps = audio_steps(self.frames, DEFAULT_FPS)
        audio = audio_latent_shape(AudioShape(batch=self.batch, steps=steps), config.audio.in_channels)
        condition = (self.batch, config.condition_channels, *video[2:])
        return {
            "video_latents": torch.empty(video, device="meta"),
            "audio_latents": torch.empty(audio, device="meta"),
            "context": torch.empty(self.batch, CONTEXT_ROWS, config.video.text_width, dtype=dtype, device="meta"),
            "video_timestep": torch.empty(self.batch, device="meta"),
            "audio_timestep": torch.empty(self.batch, device="meta"),
            "condition": torch.empty(condition, device="meta"),
        }


def account(clip: Clip, config: MovaConfig, run: Callable[[Ledger], Runtime]) -> Ledger:
    """The books of one joint forward on plain torch layers, bf16; `run(ledger)` makes its Runtime."""
    with ungraded():
        model = Mova(config, device="meta", dtype=torch.bfloat16).requires_grad_(False)
        inputs = clip.inputs(config, torch.bfloat16)
        ledger = Ledger()
        ledger.exclude(model)
        for name, tensor in inputs.items():
            ledger.enter(tensor, name)
        with ledger:
            velocities = model(**inputs, fps=DEFAULT_FPS, runtime=run(ledger))
        del velocities
    return ledger


def at_depth(measure: Callable[[MovaConfig], float], config: MovaConfig = MOVA) -> float:
    """What `measure` would say of all layers, from three shallow models: work and traffic are sums over layers."""
    base, joined, alone = (measure(few_layers(*layers, config)) for layers in ((1, 1), (2, 1), (1, 2)))
    bridged = config.bridge.layers
    return base + (bridged - 1) * (joined - base) + (config.video.layers - bridged - 1) * (alone - base)


# Training


class HostShelf:
    """Where a counted training step keeps its layers' inputs: in host memory, beside the books of the device."""

    def __init__(self) -> None:
        self.held: list[tuple[tuple[int, ...], torch.dtype]] = []
        self.bytes = 0

    def put(self, state: Tensor) -> None:
        self.held.append((tuple(state.shape), state.dtype))
        self.bytes += state.numel() * state.element_size()

    def take(self) -> Tensor:
        shape, dtype = self.held.pop()
        return torch.empty(shape, dtype=dtype, device="meta")


def account_step(clip: Clip, config: MovaConfig, rank: int, run: Callable[[Ledger], Runtime]) -> tuple[Ledger, int]:
    """The books of one training step of a batch of one, bf16 base, LoRA on every linear layer of blocks and bridge;
    and the bytes of host memory its layers' inputs take. Adapters and their gradients are not in the books."""
    with torch.inference_mode(False), torch.enable_grad():
        model = Mova(config, device="meta", dtype=torch.bfloat16).requires_grad_(False)
        state = fresh_on_meta(config, rank)
        adapters = Adapters.attach(model, state, float(rank))
        inputs = clip.inputs(config, torch.bfloat16)
        inputs |= {f"{s}_noise": torch.empty_like(inputs[f"{s}_latents"]) for s in ("video", "audio")}
        for parameter in state.values():  # its gradient is there: adding to it takes nothing more
            parameter.grad = torch.empty_like(parameter)
        ledger, shelf = Ledger(), HostShelf()
        ledger.exclude(model)
        ledger.weights |= {t.untyped_storage()._cdata for p in state.values() for t in (p, p.grad) if t is not None}
        for name, tensor in inputs.items():
            ledger.enter(tensor, name)
        with ledger:
            training_step(model, adapters, **inputs, fps=DEFAULT_FPS, runtime=run(ledger), shelf=lambda: shelf)
    return ledger, shelf.bytes


def fresh_on_meta(config: MovaConfig, rank: int) -> dict[str, nn.Parameter]:
    """LoRA parameters of one expert, audio tower and bridge, without memory."""
    found = {}
    for layer, (outputs, inputs) in targets(config, ("high", "audio", "bridge")).items():
        found[f"{layer}.lora_A.weight"] = nn.Parameter(torch.empty(rank, inputs, device="meta"))
        found[f"{layer}.lora_B.weight"] = nn.Parameter(torch.empty(outputs, rank, device="meta"))
    return found
