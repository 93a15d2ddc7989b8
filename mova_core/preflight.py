"""A run told in advance, in words: what it holds, how long it takes, what else would fit, what would help."""

from dataclasses import dataclass, replace
from functools import partial

from .config import MovaConfig
from .estimate import (
    CHUNKED,
    FULL,
    LAYERS_IN_FLIGHT,
    LONG_SECONDS,
    ChunkSizes,
    Throughput,
    Workload,
    activations,
    forward_seconds,
    kept_keys_values,
    largest,
    longest,
    required,
    thinned,
)
from .shapes import PUBLISHED_GRID, AudioGrid, VideoShape

GIB = 2**30
GB = 1e9
TRAINED = 193  # frames of every training clip
SAGE_GAIN = 2.6  # times the rate of plain flash attention; published for a 4090, arXiv:2505.21136
UNTOLD = (
    "ComfyUI's 'Model Sparse Attention' finds out as it runs what it leaves out: the time is that of dense attention, "
    "the most that it can take"
)
FP8_GAIN = 1.8  # times the rate of bfloat16 matrix products, of at most 2 by the vendor's figures


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run has at its disposal, in bytes and bytes a second."""

    device: str
    capacity: float  # for activations and weights, once other models are moved away
    memory: float  # host memory available
    link: float | None  # host to device; None where they are the same memory


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Where runs are kept on their way: `free` bytes, 0 where nothing can be written, and `needed` ones."""

    folder: str
    free: float
    needed: float


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """A run as asked for. `weights`: bytes of one expert with audio tower and bridge; `layer`: those of a layer.

    `attended`: the share of the video's self-attention that is computed, 1 where it is dense; `untold`: less than that,
    and nobody can say how much. `kept_element`: bytes of a value that the sound's own steps keep.
    """

    config: MovaConfig
    shape: VideoShape
    fps: float
    steps: int
    evaluations: int  # forwards a step
    weights: int
    layer: int
    element: int
    rows: ChunkSizes
    quantised: bool
    audio_grid: AudioGrid = PUBLISHED_GRID
    attended: float = 1.0
    untold: bool = False
    kept_element: int = 1

    @property
    def load(self) -> Workload:
        return Workload.of(self.shape, self.fps, self.audio_grid)

    @property
    def required(self) -> float:
        return self.required_by(self.rows)

    def required_by(self, rows: ChunkSizes) -> float:
        return required(self.config, self.load, rows, self.layer, self.element, quantised=self.quantised)


def step_seconds(plan: ClipPlan, machine: Machine, measured: Throughput) -> float:
    """Seconds of one step: its forwards, or the weights they wait for where copying takes longer than computing."""
    compute = forward_seconds(plan.config, plan.load, measured, plan.attended)
    resident = plan.required - LAYERS_IN_FLIGHT * plan.layer + plan.weights <= machine.capacity
    copy = 0.0 if resident or machine.link is None else plan.weights / machine.link
    return plan.evaluations * max(compute, copy)


