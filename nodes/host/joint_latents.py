"""Joint latents: a LATENT of two streams, what clip it stands for, and where it waits."""

import comfy.model_management
import comfy.nested_tensor
import node_helpers
import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mova_core.inputs.latents import joint_streams
from ...mova_core.shapes import SPATIAL_STRIDE, VideoShape, frames_of
from .types import Conditioning, Latent, Values


def joint(video: Tensor, audio: Tensor) -> NestedTensor:
    """The NestedTensor of both streams."""
    return comfy.nested_tensor.NestedTensor((video, audio))


def streams(latent: Latent) -> tuple[Tensor, Tensor]:
    """Video (B, 16, T, H, W) and audio (B, C, A) of a LATENT.

    Raises:
        ShapeError: it is not a joint latent.
    """
    samples = latent["samples"]
    return joint_streams(samples.unbind() if getattr(samples, "is_nested", False) else [samples])


def video_shape(latent: Latent) -> VideoShape:
    """Batch, frames and pixels of the clip a joint LATENT stands for.

    Raises:
        ShapeError: it is not a joint latent.
    """
    batch, _, length, height, width = streams(latent)[0].shape
    stride = SPATIAL_STRIDE
    return VideoShape(batch=batch, frames=frames_of(length), height=height * stride, width=width * stride)


def one_of(latent: Latent, index: int) -> Latent:
    """The joint LATENT of one clip of a batch, without the batch's masks and indices."""
    video, audio = (stream[index : index + 1] for stream in streams(latent))
    made: Latent = {**latent, "samples": joint(video, audio)}
    for name in ("noise_mask", "batch_index"):
        made.pop(name, None)  # type: ignore[misc]
    return made


def masked_as(latent: Latent, before: Latent) -> Latent:
    """A LATENT with what `before` holds of the picture, and what it holds itself of the sound."""
    if "noise_mask" not in before:
        return latent
    (shown, _), (_, heard) = (each["noise_mask"].unbind() for each in (before, latent))
    return {**latent, "noise_mask": joint(shown, heard)}


def conditioned(conditioning: Conditioning, values: Values) -> Conditioning:
    """A copy of a CONDITIONING with `values` set in every entry."""
    return node_helpers.conditioning_set_values(conditioning, values)


def device() -> torch.device:
    """Where latents wait between nodes."""
    return comfy.model_management.intermediate_device()
