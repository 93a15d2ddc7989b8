"""Joint latents on disk: both streams, what a mask keeps, rates and origin. Stock latents of the picture are read too.

A file holds `video` and `audio`, `mask` or `video_mask` and `audio_mask` where there are masks, and in its header
`mova_joint_latent`, `frame_rate`, `audio_rate`, `batch_index` and `origin` (JSON). A stock file holds `latent_tensor`.

Axes: B batch, C channels, T latent frames, h w latent pixels, A audio steps.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
from torch import Tensor

from ..checkpoint.files import Header, read_header
from ..checkpoint.whole_file import write_whole
from ..errors import CheckpointError, MovaError, ShapeError
from ..inputs.latents import check_finite, joint_streams
from ..inputs.numbers import real, told, whole
from ..shapes import FPS_RANGE, SPATIAL_STRIDE, VIDEO_LATENT_CHANNELS, frames_of

LATENT_MARK = "mova_joint_latent"
STOCK, STOCK_SCALED = "latent_tensor", "latent_format_version_0"
OLD_SCALE = 1 / 0.18215  # of stock files without STOCK_SCALED
MASKS = (("mask",), ("video_mask", "audio_mask"))  # one for both streams, or one each
AUDIO_STEP_RATES = 1.0, 100_000.0


@dataclass(frozen=True, kw_only=True)
class JointLatent:
    """`video` (B, C, T, h, w) and `audio` (B, C, A); `masks`: none, one for both, or one each.

    `audio` is None and `fps` unknown in a stock file. `audio_rate` is steps a second, None where nothing says.
    """

    video: Tensor
    audio: Tensor | None
    fps: float | None = None
    audio_rate: float | None = None
    masks: tuple[Tensor, ...] = ()
    batch_index: tuple[int, ...] | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """`193 frames of 1280x720 at 24 a second`."""
        batch, _, length, height, width = self.video.shape
        rate = "" if self.fps is None else f" at {self.fps:g} a second"
        several = f", {batch} clips" if batch > 1 else ""
        return f"{frames_of(length)} frames of {width * SPATIAL_STRIDE}x{height * SPATIAL_STRIDE}{rate}{several}"


def tensors_of(latent: JointLatent) -> dict[str, Tensor]:
    """What `write_latent` puts into the file."""
    audio = {} if latent.audio is None else {"audio": latent.audio}
    names = MASKS[len(latent.masks) - 1] if latent.masks else ()
    return {"video": latent.video, **audio, **dict(zip(names, latent.masks, strict=True))}


def notes_of(latent: JointLatent) -> dict[str, str]:
    """What `write_latent` puts into the header."""
    notes = {LATENT_MARK: "1", "origin": json.dumps(dict(latent.origin))}
    if latent.fps is not None:
        notes["frame_rate"] = repr(latent.fps)
    if latent.audio_rate is not None:
        notes["audio_rate"] = repr(latent.audio_rate)
    if latent.batch_index is not None:
        notes["batch_index"] = json.dumps(latent.batch_index)
    return notes


def write_latent(path: Path, latent: JointLatent, notes: Mapping[str, str] | None = None) -> None:
    """Write a file that appears whole or not at all; `notes` go into its header too.

    Raises:
        CheckpointError: the disk did not take it.
    """
    write_whole(path, tensors_of(latent), {**(notes or {}), **notes_of(latent)})


def read_latent(path: Path) -> JointLatent:
    """The latent in a file of ours or of the stock node.

    Raises:
        CheckpointError: no such file, another one, or a damaged one.
    """
    header = read_header(path, "save it again")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.shapes if name in _wanted(header)}
        return _stock(header, tensors) if STOCK in tensors else _ours(header, tensors)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Check the path") from error
    except (MovaError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"the latent in {path} cannot be used: {error!s:.300}") from error


def _wanted(header: Header) -> set[str]:
    if header.metadata.get(LATENT_MARK) == "1":
        return {"video", "audio", *MASKS[0], *MASKS[1]}
    if STOCK in header.shapes:
        return {STOCK}
    held = ", ".join(sorted(header.shapes)[:3]) or "nothing"
    raise ShapeError(f"this is no latent: it holds {held}. 'MOVA Save Latent' writes them, and 'SaveLatent'")


def _ours(header: Header, tensors: Mapping[str, Tensor]) -> JointLatent:
    if not {"video", "audio"} <= tensors.keys():
        raise ShapeError(f"it lacks {' and '.join(sorted({'video', 'audio'} - tensors.keys()))}; save it again")
    video, audio = joint_streams([tensors["video"], tensors["audio"]])
    names = next((names for names in MASKS if set(names) <= tensors.keys()), ())
    masks = tuple(tensors[name] for name in names)
    named = (("its picture", video), ("its sound", audio), *(("its mask", mask) for mask in masks))
    for name, part in named:
        check_finite(name, part)
    notes = header.metadata
    index = json.loads(notes["batch_index"]) if "batch_index" in notes else None
    origin = json.loads(notes.get("origin", "{}"))
    if not isinstance(origin, dict) or not isinstance(index, list | None):
        raise ShapeError(f"its header was changed: origin {told(origin)}, batch_index {told(index)}. Save it again")
    return JointLatent(
        video=video,
        audio=audio,
        fps=real(float(notes["frame_rate"]), *FPS_RANGE) if "frame_rate" in notes else None,
        audio_rate=real(float(notes["audio_rate"]), *AUDIO_STEP_RATES) if "audio_rate" in notes else None,
        masks=masks,
        batch_index=None if index is None else tuple(whole(number, 0) for number in index),
        origin={str(key): str(value) for key, value in origin.items()},
    )


def _stock(header: Header, tensors: Mapping[str, Tensor]) -> JointLatent:
    video = tensors[STOCK]
    if video.ndim != 5 or video.shape[1] != VIDEO_LATENT_CHANNELS or not video.numel():
        raise ShapeError(
            f"its latent is {tuple(video.shape)}; MOVA's picture is (batch, {VIDEO_LATENT_CHANNELS}, frames, height, "
            "width). Save it from a graph of MOVA or Wan 2.1 or 2.2 A14B"
        )
    check_finite("its picture", video)
    scale = 1.0 if STOCK_SCALED in header.shapes else OLD_SCALE
    return JointLatent(video=video.float() * scale, audio=None)
