"""What the nodes that begin a clip share: pictures into the conditioning, and the empty joint latent."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..mova_core.errors import ShapeError
from ..mova_core.image import MOVA_FIT, PictureFit, crop_and_resize, guide_clip, guide_mask
from ..mova_core.shapes import (
    AUDIO_LATENT_CHANNELS,
    PUBLISHED_GRID,
    SPATIAL_STRIDE,
    AudioShape,
    VideoShape,
    audio_latent_shape,
    audio_steps,
    video_latent_shape,
)
from .host import checks, joint_latents
from .host.keys import AUDIO_RATE, AUDIO_STEPS, NO_PICTURE
from .host.loaders import grey_frames
from .host.types import Latent

Conditionings = tuple[Any, Any]


def guided(
    pair: Conditionings,
    vae: Any,
    guides: Mapping[int, Tensor],
    shape: VideoShape,
    latent: Latent,
    fit: PictureFit = MOVA_FIT,
) -> Conditionings:
    """Positive and negative with pictures at chosen frames of the joint LATENT that they will be sampled with.

    `guides` maps frame -> (N, H, W, 3) in 0..1 of any size, where N is 1 for all clips of the batch, or one each.

    Raises:
        ShapeError: another number of pictures.
    """
    height, width = shape.height, shape.width
    for frame, picture in guides.items():
        if len(picture) not in (1, shape.batch):
            raise ShapeError(
                f"{len(picture)} pictures for frame {frame} of {shape.batch} {'clip' if shape.batch == 1 else 'clips'}; "
                "give one for all, or as many as batch_size. 'ImageFromBatch' picks one"
            )
    several = max(map(len, guides.values()))
    fitted = {frame: crop_and_resize(picture, height, width, fit) for frame, picture in guides.items()}
    fitted = {frame: picture.expand(several, -1, -1, -1) for frame, picture in fitted.items()}
    begun = guide_clip(fitted, shape.frames)  # (N, 3, F, H, W) in -1..1
    last = max(fitted)
    latents = torch.cat([grey_frames.encoded(vae, (clip.movedim(0, -1) + 1.0) / 2.0, last) for clip in begun])
    mask = guide_mask(guides.keys(), shape.frames, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)
    values = {
        "concat_latent_image": latents,
        "concat_mask": 1.0 - mask,
        "frame_rate": checks.frame_rate(latent),
        AUDIO_STEPS: joint_latents.streams(latent)[1].shape[-1],
        NO_PICTURE: bool((guides[0] == 1).all()) if 0 in guides else True,
    }
    positive, negative = (joint_latents.conditioned(conditioning, values) for conditioning in pair)
    return positive, negative


def empty_latent(vae: Any, shape: VideoShape, fps: float, audio_vae: Any = None) -> Latent:
    """A joint LATENT of zeros, with the sound steps of `audio_vae`.

    Without it: the video VAE of a MOVA folder knows its codec's latents; any other means the published ones.
    """
    if audio_vae is not None:
        channels, grid = audio_vae.latent_channels, audio_vae.audio_grid
    else:
        channels = getattr(vae, "audio_latent_channels", AUDIO_LATENT_CHANNELS)
        grid = getattr(vae, "audio_grid", PUBLISHED_GRID)
    sound = AudioShape(batch=shape.batch, steps=audio_steps(shape.frames, fps, grid))
    place = joint_latents.device()
    video = torch.zeros(video_latent_shape(shape), device=place)
    audio = torch.zeros(audio_latent_shape(sound, channels), device=place)
    made: Latent = {"samples": joint_latents.joint(video, audio), "frame_rate": fps}
    made[AUDIO_RATE] = grid.steps_per_second
    return made


def white(height: int, width: int) -> Tensor:
    """The picture that stands for 'no picture' in training."""
    return torch.ones(1, height, width, 3)
