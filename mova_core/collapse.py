"""A clip that collapses to flat colour, seen early.

Without a first picture many seeds of MOVA end in one colour (public reports say about four in ten). A denoised video
latent of a real scene varies over its area; a flat one does not, and that shows long before the last step.
"""

from typing import Literal

from torch import Tensor

Action = Literal["off", "warn", "stop", "reseed"]
ACTIONS: tuple[Action, ...] = ("off", "warn", "stop", "reseed")
LEAST_SPREAD = 0.2  # normalised latents of scenes vary by about 1; not measured on real weights
WATCHED_BELOW = 0.9  # sigma: before the experts change, every estimate is blurred
TRIES = 8  # seeds tried before giving up


def spatial_spread(latents: Tensor) -> Tensor:
    """(B,) mean standard deviation over the area of (B, C, T, h, w) latents, channels and frames averaged."""
    return latents.float().std(dim=(-2, -1), correction=0).mean(dim=(1, 2))


def collapsed(latents: Tensor, sigma: float) -> bool:
    """Whether denoised, normalised video latents at noise level `sigma` (1..0) show a flat colour in any sample."""
    return sigma < WATCHED_BELOW and bool((spatial_spread(latents) < LEAST_SPREAD).any())