def speedups(plan: ClipPlan, machine: Machine, measured: Throughput) -> list[tuple[str, float]]:
    """What would make a step shorter, and to how many seconds; the shortest first."""
    now = step_seconds(plan, machine, measured)
    faster = {}
    if machine.link is not None:  # a CUDA card
        faster["fp8 weights with fp8 matrix products"] = replace(measured, matrix=measured.matrix / FP8_GAIN)
        if not plan.quantised:
            faster["sage attention"] = replace(measured, attention=measured.attention / SAGE_GAIN)
    found = [(name, step_seconds(plan, machine, speed)) for name, speed in faster.items()]
    if plan.evaluations > 1:
        found.append(("cfg 1, for a distilled model", now / plan.evaluations))
    if plan.shape.frames > 1:
        half = 4 * ((plan.shape.frames - 1) // 8) + 1
        shorter = replace(plan, shape=replace(plan.shape, frames=half))
        found.append((f"{half} frames", step_seconds(shorter, machine, measured)))
    return sorted(found, key=lambda lever: lever[1])


def report(
    plan: ClipPlan, machine: Machine, measured: Throughput | None, decode: float | None = None, disk: Disk | None = None
) -> str:
    """The whole of it, a line a fact. `decode` is what the video VAE asks for, in bytes."""
    shape, load = plan.shape, plan.load
    lines = [
        f"{shape.frames} frames of {shape.width}x{shape.height}, {shape.frames / plan.fps:.1f} s: {load.video:,} video "
        f"tokens, {load.audio:,} audio tokens" + (f", {shape.batch} clips at once" if shape.batch > 1 else ""),
        *_memory(plan, machine, decode),
        *_limits(plan, machine),
    ]
    lines += _time(plan, machine, measured) if measured else []
    seconds = plan.steps * step_seconds(plan, machine, measured) if measured else None
    return "\n".join([*lines, keeping(disk, seconds)] if disk else lines)


def keeping(disk: Disk, seconds: float | None) -> str:
    """Whether a run of so many seconds is kept on its way, and where; None is a run that was not timed."""
    limit = format_duration(LONG_SECONDS)
    where = f"{disk.folder} ({disk.needed / GB:.2g} GB with euler, {disk.free / GB:.3g} GB free)"
    if disk.free < disk.needed:
        return f"NOT kept on its way, however long it takes: no room, or no right to write, in {where}"
    if seconds is None:
        return f"kept on its way where it takes over {limit}, in {where}"
    if seconds <= LONG_SECONDS:
        return f"not kept on its way, being under {limit}, unless resume of the sampler is on; then in {where}"
    return f"kept on its way, being over {limit}, in {where}: after a crash or a cancel the same inputs go on"


def _memory(plan: ClipPlan, machine: Machine, decode: float | None) -> list[str]:
    peak = activations(plan.config, plan.load, plan.rows, plan.element, quantised=plan.quantised)
    fits = plan.required <= machine.capacity
    path = "whole" if plan.rows.queries is None else "low-memory"
    lines = [
        f"{machine.device}: {plan.required / GIB:.1f} GiB of {machine.capacity / GIB:.1f} with weights streamed "
        f"({peak / GIB:.1f} of activations, {path} path, and {LAYERS_IN_FLIGHT} layers): "
        + ("fits" if fits else "DOES NOT FIT"),
        f"host memory: {plan.weights / GB:.1f} GB of weights in use at a time, mapped from disk; "
        f"{_decoded(plan) / GB:.1f} GB for the decoded clip; {machine.memory / GB:.1f} GB available",
    ]
    kept = kept_keys_values(plan.config, plan.load, plan.kept_element)
    where = "in VRAM" if plan.required + kept <= machine.capacity else "in host memory, as far as VRAM has no room"
    lines.append(
        f"steps of the sound alone ('MOVA Fast Sampler', audio_substeps) keep {kept / GIB:.1f} GiB a condition: {where}"
    )
    if decode is not None:
        advice = "fits whole" if decode <= machine.capacity else "set tile_size of 'MOVA Decode' to 256"
        lines.append(f"decoding the picture: {decode / GIB:.1f} GiB, {advice}")
    return lines


def _decoded(plan: ClipPlan) -> float:
    """Float32 pictures."""
    shape = plan.shape
    return 4.0 * 3 * shape.batch * shape.frames * shape.height * shape.width


def _limits(plan: ClipPlan, machine: Machine) -> list[str]:
    lines, sizes = [], (plan.config, plan.shape, machine.capacity, plan.layer)
    load = partial(Workload.of, fps=plan.fps, grid=plan.audio_grid)
    for name, rows in (("whole", FULL), ("low-memory", CHUNKED)):
        frames = longest(*sizes, rows, plan.element, load, quantised=plan.quantised)
        width, height = largest(*sizes, rows, plan.element, load, quantised=plan.quantised)
        if not frames:
            lines.append(f"{name} path: nothing of this size fits")
            continue
        beyond = f" (trained to {TRAINED})" if frames > TRAINED else ""
        size = f", or {width}x{height} with {plan.shape.frames} frames" if width else ""
        lines.append(f"{name} path: up to {frames:,} frames of this size{beyond}{size}")
    return lines


def _time(plan: ClipPlan, machine: Machine, measured: Throughput) -> list[str]:
    seconds = step_seconds(plan, machine, measured)
    rate = plan.evaluations * thinned(plan.config, plan.load, plan.attended).total / seconds / 1e12
    lines = [
        f"about {seconds:.3g} s a step of {plan.evaluations} evaluations ({rate:.3g} TFLOP/s), "
        f"{format_duration(plan.steps * seconds)} for {plan.steps} steps"
    ]
    if plan.attended < 1:
        lines.append(
            f"of the picture's self-attention {plan.attended:.0%} is computed; a kernel may gain less time than that"
        )
    if plan.untold:
        lines.append(UNTOLD)
    forward = forward_seconds(plan.config, plan.load, measured, plan.attended)
    if machine.link is not None and plan.weights / machine.link > forward:
        lines.append(
            f"waiting for weights: they come at {machine.link / GB:.1f} GB/s, computing would take {forward:.3g} s"
        )
    best = speedups(plan, machine, measured)
    lines.append("what would help most: " + "; ".join(f"{name} {there:.3g} s a step" for name, there in best))
    return lines


def format_duration(seconds: float) -> str:
    """`8.4 s`, `5 min 45 s`, `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
