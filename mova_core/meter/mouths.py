"""A mouth followed through a clip, from faces found in some of its pictures.

Boxes are (left, top, right, bottom) in pixels. Axes: F frames.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Box = tuple[float, float, float, float]

LEAST_SEEN = 0.5  # of the pictures searched must show the face
SMOOTHED = 13  # frames: a head moves slowly, a found box jumps
STRAY = 1.2  # widths of the mouth beyond which a box belongs to another face


def of_face(face: Box) -> Box:
    """Where the mouth is in the box of a face as cascades draw it, from brow to chin."""
    left, top, right, bottom = face
    width, height = right - left, bottom - top
    return left + 0.25 * width, top + 0.62 * height, left + 0.75 * width, top + 1.02 * height


def of_lips(face: Box, lips: Sequence[Sequence[float]]) -> Box:
    """A box around the middle of the lips' points, as large as `of_face`'s whatever the mouth does."""
    x, y = (sum(point[axis] for point in lips) / len(lips) for axis in (0, 1))
    half = 0.31 * (face[2] - face[0])  # a landmarks' box is narrower than a cascade's
    return x - half, y - 0.8 * half, x + half, y + 0.8 * half


def largest(faces: Sequence[Box]) -> int | None:
    """Which face is the largest; None of none."""
    sizes = [(right - left) * (bottom - top) for left, top, right, bottom in faces]
    return sizes.index(max(sizes)) if sizes else None


def followed(found: Mapping[int, Box], searched: int, frames: int) -> Tensor | None:
    """(F, 4) boxes of a mouth found in some of `searched` pictures; None where it was seen in too few of them."""
    if len(found) < LEAST_SEEN * searched or not found:
        return None
    at, boxes = torch.tensor(sorted(found)), torch.tensor([found[frame] for frame in sorted(found)])
    usual = boxes.median(dim=0).values
    same = (boxes - usual).abs().amax(dim=1) < STRAY * (usual[2] - usual[0])
    if not same.any():
        return None
    tracks = _between(at[same], boxes[same], frames)
    padded = F.pad(tracks.T[None], (SMOOTHED // 2, SMOOTHED // 2), mode="replicate")
    return F.avg_pool1d(padded, SMOOTHED, stride=1)[0].T


def _between(at: Tensor, boxes: Tensor, frames: int) -> Tensor:
    """(F, 4): linear between the boxes, the nearest one before the first and after the last."""
    every = torch.arange(frames)
    after = torch.searchsorted(at, every).clamp(1, max(1, len(at) - 1)).clamp_max(len(at) - 1)
    before = (after - 1).clamp_min(0)
    gap = (at[after] - at[before]).clamp_min(1)
    share = ((every - at[before]) / gap).clamp(0, 1)[:, None]
    return boxes[before] * (1 - share) + boxes[after] * share
