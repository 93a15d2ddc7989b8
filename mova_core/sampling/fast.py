"""Few steps for the picture, more for the sound: how a distilled model is sampled so that its words stay words.

The picture walks a few Euler steps. In each, the sound takes several of its own through the audio tower alone, guided,
and asks the video of the step by the keys and values that it gave; where there is a teacher, by those of the weights
that the video tower was distilled from.

Source: FreeVideo's recipe for Prism, `docs/speed.md` says what of it is measured and where.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ConfigError
from .guidance import Guidance

TEACHER_START = 10  # of 30 joint layers: the first ones of both towers agree well enough


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one run goes: `audio_scale` guides the sound everywhere, `text_scale` the picture in the first `text_steps`.

    `bridge_scale`: guidance by what picture and sound hear of each other, where the sound takes no steps of its own.
    `substeps`: steps of the sound in one of the picture; 0 is the joint sampler's, with no steps of its own.
    `teacher`: the layer at which the teacher's forward begins, from the distilled one's states; None for no teacher.
    """

    steps: int = 8
    text_scale: float = 2.0
    text_steps: int = 1
    bridge_scale: float = 1.0
    audio_scale: float = 5.0
    substeps: int = 4
    teacher: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.substeps < 0 or self.text_steps < 0:
            raise ConfigError(
                f"{self.steps} steps, {self.substeps} of the sound in each, guidance in {self.text_steps}: "
                "one step at least, and no negative numbers"
            )
        if self.teacher is not None and (self.teacher < 0 or not self.substeps):
            raise ConfigError(
                f"a teacher from layer {self.teacher} with {self.substeps} steps of the sound: it speaks to those "
                "alone, and begins at layer 0 or later"
            )
        if self.bridge_scale != 1 and self.substeps:
            raise ConfigError(
                f"guidance by the bridge of {self.bridge_scale} with {self.substeps} steps of the sound in one of the "
                "picture: those have one forward alone; take 0 of them, or a bridge scale of 1"
            )

    def text_scale_at(self, step: int) -> float:
        """Guidance of the picture in step 0..steps-1."""
        return self.text_scale if step < self.text_steps else 1.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the whole model."""
        if self.bridge_scale != 1:
            return self.steps * Guidance(text_scale=self.text_scale, bridge_scale=self.bridge_scale).evaluations
        return self.steps + (0 if self.text_scale == 1 else min(self.text_steps, self.steps))


def recipe_of(quality: str, steps: int, bridge_scale: float = 1.0) -> Recipe:
    """What the qualities of 'MOVA Fast Sampler' stand for; `steps` of the distilled ones, `bridge_scale` of the PLAIN.

    Raises:
        ConfigError: no such quality.
    """
    if quality not in QUALITIES:
        raise ConfigError(f"there is no quality {quality!r}; choose one of {', '.join(QUALITIES)}")
    if quality in PLAIN_STEPS:
        steps = PLAIN_STEPS[quality]
        return Recipe(steps=steps, text_scale=5.0, text_steps=steps, bridge_scale=bridge_scale, substeps=0)
    return Recipe(steps=steps, teacher={"light": None, "standard": TEACHER_START, "high": 0}[quality])


PLAIN_STEPS = {"max": 20, "full": 50}
"""Qualities that the plain model is sampled in, and their steps."""
QUALITIES = ("light", "standard", "high", *PLAIN_STEPS)


def audio_steps_between(sigmas: Tensor, substeps: int) -> Tensor:
    """(n + 1,) audio sigmas -> (n * substeps + 1,): those between two are evenly spaced, the given ones as they are."""
    share = torch.arange(substeps, dtype=torch.float64) / substeps
    values = sigmas.double()
    fine = [begin + (end - begin) * share for begin, end in pairwise(values)]
    return torch.cat([*fine, values[-1:]]).to(sigmas.dtype)
