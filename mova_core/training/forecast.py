"""A training run told in advance, in words: memory, disk, time, and what would make it fit.

Time is told from one block measured forwards. The way back is counted, not measured: a layer again, and gradients of
its inputs. Attention's own gradient is taken to run at 0.7 of the forward's rate. On an H100, whose forward has a
kernel of its own, steps of 49 and 97 pictures took 13 and 7 % longer than that (benchmarks/GPU.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..config import MovaConfig
from ..estimate import Throughput, Work, Workload, work
from ..preflight import GB, GIB, Machine, format_duration
from ..shapes import DEFAULT_FPS, PUBLISHED_GRID, AudioGrid, VideoShape
from .budget import PINNED, Budget, budget, parameters, step_work
from .run import Settings

BACK = 1 / 0.7  # times as long as forwards for each operation of attention's gradient
LATENT = 4.0  # bytes of a value in the cache
PROMPT = 200  # rows of a usual caption
SMALL = (240, 432)  # height, width


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A run as asked for. `weights`: bytes of all experts it uses, as they are kept; `running`: of one of them."""

    config: MovaConfig
    settings: Settings
    shape: VideoShape
    clips: int
    weights: float
    running: float
    layer: int  # bytes of one layer's weights, unpacked
    element: int
    disk: float  # bytes free
    audio_grid: AudioGrid = PUBLISHED_GRID

    @property
    def load(self) -> Workload:
        return Workload.of(self.shape, grid=self.audio_grid)

    def budget(self, *, low: bool) -> Budget:
        asked = self.settings
        return budget(
            self.config,
            self.load,
            layer=self.layer,
            parts=asked.parts,
            rank=asked.rank,
            layers=asked.layers,
            optimizer=asked.optimizer,
            low=low,
            element=self.element,
        )

    def but(self, *, shape: VideoShape | None = None, **settings: object) -> "TrainingPlan":
        return replace(self, shape=shape or self.shape, settings=replace(self.settings, **settings))  # type: ignore[arg-type]


def step_seconds(plan: TrainingPlan, machine: Machine, measured: Throughput, *, low: bool) -> float:
    """Seconds of one optimizer step: its work, or the weights it waits for where copying takes longer."""
    done, once = step_work(plan.config, plan.load, low=low), work(plan.config, plan.load)
    forwards = Work(matrix=done.matrix, attention=done.attention - once.attention * 5 // 2)
    compute = measured.matrix * forwards.matrix + measured.attention * (
        forwards.attention + once.attention * 2.5 * BACK
    )
    copy = 0.0 if machine.link is None else (2 * plan.running + 2 * plan.budget(low=low).inputs) / machine.link
    return plan.settings.accumulate * max(compute, copy)


def report(plan: TrainingPlan, machine: Machine, measured: Throughput | None) -> str:
    """The whole of it, a line a fact."""
    shape, asked = plan.shape, plan.settings
    values = parameters(plan.config, asked.parts, asked.rank, asked.layers)
    low = not fits(plan, machine, low=False)
    lines = [
        f"{plan.clips} clips, the largest {shape.frames} pictures of {shape.width}x{shape.height} "
        f"({shape.frames / DEFAULT_FPS:.1f} s, {plan.load.video:,} video tokens); {', '.join(asked.parts)} at rank "
        f"{asked.rank}, {values / 1e6:.1f} million parameters",
        *(_device(plan, machine, low=each) for each in (False, True)),
        _host(plan, machine),
        _disk(plan, values),
    ]
    if measured is not None:
        seconds = step_seconds(plan, machine, measured, low=low)
        samples = f" of {asked.accumulate} samples" if asked.accumulate > 1 else ""
        lines.insert(
            1,
            f"about {seconds:.3g} s a step{samples}, {format_duration(seconds * asked.steps)} for {asked.steps} steps "
            f"(each clip about {asked.steps * asked.accumulate / plan.clips:.1f} times)",
        )
    advice = [] if fits(plan, machine, low=True) else ways_to_fit(plan, machine)
    if not fits(plan, machine, low=True):
        lines.append("what would make it fit: " + ("; ".join(advice) or "nothing of this: another card is needed"))
    return "\n".join(lines)


def fits(plan: TrainingPlan, machine: Machine, *, low: bool) -> bool:
    return plan.budget(low=low).device <= machine.capacity


def ways_to_fit(plan: TrainingPlan, machine: Machine) -> list[str]:
    """Single changes, each enough by itself with the low path."""
    shape, asked = plan.shape, plan.settings
    tried: list[tuple[str, TrainingPlan]] = []
    frames = shape.frames
    while frames > 5:
        frames = max(5, (frames // 2 - 1) // 4 * 4 + 1)
        shorter = plan.but(shape=replace(shape, frames=frames))
        tried.append((f"{frames} pictures", shorter))
        if fits(shorter, machine, low=True):
            break
    if shape.height * shape.width > SMALL[0] * SMALL[1]:
        smaller = replace(shape, height=SMALL[0], width=SMALL[1])
        tried.append((f"{SMALL[1]}x{SMALL[0]}", plan.but(shape=smaller)))
    if asked.rank > 4:
        tried.append((f"rank {asked.rank // 4}", plan.but(rank=asked.rank // 4)))
    if asked.optimizer != "adamw8bit":
        tried.append(("adamw8bit", plan.but(optimizer="adamw8bit")))
    enough: Callable[[TrainingPlan], bool] = lambda each: fits(each, machine, low=True)  # noqa: E731
    return [name for name, each in tried if enough(each)]


def _device(plan: TrainingPlan, machine: Machine, *, low: bool) -> str:
    told = plan.budget(low=low)
    return (
        f"{machine.device}, {'low' if low else 'whole'} path: {told.device / GIB:.1f} GiB of "
        f"{machine.capacity / GIB:.1f} ({told.activations / GIB:.1f} of activations, {told.streamed / GIB:.1f} of two "
        f"layers, {told.adapters / GIB:.1f} of the LoRA and its optimizer): "
        + ("fits" if fits(plan, machine, low=low) else "DOES NOT FIT")
    )


def _host(plan: TrainingPlan, machine: Machine) -> str:
    inputs = plan.budget(low=False).inputs
    needed = plan.weights + inputs + PINNED
    advice = "" if needed <= machine.memory else ": SHORT. Weights in int8, one expert, or fewer pictures need less"
    return (
        f"host memory: {needed / GB:.1f} GB of {machine.memory / GB:.1f} available "
        f"({plan.weights / GB:.1f} of weights, {inputs / GB:.1f} of layers' inputs){advice}"
    )


def _disk(plan: TrainingPlan, values: int) -> str:
    width, height, frames = plan.shape.width // 8, plan.shape.height // 8, (plan.shape.frames - 1) // 4 + 1
    latents = 2 * plan.config.video.out_channels * width * height * frames * LATENT
    sound = plan.load.audio * plan.config.audio.in_channels * LATENT
    cache = plan.clips * (latents + sound + PROMPT * plan.config.video.text_width * LATENT)
    needed = cache + 2 * values * 5 + 2 * 12 * values
    advice = "" if needed <= plan.disk else ": SHORT"
    return (
        f"disk: {needed / GB:.2f} GB of {plan.disk / GB:.1f} free ({cache / GB:.2f} of the data set, "
        f"{2 * values / GB:.2f} each save){advice}"
    )
