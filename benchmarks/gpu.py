"""Time of a forward and its memory on a GPU, against the predictions. Needs no checkpoint and no ComfyUI.

    python -m benchmarks.gpu [--cap GIB] [--ballast] [--frames N] [--sizes 360p 720p] [--rounds N]
                             [--ceilings] [--forward] [--train] [--fast]

Random bf16 weights of the published size are made on the device, never zeros (a GPU multiplies zeros faster), and
copied to pinned host memory. For 352x640 and 720x1280 it measures the forward with every layer streamed from the host,
one ahead, on both memory paths, and then, the cap lifted, with all weights resident if they fit. `--cap` binds torch's
allocator; `--ballast` has another process hold the rest of the card, for allocators that the cap does not bind. A short
clip warms up; the large size runs once, since a minute's work says enough. `--ceilings` first measures what the card
can do: matrix products, attention by each of torch's kernels, the link. `--train` measures training steps
(benchmarks/gpu_train.py), `--fast` the parts of a fast step (benchmarks/gpu_fast.py); `--forward` takes the forwards
in too, all on the same model. Prints tables for benchmarks/GPU.md.

What the streaming here shows is the bound: copies one layer ahead on a stream of their own. ComfyUI's own prefetch is
measured by benchmarks/gpu_comfy.py, the official pipeline by benchmarks/official.py.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mova_core.config import MOVA, MovaConfig
from mova_core.estimate import CHUNKED, FULL, ChunkSizes, Workload, activations, work
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import DEFAULT_FPS, VideoShape

from .peak import SIZE_360P, SIZE_720P, Clip

GIB = 2**30
WARM = 9  # frames of the clip that warms up
LARGE = 500_000  # pixels
BALLAST = """
import sys, time, torch
held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(86400)
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of the table. Bytes are torch's peaks; `predicted` counts activations alone, of our forward."""

    name: str
    seconds: float
    tflops: float
    live: int
    reserved: int
    predicted: float | None
    copied: int

    def row(self) -> str:
        predicted = "-" if self.predicted is None else f"{self.predicted / GIB:.2f}"
        return (
            f"| {self.name} | {self.seconds:.3f} | {self.tflops:.1f} | {self.live / GIB:.2f} "
            f"| {self.reserved / GIB:.2f} | {predicted} | {self.copied / 1e9:.2f} |"
        )


class Row(Protocol):
    """A line of a table."""

    def row(self) -> str: ...


@dataclass(frozen=True)
class Table:
    """Rows that `rows(model, device=, rounds=, stream=)` measures, with or without gradients."""

    heading: str
    rows: Callable[..., Iterator[Row]]
    inference: bool = True


HEADING = (
    "| run | s a forward | TFLOP/s | live GiB | reserved GiB | predicted activations GiB | copied GB |\n"
    "|---|---|---|---|---|---|---|"
)


def random_model(config: MovaConfig, device: torch.device, dtype: torch.dtype) -> Mova:
    """Weights like trained ones in scale, made on `device`, layer by layer copied to the host in pinned memory."""
    model = Mova(config, device="meta", dtype=dtype).requires_grad_(False)
    make = torch.Generator(device=device).manual_seed(0)
    for module in model.modules():
        for name, meta in module.named_parameters(recurse=False):
            values = torch.randn(meta.shape, generator=make, device=device, dtype=dtype) * 0.02
            if "norm" in name or isinstance(module, nn.LayerNorm | nn.RMSNorm):
                values += 1
            host = torch.empty(meta.shape, dtype=dtype, pin_memory=device.type == "cuda")
            setattr(module, name, nn.Parameter(host.copy_(values), requires_grad=False))
    return model


