"""Where latents lie in ComfyUI's folders, and LATENT to and from what a file holds."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import comfy.nested_tensor
import folder_paths
import torch

from ....mova_core.errors import CheckpointError
from ....mova_core.inputs.numbers import told
from ....mova_core.kept.latents import JointLatent
from ....mova_core.shapes import (
    AUDIO_LATENT_CHANNELS,
    DEFAULT_FPS,
    PUBLISHED_GRID,
    AudioGrid,
    AudioShape,
    audio_latent_shape,
    audio_steps,
    frames_of,
)
from .. import checks, joint_latents
from ..keys import AUDIO_RATE
from ..types import Latent

ENDINGS = (".safetensors", ".latent")
IN_OUTPUT = " [output]"  # as ComfyUI marks a file of its output folder
PASSED_OVER = {"mova_segments", "mova_films"}  # folders of the output folder whose files are no latents
MOST_NAMES = 500  # names in the list


def of_latent(latent: Latent, origin: Mapping[str, str]) -> JointLatent:
    """What a file holds of a joint LATENT."""
    video, audio = (part.detach().cpu() for part in joint_latents.streams(latent))
    mask, index = latent.get("noise_mask"), latent.get("batch_index")
    parts = () if mask is None else mask.unbind() if getattr(mask, "is_nested", False) else (mask,)
    return JointLatent(
        video=video,
        audio=audio,
        fps=checks.frame_rate(latent),
        audio_rate=checks.audio_rate(latent),
        masks=tuple(part.detach().cpu() for part in parts),
        batch_index=None if index is None else tuple(map(int, index)),
        origin=origin,
    )


def to_latent(kept: JointLatent, grid: AudioGrid = PUBLISHED_GRID, channels: int = AUDIO_LATENT_CHANNELS) -> Latent:
    """A LATENT; where the file holds no sound, with an empty one as `grid` and `channels` of the codec say."""
    place, fps = joint_latents.device(), kept.fps
    video, audio, rate = kept.video.to(place), kept.audio, kept.audio_rate
    if audio is None:
        fps, rate = DEFAULT_FPS, grid.steps_per_second
        steps = audio_steps(frames_of(video.shape[2]), fps, grid)
        audio = torch.zeros(audio_latent_shape(AudioShape(batch=len(video), steps=steps), channels))
    latent: Latent = {"samples": joint_latents.joint(video, audio.to(place))}
    if fps is not None:
        latent["frame_rate"] = fps
    if rate is not None:
        latent[AUDIO_RATE] = rate
    if kept.masks:
        masks = tuple(mask.to(place) for mask in kept.masks)
        latent["noise_mask"] = comfy.nested_tensor.NestedTensor(masks) if len(masks) > 1 else masks[0]
    if kept.batch_index is not None:
        latent["batch_index"] = list(kept.batch_index)
    return latent


def files() -> list[str]:
    """Files that may hold a latent, the newest first: of the input folder, then of the output folder with its mark."""
    inputs, outputs = Path(folder_paths.get_input_directory()), Path(folder_paths.get_output_directory())
    found = [(name, "") for name in _newest(inputs)] + [(name, IN_OUTPUT) for name in _newest(outputs)]
    return [f"{name}{mark}" for name, mark in found[:MOST_NAMES]]


def file_of(name: str) -> Path:
    """The file of that name in the list.

    Raises:
        CheckpointError: it names none in these folders.
    """
    marked = name.endswith(IN_OUTPUT)
    folder = Path(folder_paths.get_output_directory() if marked else folder_paths.get_input_directory()).resolve()
    path = folder / name.removesuffix(IN_OUTPUT)
    if "\0" in name or not path.name.endswith(ENDINGS) or not path.resolve().is_relative_to(folder):
        raise CheckpointError(f"{told(name)} is no latent in the input or output folder; choose one from the list")
    return path


def _newest(folder: Path) -> list[str]:
    ages = []
    for path in _walk(folder):
        try:
            ages.append((-path.stat().st_mtime, path.relative_to(folder).as_posix()))
        except OSError:  # gone meanwhile, or a name that leads nowhere
            continue
    return [name for _, name in sorted(ages)]


def _walk(folder: Path) -> Iterator[Path]:
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in PASSED_OVER and not name.startswith(".")]
        yield from (Path(place) / name for name in names if name.endswith(ENDINGS) and not name.startswith("."))
