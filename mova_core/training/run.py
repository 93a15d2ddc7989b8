"""A training run: what each step does follows from its number and the settings, so a run can stop and go on anywhere.

An optimizer step belongs to one expert and gathers the gradients of `accumulate` samples. Experts take turns, a few
steps each, so that streamed weights of one stay in use. Audio tower and bridge learn in every step.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from ..checkpoint.experts import EXPERT_FOLDERS
from ..errors import CheckpointError, ConfigError, MovaError, ShapeError
from ..inputs.numbers import choice, real, whole
from ..sampling.schedule import Expert
from .adapters import TRAINED_PARTS
from .budget import MOMENTS
from .noise import Draws, chance, clip_at, generator
from .optim import AdamW, Rates, gradient_norm

OPTIMIZERS = tuple(MOMENTS)
# What a run that goes on keeps.
LASTING = ("parts", "rank", "alpha", "layers", "optimizer", "seed", "accumulate", "alternate")
MOST_STEPS = 10**7
FIXED = 8  # draws of an evaluation, an expert


class LossError(MovaError):
    """A loss is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is asked to do. `parts`: of high, low, audio, bridge; `alternate` is steps, `accumulate` samples;
    `among`: the experts that there are."""

    parts: tuple[str, ...]
    rank: int
    alpha: float
    steps: int
    rates: Rates
    layers: str = "all"
    optimizer: str = "adamw"
    seed: int = 0
    accumulate: int = 1
    alternate: int = 10
    audio_weight: float = 0.2
    caption_dropout: float = 0.1
    bridge_dropout: float = 0.0
    separate: bool = False
    strata: int = 8
    among: tuple[Expert, ...] = ("high", "low")

    def __post_init__(self) -> None:
        for name, least, most in (("steps", 1, MOST_STEPS), ("accumulate", 1, 1024), ("alternate", 1, 10**6)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a whole number from {least} to {most}")
        for name, limit in (("caption_dropout", 1.0), ("bridge_dropout", 1.0), ("audio_weight", 1e3)):
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number from 0 to {limit:g}")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"there is no optimizer {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}")
        if not self.parts or not set(self.parts) <= set(TRAINED_PARTS):
            raise ConfigError(
                f"cannot train {', '.join(self.parts) or 'nothing'}; choose of {', '.join(TRAINED_PARTS)}"
            )

    @property
    def experts(self) -> tuple[Expert, ...]:
        """Those that take turns: the ones that are trained, or all there are where sound and bridge alone are."""
        chosen: tuple[Expert, ...] = tuple(expert for expert in EXPERT_FOLDERS if expert in self.parts)
        return chosen or self.among

    def turn(self, step: int) -> tuple[Expert, int]:
        """The expert of optimizer step `step`, and how many steps it has taken before."""
        experts = self.experts
        round_, place = divmod(step, self.alternate * len(experts))
        return experts[place // self.alternate], round_ * self.alternate + place % self.alternate


@dataclass(frozen=True)
class Draw:
    """One sample: its clip, (1,) timesteps, and what is left out of it. `noise` makes the noise of both streams."""

    clip: int
    video_timestep: Tensor
    audio_timestep: Tensor
    noise: torch.Generator
    drop_caption: bool
    drop_bridge: bool


def draw(settings: Settings, draws: Draws, clips: int, expert: Expert, count: int) -> Draw:
    """Sample number `count` of an expert."""
    seed = (settings.seed, expert, count)
    return Draw(
        clip_at(count, clips, settings.seed, expert),
        *draws.timesteps(expert, count),
        noise=generator(*seed, "noise"),
        drop_caption=chance(settings.caption_dropout, *seed, "caption"),
        drop_bridge=chance(settings.bridge_dropout, *seed, "bridge"),
    )


def fixed_draws(settings: Settings, draws: Draws, clips: int, expert: Expert, count: int = FIXED) -> Iterator[Draw]:
    """The same samples every time, evenly spread over the expert's noise levels: their losses can be compared."""
    even = Draws(**{**asdict(draws), "strata": count, "seed": settings.seed})
    for number in range(count):
        noise = generator(settings.seed, expert, number, "evaluation")
        yield Draw(number % clips, *even.timesteps(expert, number), noise=noise, drop_caption=False, drop_bridge=False)


@dataclass
class Record:
    """What one optimizer step found: mean losses of its samples, the gradients' norm, seconds."""

    step: int
    expert: str
    video: float
    audio: float
    norm: float
    seconds: float = 0.0

    def checked(self) -> "Record":
        """Itself; raises MovaError where a field is no number, or of no expert."""
        whole(self.step, 0, MOST_STEPS)
        choice(self.expert, tuple(EXPERT_FOLDERS))
        for number in (self.video, self.audio, self.norm, self.seconds):
            real(number)
        return self

    def total(self, audio_weight: float) -> float:
        return self.video + audio_weight * self.audio


