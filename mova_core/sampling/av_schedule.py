"""An audio stream scaled onto the video's schedule, so that a sampler of one noise level walks both.

A flow shifted by `s` and one shifted by `a` reach, at the same step, noise levels sigma and reshift(sigma, s, a). Their
ratio is 1 at pure noise and a/s at the end, and the audio latent divided by it walks the video's sigmas: its clean
estimate at the end is s/a times the audio's. With equal shifts all of this is the identity.

Shapes: audio (B, C, A); sigmas (B,); shifts are (video, audio).
"""

import torch
from torch import Tensor

from .schedule import reshift

Shifts = tuple[float, float]
SMALLEST = 1e-6  # sigma: nothing is divided by less


def audio_sigma(sigma: Tensor, shifts: Shifts) -> Tensor:
    """The audio's own noise level where the video's is `sigma`."""
    return sigma if shifts[0] == shifts[1] else reshift(sigma, *shifts)


def clean_scale(shifts: Shifts) -> float:
    """By how much a clean audio latent is scaled on the video's schedule."""
    return shifts[0] / shifts[1]


def unscaled(scaled: Tensor, sigma: Tensor, own: Tensor, shifts: Shifts, *, clean: bool) -> Tensor:
    """The audio latent at its own noise level `own`, from the scaled one at the video's `sigma`; in its dtype.

    A `clean` one carries no noise: it is scaled as at the end.
    """
    if shifts[0] == shifts[1]:
        return scaled
    ratio = shifts[1] / shifts[0] if clean else along((own / sigma.clamp(min=SMALLEST)), scaled)
    return (scaled.float() * ratio).to(scaled.dtype)


def scaled_velocity(audio: Tensor, velocity: Tensor, own: Tensor, shifts: Shifts) -> Tensor:
    """Velocity of the scaled latent over the video's sigma, from the audio's over its own; in the audio's dtype."""
    if shifts[0] == shifts[1]:
        return velocity
    scale = clean_scale(shifts)
    noise_share = 1.0 + (scale - 1.0) * along(own, audio)
    return ((1.0 - scale) * audio.float() + noise_share * velocity.float()).to(audio.dtype)


def to_video_step(velocity: Tensor, sigma: Tensor, own: Tensor) -> Tensor:
    """Float32 velocity to be taken times the video's `sigma` for the clean estimate, of an audio at any level `own`."""
    return velocity.float() * along(own / sigma, velocity)


def latent_share(sigma: float, shifts: Shifts) -> float:
    """How much of the scaled latent itself x - denoised holds, beside a multiple of the velocity."""
    return float((1.0 - shifts[0] / shifts[1]) * reshift(torch.tensor(sigma), *shifts).item())


def along(values: Tensor, x: Tensor) -> Tensor:
    """(B,) values against (B, C, A)."""
    return values.view((-1,) + (1,) * (x.ndim - 1))
