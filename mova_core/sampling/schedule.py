"""The noise schedule: which sigma at which step, for which expert.

Sigmas run from 1 (noise) to 0 (clean), n + 1 of them for n steps. A timestep is 1000 * sigma, never rounded.
Source: OpenMOSS/MOVA 595a976 `flow_match.py`, `flow_match_pair.py`. There the Euler step looks each sigma up in a grid
of 1000 values, which is off by up to 2e-3 where the number of steps does not divide 1000; here it is exact.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError

TIMESTEPS = 1000  # what sigma 1 is called in the timestep embedding

BORDER = 1e-4  # of the schedule: float32 sigmas near 1 say no better where they are

Expert = Literal["high", "low"]


def sigmas(steps: int, shift: float = 5.0, sigma_min: float = 0.0) -> Tensor:
    """`steps` + 1 sigmas, float32, from 1 to 0: evenly spaced towards `sigma_min`, shifted, then 0.

    Raises:
        ConfigError: no step, or an impossible shift or `sigma_min`.
    """
    if steps < 1:
        raise ConfigError(f"sampling cannot take {steps} steps; it needs at least 1")
    if not 0 <= sigma_min < 1:
        raise ConfigError(f"sigma_min is {sigma_min}; it must be at least 0 and below 1")
    even = torch.linspace(1, sigma_min, steps + 1, dtype=torch.float64)[:-1]  # float32 would be off by an ulp or two
    return torch.cat([shift_sigmas(even, shift), even.new_zeros(1)]).float()


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Spend more of the schedule at high noise: s * sigma / (1 + (s - 1) * sigma).

    Both ends stay put, shift 1 changes nothing, and two shifts are one by their product.

    Raises:
        ConfigError: `shift` is not a finite number above 0.
    Source: Esser et al. 2024, arXiv:2403.03206 (resolution-dependent shift).
    """
    _check_shift(shift)
    return sigmas / (sigmas + (1 - sigmas) / shift)  # the same fraction; this form is exact at 0, at 1 and for shift 1


def reshift(sigmas: Tensor, from_shift: float, to_shift: float) -> Tensor:
    """Sigmas of one shift to those of another at the same step, as the audio schedule from the video one.

    Raises:
        ConfigError: a shift is not a finite number above 0.
    """
    _check_shift(from_shift)
    _check_shift(to_shift)
    return shift_sigmas(sigmas, to_shift / from_shift)


@dataclass(frozen=True)
class Span:
    """Part of the schedule, as shares of its steps: from `start` up to, not including, `end`.

    Two spans that meet share no step, so 0..0.4 and 0.4..1 cover each step once.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise ConfigError(
                f"a part of the schedule cannot run from {self.start} to {self.end}; give a start and a later end "
                "between 0 (first step) and 1 (last)"
            )

    def covers(self, sigma: float, shift: float) -> bool:
        """Whether a step at `sigma`, of a schedule with this shift, lies in the span."""
        done = 1 - sigma / (sigma + (1 - sigma) * shift)  # k / n at step k of n
        return self.start - BORDER <= done and (self.end == 1 or done < self.end - BORDER)


def timesteps(sigmas: Tensor) -> Tensor:
    """What the timestep embedding sees: 1000 * sigma."""
    return TIMESTEPS * sigmas


def expert_for(sigma: float, boundary: float = 0.9) -> Expert:
    """The video tower that works at a video sigma: "low" strictly below the boundary, else "high".

    Compared as float32 timesteps, like upstream: in float32, 0.9 is below 0.9, but 1000 * 0.9 is 900.
    """
    timestep, limit = torch.tensor([TIMESTEPS * sigma, TIMESTEPS * boundary], dtype=torch.float32).tolist()
    return "low" if timestep < limit else "high"


def high_noise_steps(sigmas: Tensor, boundary: float = 0.9) -> int:
    """How many steps the high-noise expert takes before the other one takes over.

    Raises:
        ShapeError: `sigmas` is not what `check_sigmas` accepts.
    """
    check_sigmas(sigmas)
    return sum(expert_for(sigma, boundary) == "high" for sigma in sigmas[:-1].tolist())


def check_sigmas(sigmas: Tensor) -> None:
    """Accept sigmas that a sampler can walk down.

    Raises:
        ShapeError: not one axis of at least two falling values.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ShapeError(f"sigmas have shape {tuple(sigmas.shape)}; n steps need one axis of n + 1 values")
    rising = (~(sigmas.diff() < 0)).nonzero()
    if len(rising):
        step = int(rising[0])
        raise ShapeError(
            f"sigmas must fall from step to step; step {step} goes from {sigmas[step]} to {sigmas[step + 1]}"
        )


def _check_shift(shift: float) -> None:
    if not (math.isfinite(shift) and shift > 0):
        raise ConfigError(f"shift is {shift}; it must be a positive number: 5 as MOVA was trained with, 1 for none")
