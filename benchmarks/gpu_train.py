"""Time of a training step and its memory on a GPU, against the counts: `python -m benchmarks.gpu --train`.

One expert with audio tower and bridge, random bf16 weights, LoRA of rank 32 on every linear layer of blocks and bridge.
A step is streamed from pinned host memory, its layers' inputs lie there too; then the same with resident weights where
they fit. Beside it the forward of the same clip, for the ratio.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mova_core.estimate import Workload
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import DEFAULT_FPS, VideoShape
from mova_core.training.adapters import Adapters, targets
from mova_core.training.budget import RECOMPUTED_ROWS, activations, step_work
from mova_core.training.step import training_step

from .gpu import GIB, Streamed, random_inputs, synchronize
from .peak import SIZE_360P, Clip

RANK = 32
FRAMES = (49, 97)
COLUMNS = (
    "step",
    "s a sample",
    "step / forward",
    "TFLOP/s",
    "live GiB",
    "counted GiB",
    "reserved GiB",
    "gradient's norm",
)
HEADING = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row. `live` is what a step adds to weights, adapters and inputs at its peak, two layers in flight included
    where weights are streamed; `counted` is what is predicted of the activations. The gradient's norm is that of one
    step on the same draws: it tells whether streamed weights and kept states arrive whole."""

    name: str
    seconds: float
    forward: float
    tflops: float
    live: int
    counted: float
    reserved: int
    norm: float

    def row(self) -> str:
        return (
            f"| {self.name} | {self.seconds:.2f} | {self.seconds / self.forward:.2f} | {self.tflops:.1f} "
            f"| {self.live / GIB:.2f} | {self.counted / GIB:.2f} | {self.reserved / GIB:.2f} | {self.norm:.4e} |"
        )


class Pinned:
    """A shelf in pinned host memory, copied beside the computation; buffers stay from step to step."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.held = device, list[Tensor]()
        self.spare: dict[tuple[int, ...], list[Tensor]] = {}
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def put(self, state: Tensor) -> None:
        spare = self.spare.setdefault(tuple(state.shape), [])
        host = spare.pop() if spare else torch.empty(state.shape, dtype=state.dtype, pin_memory=self.stream is not None)
        self.held.append(host)
        if self.stream is None:
            host.copy_(state)
            return
        leaving = state.clone()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            host.copy_(leaving, non_blocking=True)
        leaving.record_stream(self.stream)

    def take(self) -> Tensor:
        host = self.held.pop()
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        state = host.to(self.device, non_blocking=True, copy=True)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.spare[tuple(host.shape)].append(host)
        return state


def adapters_of(model: Mova, device: torch.device, rank: int) -> Adapters:
    """LoRA with B other than zero, so that every gradient is one."""
    make = torch.Generator(device=device).manual_seed(1)
    state = {}
    for layer, (outputs, inputs) in targets(model.sizes, ("high", "audio", "bridge")).items():
        for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            values = torch.randn(shape, generator=make, device=device) * 0.01
            state[f"{layer}.lora_{half}.weight"] = nn.Parameter(values)
    return Adapters.attach(model, state, float(rank))


def measure(
    name: str,
    model: Mova,
    adapters: Adapters,
    clip: Clip,
    device: torch.device,
    *,
    low: bool,
    stream: bool,
    rounds: int,
) -> Measured:
    """The quickest step of `rounds` after one that warms up, and the quickest forward."""
    dtype = next(model.parameters()).dtype
    torch.manual_seed(0)
    inputs = random_inputs(clip, model.sizes, dtype, device)
    noise = {f"{s}_noise": torch.randn_like(inputs[f"{s}_latents"]) for s in ("video", "audio")}
    rows = {"ffn_rows": RECOMPUTED_ROWS, "query_rows": RECOMPUTED_ROWS} if low else {}
    run = Runtime(recompute=low, **rows, **({"prefetch": Streamed(device)} if stream else {}))
    shelf = Pinned(device)

    def step() -> None:
        done = training_step(model, adapters, **inputs, **noise, fps=DEFAULT_FPS, runtime=run, shelf=lambda: shelf)
        if not torch.isfinite(done.loss):
            raise RuntimeError(f"{name}: the loss is not finite")

    def forward() -> None:
        with torch.no_grad():
            model(**inputs, fps=DEFAULT_FPS, runtime=run)

    norm = _norm_of(step, adapters)
    seconds, live, reserved = _timed(step, device, rounds)
    forward()
    taken, _, _ = _timed(forward, device, rounds)
    load = Workload.of(VideoShape(batch=1, frames=clip.frames, height=clip.height, width=clip.width))
    return Measured(
        name=name,
        seconds=seconds,
        forward=taken,
        tflops=step_work(model.sizes, load, low=low).total / seconds / 1e12,
        live=live,
        counted=activations(model.sizes, load, low=low, element=dtype.itemsize),
        reserved=reserved,
        norm=norm,
    )


def _norm_of(step: Callable[[], None], adapters: Adapters) -> float:
    """Of all adapters' gradients after one step."""
    parameters = [parameter for _, parameter in adapters.named_parameters()]
    for parameter in parameters:
        parameter.grad = None
    step()
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def _timed(work: Callable[[], None], device: torch.device, rounds: int) -> tuple[float, int, int]:
    """Seconds of the quickest round of what has run before, the peak of memory over what was there, and reserved."""
    gc.collect()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before, taken = torch.cuda.memory_allocated(device) if cuda else 0, []
    for _ in range(rounds):
        synchronize(device)
        begun = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - begun)
    if not cuda:
        return min(taken), 0, 0
    return min(taken), torch.cuda.max_memory_allocated(device) - before, torch.cuda.max_memory_reserved(device)


def steps(
    model: Mova, clips: list[Clip], device: torch.device, rounds: int, stream: bool, rank: int = RANK
) -> Iterator[Measured]:
    """Each clip streamed on both paths, or with resident weights."""
    adapters = adapters_of(model, device, rank)
    paths = (("streamed, whole", False), ("streamed, low", True)) if stream else (("resident, whole", False),)
    for clip in clips:
        for path, low in paths:
            named = f"{clip.width}x{clip.height}, {clip.frames} pictures, {path}"
            yield measure(named, model, adapters, clip, device, low=low, stream=stream, rounds=rounds)


def clips_of(frames: tuple[int, ...] = FRAMES) -> list[Clip]:
    return [Clip(height=SIZE_360P[0], width=SIZE_360P[1], frames=count) for count in frames]