def parameters(layer: Sequence[nn.Module]) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Where each parameter of a layer hangs."""
    return [(m, n, p) for root in layer for m in root.modules() for n, p in m.named_parameters(recurse=False)]


class Streamed:
    """Fits Runtime.prefetch: each layer's weights on the device while it runs, the next ones on their way."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.copied = device, 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
        home = [parameters(layer) for layer in layers]
        ahead = self._copy(home[0])
        for index in range(len(layers)):
            self._wait(ahead)
            for (module, name, _), parameter in zip(home[index], ahead, strict=True):
                setattr(module, name, parameter)
            ahead = self._copy(home[index + 1]) if index + 1 < len(layers) else []
            try:
                yield
            finally:
                for module, name, parameter in home[index]:
                    setattr(module, name, parameter)
        yield

    def _copy(self, layer: list[tuple[nn.Module, str, nn.Parameter]]) -> list[nn.Parameter]:
        self.copied += sum(parameter.nbytes for _, _, parameter in layer)
        if self.stream is None:
            return [nn.Parameter(p.to(self.device, copy=True), requires_grad=False) for _, _, p in layer]
        self.stream.wait_stream(torch.cuda.current_stream(self.device))  # what it writes over has been read
        with torch.cuda.stream(self.stream):
            return [nn.Parameter(p.to(self.device, non_blocking=True), requires_grad=False) for _, _, p in layer]

    def _wait(self, layer: list[nn.Parameter]) -> None:
        if self.stream is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for parameter in layer:
            parameter.record_stream(current)


def ends_to(model: Mova, device: torch.device) -> None:
    """Everything that is in no layer: embeddings, heads."""
    inside = {id(m) for layer in model.layer_modules() for root in layer for m in root.modules()}
    for module in model.modules():
        if id(module) not in inside:
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.to(device), requires_grad=False))


def resident_to(model: Mova, device: torch.device) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.to(device), requires_grad=False))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    name: str, model: Mova, clip: Clip, rows: ChunkSizes, device: torch.device, rounds: int, stream: bool
) -> Measured:
    """The median forward of `rounds`, after a short one that warms up."""
    dtype = next(model.parameters()).dtype
    first, inputs = (random_inputs(c, model.sizes, dtype, device) for c in (replace(clip, frames=WARM), clip))
    streamed = Streamed(device) if stream else None
    options = {"prefetch": streamed} if streamed else {}
    run = Runtime(ffn_rows=rows.feed_forward, query_rows=rows.queries, **options)
    taken = []
    model(**first, fps=DEFAULT_FPS, runtime=run)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    for _ in range(rounds):
        if streamed:
            streamed.copied = 0
        synchronize(device)
        begun = time.perf_counter()
        velocities = model(**inputs, fps=DEFAULT_FPS, runtime=run)
        synchronize(device)
        taken.append(time.perf_counter() - begun)
        if not all(torch.isfinite(velocity).all() for velocity in velocities):
            raise RuntimeError(f"{name}: a velocity is not finite")
    seconds = statistics.median(taken)
    load = Workload.of(VideoShape(batch=clip.batch, frames=clip.frames, height=clip.height, width=clip.width))
    live, reserved = 0, 0
    if device.type == "cuda":
        live, reserved = torch.cuda.max_memory_allocated(device) - before, torch.cuda.max_memory_reserved(device)
    return Measured(
        name=name,
        seconds=seconds,
        tflops=work(model.sizes, load).total / seconds / 1e12,
        live=live,
        reserved=reserved,
        predicted=activations(model.sizes, load, rows),
        copied=streamed.copied if streamed else 0,
    )


