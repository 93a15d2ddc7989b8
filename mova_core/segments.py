"""Parts of a long clip on disk, so that memory does not grow with its length: 8-bit pictures and sound, read in slices.

Axes: F frames, H W pixels, C channels, S samples.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from .checkpoint.files import read_header
from .errors import CheckpointError, ShapeError
from .waveform import clip_samples, join_sound

MARK = "mova_segment"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part: what its header says; pictures and sound stay on disk until asked for."""

    path: Path
    frames: int
    height: int
    width: int
    fps: float
    sample_rate: int

    def pictures(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(F, H, W, 3) uint8 of frames `start` to `stop`; only these are read."""
        with safetensors.safe_open(self.path, framework="pt") as file:
            return file.get_slice("pictures")[start : self.frames if stop is None else stop]  # type: ignore[no-any-return]

    def sound(self) -> Tensor:
        """(1, C, S) float32, as long as the pictures."""
        with safetensors.safe_open(self.path, framework="pt") as file:
            return file.get_tensor("sound")[None]  # type: ignore[no-any-return]


def write_segment(path: Path, images: Tensor, waveform: Tensor, fps: float, sample_rate: int) -> Segment:
    """Store (F, H, W, 3) pictures in 0..1 and (C, S) sound; the file appears whole or not at all.

    Raises:
        ShapeError: the sound is not as long as the pictures.
    """
    wanted = clip_samples(len(images), fps, sample_rate)
    if waveform.shape[-1] != wanted:
        raise ShapeError(
            f"{len(images)} pictures at {fps} a second last {wanted} samples, the sound has {waveform.shape[-1]}; "
            "connect both from one 'MOVA Decode'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pictures = (images[..., :3].float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous().cpu()
    tensors = {"pictures": pictures, "sound": waveform.float().contiguous().cpu()}
    save_file(tensors, part, metadata={MARK: "1", "fps": repr(float(fps)), "sample_rate": str(sample_rate)})
    os.replace(part, path)  # noqa: PTH105, atomic on every system
    return open_segment(path)


def open_segment(path: Path) -> Segment:
    """The segment in a file, from its header.

    Raises:
        CheckpointError: missing, damaged, or something else.
    """
    header = read_header(path)
    if MARK not in header.metadata or header.shapes.keys() != {"pictures", "sound"}:
        raise CheckpointError(f"{path} is no segment of a clip; 'MOVA Save Segment' writes them")
    frames, height, width, _ = header.shapes["pictures"]
    fps, rate = float(header.metadata["fps"]), int(header.metadata["sample_rate"])
    return Segment(path=path, frames=frames, height=height, width=width, fps=fps, sample_rate=rate)


def segments(folder: Path) -> list[Segment]:
    """All segments of a clip, in order: 000.safetensors, 001.safetensors ...

    Raises:
        CheckpointError: there is none, one is missing in between, or one is damaged.
    """
    paths = sorted(folder.glob("[0-9][0-9][0-9].safetensors"))
    numbers = [int(path.stem) for path in paths]
    if numbers != list(range(len(paths))) or not paths:
        gap = next(n for n in range(len(paths) + 1) if n not in numbers)
        raise CheckpointError(f"{folder} lacks segment {gap:03d}; make it again, or choose another name")
    return [open_segment(path) for path in paths]


def check_alike(parts: Sequence[Segment], overlap: int) -> None:
    """Accept segments that can follow each other.

    Raises:
        ShapeError: other sizes or rates, or a segment no longer than the overlap.
    """
    first = parts[0]
    for part in parts:
        if (part.height, part.width, part.fps, part.sample_rate) != (
            first.height,
            first.width,
            first.fps,
            first.sample_rate,
        ):
            raise ShapeError(f"{part.path.name} has another size or rate than {first.path.name}; they cannot be joined")
        if part.frames <= overlap and len(parts) > 1:
            raise ShapeError(f"{part.path.name} has {part.frames} pictures, no more than the overlap of {overlap}")


def joined_sound(parts: Sequence[Segment], overlap: int) -> Tensor:
    """(1, C, S) sound of all segments, each beginning with the last `overlap` frames of the one before."""
    sound, frames = parts[0].sound(), parts[0].frames
    for part in parts[1:]:
        sound = join_sound(sound, part.sound(), frames, part.frames, overlap, part.fps, part.sample_rate)
        frames += part.frames - overlap
    return sound
