"""Flow matching: what the model is shown between clean and noise, and how far its velocity is off.

Source: OpenMOSS/MOVA 595a976 `mova_train.py`: each stream's mean square, unweighted by sigma; weights 1 and 1 there.
The paper states 0.2 for the sound, VideoX-Fun takes 0.1. The sound has a fiftieth of the picture's elements, so at 1
each of its elements weighs as much as fifty of the picture's.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError
from ..sampling.schedule import TIMESTEPS

OFFICIAL_AUDIO_WEIGHT = 1.0
PAPER_AUDIO_WEIGHT = 0.2


@dataclass(frozen=True)
class Losses:
    """Mean squares of picture and sound, and their weighted sum; float32, without axes."""

    video: Tensor
    audio: Tensor
    total: Tensor


def noised(clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """(1 - sigma) * clean + sigma * noise in float32, for (B, ...) latents and (B,) timesteps.

    Raises:
        ShapeError: they do not fit each other.
    """
    if clean.shape != noise.shape or timestep.shape != clean.shape[:1]:
        raise ShapeError(
            f"latents {tuple(clean.shape)}, noise {tuple(noise.shape)} and timesteps {tuple(timestep.shape)} do not "
            "fit each other; noise has the latents' shape, and each sample has a timestep"
        )
    sigma = (timestep.float() / TIMESTEPS).view(-1, *(1,) * (clean.ndim - 1))
    return (1 - sigma) * clean.float() + sigma * noise.float()


def target(clean: Tensor, noise: Tensor) -> Tensor:
    """The velocity of the straight way from clean to noise, float32."""
    return noise.float() - clean.float()


def losses(velocities: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], audio_weight: float) -> Losses:
    """Of both streams' velocities."""
    video, audio = (F.mse_loss(ours.float(), wanted) for ours, wanted in zip(velocities, targets, strict=True))
    return Losses(video, audio, video + audio_weight * audio)
