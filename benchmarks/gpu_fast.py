"""Parts of a fast step on a GPU: picture, teacher, the sound's own steps, and self-attention dense and sparse.

    python -m benchmarks.gpu --fast

Random bf16 weights of the published size, streamed and resident; a step of *light* or *high* is the sum of its parts.
Keys and values lie on the device or wait in pinned host memory. Sparse attention is compiled before it is timed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mova_core.config import MovaConfig
from mova_core.estimate import FULL
from mova_core.model.audio_only import audio_velocity
from mova_core.model.compact import compacted
from mova_core.model.mova import Mova
from mova_core.model.sparse import Kernel, Sparsity, attend, fused
from mova_core.model.teacher import collect
from mova_core.ops import KeysValues, Place, Runtime, sdpa
from mova_core.shapes import DEFAULT_FPS

from .gpu import Streamed, random_inputs, synchronize
from .peak import Clip

HEADING = "| part | seconds |\n|---|---|"
SUBSTEPS = 4


@dataclass(frozen=True)
class Part:
    """One row of the table."""

    name: str
    seconds: float

    def row(self) -> str:
        return f"| {self.name} | {self.seconds:.3f} |"


def timed(device: torch.device, work: Callable[[], object], rounds: int) -> float:
    """Seconds of the quickest of some rounds, after one that warms up."""
    taken = []
    for _ in range(1 + rounds):
        synchronize(device)
        begun = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def step_parts(model: Mova, clip: Clip, device: torch.device, rounds: int, stream: bool) -> Iterator[Part]:
    """Picture, teacher and sound of one step, and their sums as light and high."""
    inputs = random_inputs(clip, model.sizes, next(model.parameters()).dtype, device)
    kept: dict[int, KeysValues | None] = {}
    options = {"prefetch": Streamed(device)} if stream else {}
    run = Runtime(ffn_rows=FULL.feed_forward, keep=kept.__setitem__, **options)
    lies = "streamed" if stream else "resident"
    picture = timed(device, lambda: model(**inputs, fps=DEFAULT_FPS, runtime=run), rounds)
    yield Part(f"picture, {lies}", picture)
    texts, times = (inputs["context"],) * 2, (inputs["video_timestep"], inputs["audio_timestep"])
    latents, condition = (inputs["video_latents"], inputs["audio_latents"]), inputs["condition"]

    def teach() -> None:
        collect(model, *latents, texts, times, condition=condition, fps=DEFAULT_FPS, runtime=run)

    teacher = timed(device, teach, rounds)
    yield Part(f"teacher, {lies}", teacher)
    two = [torch.cat((x, x)) for x in (latents[1], texts[1], times[1])]
    sounds = {}
    for place, cache in (("on the device", kept), ("in host memory, 8 bits", in_host(kept, device))):
        sounds[place] = timed(device, lambda cache=cache: audio_velocity(model, *two, cache, run), rounds)
        yield Part(f"sound once, {lies}, keys and values {place}", sounds[place])
    sound = SUBSTEPS * min(sounds.values())
    yield Part(f"step of light, {lies}", picture + sound)
    yield Part(f"step of high, {lies}", picture + teacher + sound)


class in_host(dict[int, KeysValues | None]):  # noqa: N801, read like a function
    """Keys and values that wait in pinned memory in eight bits, copied when a layer asks."""

    def __init__(self, kept: dict[int, KeysValues | None], device: torch.device) -> None:
        super().__init__(kept)
        self.device, self.dtype = device, next(pair for pair in kept.values() if pair)[0].dtype
        pinned = device.type == "cuda"
        self.small = {layer: [compacted(part) for part in pair or ()] for layer, pair in kept.items()}
        for layer, parts in self.small.items():
            host = [torch.empty(p.values.shape, dtype=p.values.dtype, pin_memory=pinned) for p in parts]
            self.small[layer] = [p._replace(values=h.copy_(p.values)) for p, h in zip(parts, host)]

    def __getitem__(self, layer: int) -> KeysValues | None:
        parts = [
            part._replace(values=part.values.to(self.device, non_blocking=True)).expanded(self.dtype)
            for part in self.small[layer]
        ]
        return (parts[0], parts[1]) if parts else None


def attention_parts(
    config: MovaConfig, clip: Clip, device: torch.device, rounds: int, kernel: Kernel = fused
) -> Iterator[Part]:
    """Self-attention of one layer, all of it and a quarter of its tiles."""
    latents = random_inputs(clip, config, torch.bfloat16, device)["video_latents"]
    grid = latents.shape[2], latents.shape[3] // 2, latents.shape[4] // 2
    tokens, width, heads = grid[0] * grid[1] * grid[2], config.video.width, config.video.heads
    q, k, v = (torch.randn(1, tokens, width, device=device, dtype=torch.bfloat16) for _ in range(3))
    yield Part(f"self-attention of {tokens:,} tokens, dense", timed(device, lambda: sdpa(q, k, v, heads, ""), rounds))

    def sparse() -> Tensor:
        return attend(q, k, v, heads, Place(grid, 0), Sparsity(), kernel=kernel)

    yield Part(f"self-attention of {tokens:,} tokens, a quarter of its tiles", timed(device, sparse, rounds))


def parts(model: Mova, clips: dict[str, Clip], device: torch.device, rounds: int, stream: bool) -> Iterator[Part]:
    """Attention at every size, once; a step at the first."""
    if stream:
        for clip in clips.values():
            yield from attention_parts(model.sizes, clip, device, rounds)
    yield from step_parts(model, next(iter(clips.values())), device, rounds, stream)