class Evaluation(TypedDict, total=False):
    """Mean losses of fixed samples after a step: of each expert those of picture and sound."""

    step: int
    high: Sequence[float]
    low: Sequence[float]


@dataclass
class Run:
    """Parameters, optimizer and what was found so far; `step` optimizer steps are done."""

    settings: Settings
    parameters: dict[str, nn.Parameter]
    optimizer: AdamW
    step: int = 0
    records: list[Record] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @classmethod
    def begin(cls, settings: Settings, parameters: dict[str, nn.Parameter]) -> "Run":
        small = settings.optimizer == "adamw8bit"
        return cls(settings, parameters, AdamW(parameters, settings.rates, small=small))

    def advance(self, sample: Callable[[Expert, int, float], tuple[float, float]]) -> Record:
        """One optimizer step. `sample(expert, count, scale)` adds the gradients of a sample and returns its losses.

        Raises:
            LossError: a loss or gradient is not finite; parameters and optimizer are those of the step before.
        """
        expert, before = self.settings.turn(self.step)
        found = []
        try:
            for number in range(self.settings.accumulate):
                count = before * self.settings.accumulate + number
                found.append(sample(expert, count, 1.0 / self.settings.accumulate))
                self._check(expert, *found[-1])
            norm = gradient_norm(self.parameters.values())
            self._check(expert, norm)
        except BaseException:
            self.forget_gradients()
            raise
        video, audio = (sum(each) / len(found) for each in zip(*found, strict=True))
        record = Record(self.step, expert, video, audio, norm)
        self.optimizer.step(before, norm)
        self.records.append(record)
        self.step += 1
        return record

    def forget_gradients(self) -> None:
        """Drop what a step that was broken off has gathered."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def _check(self, expert: str, *found: float) -> None:
        if not all(map(math.isfinite, found)):
            what = "losses of picture and sound" if len(found) > 1 else "norm of the gradients"
            raise LossError(
                f"step {self.step + 1}, {expert}-noise expert: the {what}, {', '.join(f'{f:g}' for f in found)}, "
                "should be numbers. Nothing of this step is in the LoRA. Lower the learning rates, or look at the clip"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and the rest of what `restore` needs."""
        tensors: dict[str, Tensor] = {f"parameter/{name}": parameter for name, parameter in self.parameters.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in self.optimizer.tensors().items()}
        rest = {"settings": asdict(self.settings), "step": self.step, "evaluations": self.evaluations}
        return tensors, {**rest, "records": [asdict(record) for record in self.records]}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on where another run stopped. Where that is refused nothing of this run has changed.

        Raises:
            ConfigError: that run was of other parts, rank, seed or the like.
            CheckpointError: what is kept of it is damaged.
        """
        try:
            self._check_same(state["settings"])
            found = {name: _like(tensors[f"parameter/{name}"], own) for name, own in self.parameters.items()}
            step = whole(state["step"], 0, MOST_STEPS)
            records = [Record(**record).checked() for record in state["records"]]
            evaluations = [_evaluation(each) for each in state["evaluations"]]
        except ConfigError:
            raise
        except (MovaError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"what is kept of the run to go on with is damaged ({error!s:.200}). Begin anew, or give another name"
            ) from error
        prefix = "optimizer/"
        self.optimizer.load({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found[name])
        self.step, self.records, self.evaluations = step, records, evaluations

    def _check_same(self, theirs: Mapping[str, Any]) -> None:
        ours = asdict(self.settings)
        other = {
            name: (theirs.get(name), _plain(ours[name])) for name in LASTING if theirs.get(name) != _plain(ours[name])
        }
        if other:
            said = "; ".join(f"{name} {was!s:.60}, now {now}" for name, (was, now) in other.items())
            raise ConfigError(
                f"the run to go on with was begun otherwise ({said}). Set that back, or give another name to begin anew"
            )


def _like(kept: Tensor, own: Tensor) -> Tensor:
    """Raises ShapeError where it cannot take the place of `own`."""
    if kept.shape != own.shape or not torch.isfinite(kept).all():
        raise ShapeError(f"a weight of shape {tuple(own.shape)} has become {tuple(kept.shape)}, or holds NaN")
    return kept


def _evaluation(kept: Mapping[str, Any]) -> Evaluation:
    """Raises MovaError, KeyError or the like where it is none."""
    found = Evaluation(step=whole(kept["step"], 0, MOST_STEPS))
    for expert in EXPERT_FOLDERS:
        if expert in kept:
            video, audio = map(real, kept[expert])
            found[expert] = video, audio
    return found


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
