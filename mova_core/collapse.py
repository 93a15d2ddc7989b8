"""A clip that collapses to flat colour, seen early.

Without a first picture many seeds of MOVA end in one colour (public reports say about four in ten). A denoised video
latent of a real scene varies over its area; a flat one does not, and that shows long before the last step. Some scenes
vary little: a clip that begins with a picture is held against that picture, and one bright spot is enough for a scene.

Axes: B batch, C channels, T latent frames, h w latent cells.
"""

from typing import Literal

from torch import Tensor

Action = Literal["off", "warn", "stop", "reseed"]
ACTIONS: tuple[Action, ...] = ("off", "warn", "stop", "reseed")
LEAST_SPREAD = 0.2  # normalised latents of scenes vary by about 1; not measured on real weights
LEAST_REACH = (
    0.4  # of the cell that differs most from the middle of its frame: a moon's is about 1; not measured either
)
SHARE = 0.5  # of the first picture's own spread that what follows keeps at least
WATCHED_BELOW = 0.9  # sigma: before the experts change, every estimate is blurred
TRIES = 8  # seeds tried before giving up


def spatial_spread(latents: Tensor) -> Tensor:
    """(B,) mean standard deviation over the area of (B, C, T, h, w) latents, channels and frames averaged."""
    return latents.float().std(dim=(-2, -1), correction=0).mean(dim=(1, 2))


def spatial_reach(latents: Tensor) -> Tensor:
    """(B,) how far the cell that differs most lies from the middle of its frame, channels and frames averaged."""
    apart = latents.float() - latents.float().mean(dim=(-2, -1), keepdim=True)
    return apart.abs().mean(dim=1).amax(dim=(-2, -1)).mean(dim=1)


def collapsed(latents: Tensor, sigma: float, first: Tensor | None = None) -> bool:
    """Whether denoised, normalised video latents at noise level `sigma` (1..0) show a flat colour in any sample.

    `first` is the `spatial_spread` (1 or B,) of the latents of the picture that the clip begins with, None without one.
    """
    if sigma >= WATCHED_BELOW:
        return False
    if first is None:
        return bool(((spatial_spread(latents) < LEAST_SPREAD) & (spatial_reach(latents) < LEAST_REACH)).any())
    later = latents[:, :, 1:] if latents.shape[2] > 1 else latents
    least = (SHARE * first.to(latents.device)).clamp_max(LEAST_SPREAD)
    return bool((spatial_spread(later) < least).any())
