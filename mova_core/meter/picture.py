"""What spoils the pictures of a clip: NaN, one colour, no motion.

Axes: F frames, H W pixels.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

FLAT = 0.02  # standard deviation over the area, in 0..1, below which a picture is one colour ...
FLAT_REACH = 0.1  # ... unless some spot differs from its middle by more: a moon, a logo, a lamp at night
GRAIN = 4  # pixels a side that noise is averaged over
CELLS = 8  # a side: a mouth that moves fills one of them
STILL = 0.003  # change of the busiest cell, in 0..1, that eight bits do not show
FROZEN = 0.95  # of the pictures


def finite(images: Tensor) -> bool:
    return bool(torch.isfinite(images).all())


def flatness(images: Tensor) -> tuple[float, float]:
    """Of (F, H, W, 3) pictures, on average: the standard deviation over the area, and how far a spot lies from the
    middle of its picture at most. Both 0..1."""
    spreads, reaches = [], []
    for picture in images:
        spots = _grained(picture)
        spreads.append(picture.float().std(dim=(0, 1), correction=0).mean())
        reaches.append((spots - spots.mean(dim=(-2, -1), keepdim=True)).abs().max())
    return torch.stack(spreads).mean().item(), torch.stack(reaches).mean().item()


def motion(images: Tensor) -> tuple[float, float]:
    """Of (F, H, W, 3) pictures: the mean change from each to the next in its busiest cell, 0..1, and the share of the
    pictures that are as the one before."""
    spots = map(_grained, images)
    changes = [F.adaptive_avg_pool2d((after - before).abs(), CELLS).max() for before, after in pairwise(spots)]
    busiest = torch.stack(changes)
    return busiest.mean().item(), (busiest < STILL).float().mean().item()


def _grained(picture: Tensor) -> Tensor:
    """(1, 1, h, w) grey spots of `GRAIN` pixels of an (H, W, 3) picture."""
    grey = picture.float().mean(dim=-1)[None, None]
    side = max(1, min(GRAIN, min(grey.shape[-2:]) // CELLS))
    return F.avg_pool2d(grey, side)
