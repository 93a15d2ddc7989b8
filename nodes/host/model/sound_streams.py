"""Guidance of the sound within one forward: a second stream reads the negative prompt and hears the same video."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ....mova_core.sampling.guidance import towards


@dataclass(frozen=True)
class SoundStreams:
    """One stream of sound, or two where a `scale` other than 1 and a negative prompt ask for guidance.

    Axes: B batch, S text rows.
    """

    scale: float | None
    negative: Tensor | None  # (B, S, text width)

    @property
    def two(self) -> bool:
        return self.scale not in (None, 1.0) and self.negative is not None

    def each(self, x: Tensor) -> Tensor:
        """The same for every stream."""
        return torch.cat((x, x)) if self.two else x

    def texts(self, positive: Tensor) -> Tensor:
        """What the streams read. The shorter of two prompts is filled up with rows of zeros, as all prompts are."""
        if not self.two or self.negative is None:
            return positive
        rows = max(positive.shape[1], self.negative.shape[1])
        return torch.cat([pad(text, (0, 0, 0, rows - text.shape[1])) for text in (positive, self.negative)])

    def guided(self, velocity: Tensor) -> Tensor:
        """From the velocities of all streams."""
        if not self.two or self.scale is None:
            return velocity
        positive, negative = velocity.chunk(2)
        return towards(positive, negative, self.scale).to(velocity.dtype)
