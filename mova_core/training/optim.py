"""AdamW over LoRA parameters: a rate for each part, warm-up, clipping, and moments in float32 or in 8 bits.

Parameters without a gradient, the other expert's, are left alone: no decay, no moments, no step counted.

The 8-bit moments are our own and no library's: they run on every device, are saved with the run and taken up bit for
bit. Blocks of 256 values share a float32 scale; a value is one of 255 steps on a scale that is fine near zero. Both
moments of a parameter take 2.03 bytes instead of 8.

Source: Loshchilov and Hutter, arXiv:1711.05101; Dettmers et al., arXiv:2110.02861 (block-wise 8-bit moments).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .adapters import TRAINED_PARTS, part_of

BLOCK = 256  # values that share a scale
CODE_STEPS = 127  # of the 8-bit code, each way
BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rate of each part, raised evenly over the first `warmup` optimizer steps of each expert."""

    high: float
    low: float
    audio: float
    bridge: float
    warmup: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of all gradients together; 0 is no limit

    def __post_init__(self) -> None:
        bad = {n: v for n, v in vars(self).items() if not (math.isfinite(v) and v >= 0)}
        if bad:
            raise ConfigError(f"{', '.join(f'{n} {v}' for n, v in bad.items())}: give finite numbers of at least 0")

    def at(self, part: str, step: int) -> float:
        """The rate of a part at optimizer step `step`, counted from 0."""
        rate: float = getattr(self, part)
        return rate * min(1.0, (step + 1) / (self.warmup + 1))


class Moment:
    """A running mean, kept in float32."""

    def __init__(self, like: Tensor) -> None:
        self.value = torch.zeros_like(like)

    def blended(self, new: Tensor, share: float) -> Tensor:
        """share * mean + (1 - share) * new, kept and returned."""
        return self.value.lerp_(new, 1 - share)

    def tensors(self) -> dict[str, Tensor]:
        return {"value": self.value}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.value.copy_(tensors["value"])


class SmallMoment:
    """A running mean, kept as 8-bit codes and a float32 scale a block.

    A code c stands for scale * sign(c) * (c / 127) ** power. Power 4 reaches down to 4e-9 of a block's largest value,
    as squares of gradients do; what is below becomes the smallest step, not 0, where the mean is of squares, lest the
    square root that divides the update be 0.
    """

    def __init__(self, like: Tensor, *, squares: bool) -> None:
        blocks = -(-like.numel() // BLOCK)
        self.shape, self.power, self.least = like.shape, 4 if squares else 3, 1 if squares else 0
        self.codes = torch.zeros(blocks, BLOCK, dtype=torch.int8, device=like.device)
        self.scales = torch.zeros(blocks, 1, dtype=torch.float32, device=like.device)

    def blended(self, new: Tensor, share: float) -> Tensor:
        """share * mean + (1 - share) * new: kept in 8 bits, returned as it was before that."""
        mean = self._value().lerp_(new, 1 - share)
        self._keep(mean)
        return mean

    def _value(self) -> Tensor:
        part = self.codes.float() / CODE_STEPS
        flat = (self.scales * part.sign() * part.abs() ** self.power).flatten()
        return flat[: self.shape.numel()].view(self.shape)

    def _keep(self, mean: Tensor) -> None:
        flat = torch.nn.functional.pad(mean.flatten(), (0, self.codes.numel() - mean.numel())).view_as(self.codes)
        self.scales = flat.abs().amax(dim=1, keepdim=True)
        part = flat / self.scales.clamp_min(torch.finfo(torch.float32).tiny)
        codes = (part.abs() ** (1 / self.power) * CODE_STEPS).round()
        codes = codes.clamp_min(self.least) * (self.scales > 0)
        self.codes = (codes * part.sign()).to(torch.int8) if not self.least else codes.to(torch.int8)

    def tensors(self) -> dict[str, Tensor]:
        return {"codes": self.codes, "scales": self.scales}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.codes.copy_(tensors["codes"])
        self.scales = tensors["scales"].to(self.scales).clone()


@dataclass
class Slot:
    """One parameter's moments and how many steps it took."""

    mean: Moment | SmallMoment
    square: Moment | SmallMoment
    steps: int = 0


class AdamW:
    """One optimizer for all parts of a run. `small` keeps the moments in 8 bits."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], rates: Rates, *, small: bool = False) -> None:
        unknown = [name for name in parameters if part_of(name) not in TRAINED_PARTS]
        if unknown or not parameters:
            raise ConfigError(f"nothing to train under the official names (first unknown: {unknown[:1]})")
        self.parameters, self.rates, self.small = dict(parameters), rates, small
        self.slots: dict[str, Slot] = {}

    def step(self, count: int, norm: float | None = None) -> float:
        """One update from the gradients that are there, which are cleared; returns their norm before clipping.

        `count` is the optimizer step of the expert at work, counted from 0, for the warm-up; `norm` is
        `gradient_norm`, where it is known already.
        """
        ready = {name: p for name, p in self.parameters.items() if p.grad is not None}
        norm = gradient_norm(ready.values()) if norm is None else norm
        scale = min(1.0, self.rates.clip / (norm + 1e-6)) if self.rates.clip else 1.0
        for name, parameter in ready.items():
            assert parameter.grad is not None
            self._update(name, parameter, parameter.grad * scale, self.rates.at(part_of(name), count))
            parameter.grad = None
        return norm

    @torch.no_grad()
    def _update(self, name: str, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        slot = self.slots.get(name) or self.slots.setdefault(name, self._slot(parameter))
        slot.steps += 1
        mean = slot.mean.blended(gradient, BETAS[0])
        square = slot.square.blended(gradient.square(), BETAS[1])
        parameter.mul_(1 - rate * self.rates.weight_decay)
        root = square.sqrt() / math.sqrt(1 - BETAS[1] ** slot.steps) + EPS
        parameter.addcdiv_(mean, root, value=-rate / (1 - BETAS[0] ** slot.steps))

    def _slot(self, parameter: nn.Parameter) -> Slot:
        if self.small:
            return Slot(SmallMoment(parameter, squares=False), SmallMoment(parameter, squares=True))
        return Slot(Moment(parameter), Moment(parameter))

    def tensors(self) -> dict[str, Tensor]:
        """Everything to take the run up again, beside the parameters."""
        found = {}
        for name, slot in self.slots.items():
            found[f"{name}/steps"] = torch.tensor(slot.steps)
            for kind, moment in (("mean", slot.mean), ("square", slot.square)):
                found |= {f"{name}/{kind}/{key}": tensor for key, tensor in moment.tensors().items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` gave.

        Raises:
            ConfigError: it is another run's, or was kept in the other precision.
        """
        try:
            if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
                raise ValueError("it holds NaN")
            slots = {}
            for name in {key.split("/")[0] for key in tensors}:
                slot = self._slot(self.parameters[name])
                slot.steps = int(tensors[f"{name}/steps"])
                if slot.steps < 1:
                    raise ValueError(f"{name} took {slot.steps} steps")
                for kind, moment in (("mean", slot.mean), ("square", slot.square)):
                    prefix = f"{name}/{kind}/"
                    moment.load({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
                slots[name] = slot
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the kept state is of another run or another optimizer ({error!s:.200}); begin anew"
            ) from error
        self.slots = slots


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Of all gradients as one vector."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
