"""Which parts of a joint latent are made anew: masks of 1 (make) and 0 (keep), for one stream or a span of time.

Axes: B batch, T latent frames, h w latent pixels, A audio steps.
"""

from typing import Literal

import torch
from torch import Tensor

from .errors import ShapeError
from .shapes import audio_step_range, audio_step_rate, clip_seconds, frames_of, latent_frame_range

MaskPart = Literal["nothing", "span", "all"]
MASK_PARTS: tuple[MaskPart, ...] = ("nothing", "span", "all")


def joint_masks(
    video_shape: tuple[int, ...],
    audio_shape: tuple[int, ...],
    video: MaskPart,
    audio: MaskPart,
    start: float,
    end: float,
    fps: float,
    audio_rate: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks (1, 1, T, h, w) and (1, 1, A): of each stream make nothing, all, or what sounds or shows in a span.

    `start` and `end` are seconds; a latent frame or audio step is made if any of it lies in the span.
    `audio_rate` is audio steps a second, where the latent says.

    Raises:
        ShapeError: a span is asked for that is empty or lies outside the clip.
    """
    latent_frames, height, width = video_shape[2:]
    frames = frames_of(latent_frames)
    shown = torch.full((1, 1, latent_frames, height, width), float(video == "all"))
    heard = torch.full((1, 1, audio_shape[-1]), float(audio == "all"))
    picture = latent_frame_range(start, end, frames, fps)
    rate = audio_step_rate(audio_shape[-1], frames, fps, audio_rate)
    sound = audio_step_range(start, end, audio_shape[-1], rate)
    if "span" in (video, audio) and not (picture and sound):
        raise ShapeError(
            f"{start} to {end} s is no part of this clip of {clip_seconds(frames, fps):.3f} s; "
            "give a start before the end, both within it"
        )
    if video == "span":
        shown[:, :, picture.start : picture.stop] = 1
    if audio == "span":
        heard[..., sound.start : sound.stop] = 1
    return shown, heard


def lead_masks(
    video_shape: tuple[int, ...], audio_shape: tuple[int, ...], latent_frames: int, audio_steps: int
) -> tuple[Tensor, Tensor]:
    """Masks that keep the first `latent_frames` and `audio_steps` and make the rest."""
    shown, heard = torch.ones(1, 1, *video_shape[2:]), torch.ones(1, 1, audio_shape[-1])
    shown[:, :, :latent_frames] = 0
    heard[..., :audio_steps] = 0
    return shown, heard