def random_inputs(clip: Clip, config: MovaConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Arguments of `Mova.forward` for a clip: noise, and timesteps in 0..1000."""
    empty = clip.inputs(config, dtype)
    drawn = {name: torch.randn(meta.shape, device=device).to(meta.dtype) for name, meta in empty.items()}
    return {name: x.abs() * 300 if x.ndim == 1 else x for name, x in drawn.items()}


@contextmanager
def ballast(size: int) -> Iterator[None]:
    """Another process that holds `size` bytes of the card, so that nobody sees them free."""
    with subprocess.Popen([sys.executable, "-c", BALLAST, str(size)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "held":
            raise RuntimeError("the ballast process could not take its memory")
        try:
            yield
        finally:
            process.kill()


def ceilings(device: torch.device, rows: int = 16384, tokens: int = 43120) -> Iterator[str]:
    """Lines of what the card can do: the best that the rows of the table could reach."""
    a, b = (torch.randn(shape, device=device, dtype=torch.bfloat16) for shape in ((rows, 5120), (5120, 13824)))
    yield f"matrix products of {rows} rows: {2 * rows * 5120 * 13824 / fastest(lambda: a @ b) / 1e12:.0f} TFLOP/s"
    q, k, v = (torch.randn(1, 40, tokens, 128, device=device, dtype=torch.bfloat16) for _ in range(3))
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(kernel):
            seconds = fastest(lambda: F.scaled_dot_product_attention(q, k, v), 3)
        rate = 4 * 40 * 128 * tokens**2 / seconds / 1e12
        yield f"attention of {tokens} tokens, {kernel.name}: {rate:.0f} TFLOP/s"
    for pinned in (True, False):
        host = torch.ones(2**30, dtype=torch.uint8, pin_memory=pinned)
        seconds = fastest(lambda host=host: host.to(device, non_blocking=True), 3)
        yield f"host to device, {'pinned' if pinned else 'pageable'}: {2**30 / seconds / 1e9:.1f} GB/s"


def fastest(work: Callable[[], object], rounds: int = 10) -> float:
    """Seconds of the quickest of some rounds on the GPU, after one that warms up."""
    taken = []
    for _ in range(1 + rounds):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def forwards(
    model: Mova, clips: dict[str, Clip], device: torch.device, rounds: int, stream: bool
) -> Iterator[Measured]:
    """Forwards streamed on both paths, or resident. A large clip runs once."""
    paths = (("streamed, whole", FULL), ("streamed, low memory", CHUNKED)) if stream else (("resident", FULL),)
    for size, clip in clips.items():
        count = rounds if clip.height * clip.width < LARGE else 1
        for path, rows in paths:
            yield measure(f"{size}, {path}", model, clip, rows, device, count, stream=stream)


def tables(given: argparse.Namespace) -> Iterator[Table]:
    """What was asked for; plain forwards where nothing was."""
    from . import gpu_fast, gpu_train  # which build on this module

    sizes = {"360p": SIZE_360P, "720p": SIZE_720P}
    chosen = [sizes[name] for name in given.sizes]
    clips = {f"{h}x{w}": Clip(height=h, width=w, frames=given.frames) for h, w in chosen}
    if given.forward or not (given.train or given.fast):
        yield Table(HEADING, partial(forwards, clips=clips))
    if given.train:
        yield Table(gpu_train.HEADING, partial(gpu_train.steps, clips=gpu_train.clips_of()), inference=False)
    if given.fast:
        yield Table(gpu_fast.HEADING, partial(gpu_fast.parts, clips=clips))


def measure_all(model: Mova, asked: Sequence[Table], device: torch.device, rounds: int) -> Iterator[str]:
    """Lines: every table with streamed weights; then, the cap lifted, with resident ones where everything fits."""
    ends_to(model, device)
    for stream in (True, False):
        if not stream:
            if device.type == "cuda":
                torch.cuda.set_per_process_memory_fraction(1.0, device)
            try:
                resident_to(model, device)
            except torch.OutOfMemoryError:
                return
        for table in asked:
            yield "\n" + table.heading
            with torch.inference_mode(table.inference):
                for row in table.rows(model, device=device, rounds=rounds, stream=stream):
                    yield row.row()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=float, default=24.0, help="GiB that torch may take; 0 for all of the card")
    parser.add_argument("--ballast", action="store_true", help="hold the rest of the card in another process")
    parser.add_argument("--frames", type=int, default=193)
    parser.add_argument("--sizes", nargs="+", choices=("360p", "720p"), default=("360p", "720p"))
    parser.add_argument("--rounds", type=int, default=3, help="forwards of the small size; the large one runs once")
    parser.add_argument("--ceilings", action="store_true", help="first measure what the card can do")
    parser.add_argument("--forward", action="store_true", help="forwards, also beside one of the following")
    parser.add_argument("--train", action="store_true", help="training steps of 49 and 97 pictures")
    parser.add_argument("--fast", action="store_true", help="parts of a fast step, and sparse attention")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return 1
    device = torch.device("cuda", 0)
    total = torch.cuda.get_device_properties(device).total_memory
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, cap {given.cap or total / GIB:.1f} GiB\n")
    for line in ceilings(device) if given.ceilings else ():
        print(line, flush=True)
    torch.cuda.empty_cache()
    if given.cap:
        torch.cuda.set_per_process_memory_fraction(min(1.0, given.cap * GIB / total), device)
    rest = int(total - given.cap * GIB) if given.ballast and given.cap else 0
    with ballast(rest) if rest > 0 else nullcontext():
        model = random_model(MOVA, device, torch.bfloat16)
        for line in measure_all(model, list(tables(given)), device, given.rounds):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
