"""IMAGE: pictures of any usual depth and channels -> (B, H, W, 3) float32 in 0..1.

Axes: B pictures, H W pixels, C channels.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError
from .numbers import told
from .tensors import broken, check_dense, extent, has_broken

log = logging.getLogger("mova")
WHITE = {torch.uint8: 255.0, torch.uint16: 65535.0}
BRIGHTEST = 16.0  # a pixel beyond it is no light in 0..1 any more, but a number on another scale
PICTURE_OVERSHOOT = 0.05  # what a sharp resizing filter adds at an edge; cut without a word
Notice = Callable[[str], None]


def pictures(value: Any, say: Notice = log.warning) -> Tensor:
    """(B, H, W, 3) float32 in 0..1. Grey is repeated; alpha laid over white and what lies beyond 0..1 cut, and so said.

    Raises:
        ShapeError: no tensor, another shape, no picture, numbers of another kind or scale, NaN or infinity.
    """
    if not isinstance(value, Tensor):
        raise ShapeError(f"{told(value)} is no IMAGE; connect pictures")
    check_dense("this IMAGE", value)
    if value.ndim != 4 or value.shape[-1] not in (1, 3, 4):
        raise ShapeError(
            f"an IMAGE of shape {tuple(value.shape)} cannot be read; it must be (pictures, height, width, channels) "
            "with 1, 3 or 4 channels"
        )
    if 0 in value.shape:
        raise ShapeError(f"an IMAGE of shape {tuple(value.shape)} holds no picture; connect at least one")
    light = _light(value, say)
    if light.shape[-1] == 4:
        say("pictures with alpha are laid over white")
        light = light[..., :3] * light[..., 3:] + (1.0 - light[..., 3:])
    return light.expand(*light.shape[:3], 3)


def spoiled_pictures(value: Any) -> Tensor:
    """`pictures` of which some may be NaN or infinite: both are NaN then, in all channels. For whoever looks for them.

    Raises:
        ShapeError: as `pictures`, for all else.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return pictures(value)
    if not has_broken(check_dense("this IMAGE", value)):
        return pictures(value)
    spoiled = broken(value)
    whole = pictures(value.masked_fill(spoiled, 0.0))
    return whole.masked_fill(spoiled.any(dim=-1, keepdim=True), float("nan"))


def _light(value: Tensor, say: Notice) -> Tensor:
    """As float32 in 0..1, all channels."""
    if value.dtype in WHITE:
        return value.float() / WHITE[value.dtype]
    if not value.is_floating_point():
        raise ShapeError(
            f"pictures of {value.dtype} have no known scale; give floating point in 0..1, or 8 or 16 bit unsigned"
        )
    low, high = extent(value)
    if not (low >= -BRIGHTEST and high <= BRIGHTEST):  # NaN fails both
        raise ShapeError(
            f"the pictures run from {low:g} to {high:g}; they must lie in 0..1. NaN comes from a node or model that "
            "failed; numbers up to 255 want dividing by 255"
        )
    if low < -PICTURE_OVERSHOOT or high > 1 + PICTURE_OVERSHOOT:
        say(f"pictures that run from {low:.3g} to {high:.3g} are cut to 0..1")
    light = value.detach().float()
    return light if low >= 0 and high <= 1 else light.clamp(0, 1)
