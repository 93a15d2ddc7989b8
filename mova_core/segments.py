"""Parts of a long clip on disk, so that memory does not grow with its length: 8-bit pictures and sound, read in slices.

Axes: F frames, H W pixels, C channels, S samples.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from .checkpoint.files import Header, read_header
from .checkpoint.whole_file import sweep, write_whole
from .errors import CheckpointError, MovaError, ShapeError
from .inputs.numbers import real, whole
from .inputs.sounds import Sound, of_clips
from .shapes import FPS_RANGE
from .waveform import CHANNELS, checked_rate, clip_samples, fit, join_sound

SEGMENT_MARK = "mova_segment"
SOUNDLESS = 0  # the sample rate of a part without sound
LEEWAY_SECONDS = 0.2  # a sound track that ends so much before or after its pictures is cut or filled
OLDER = re.compile(r"\d{3}\.part|\.tmp\w{6}")  # as earlier versions named them, in a folder of segments
NAME = re.compile(r"\d{3,}")
GONE = "{} is gone. Make this part again"
Resample = Callable[[Tensor, int, int], Tensor]
"""(B, C, S) at one rate, Hz, to another."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part: what its header says; pictures and sound stay on disk until asked for.

    `sample_rate` is 0 and `channels` 1 where the part has no sound.
    """

    path: Path
    frames: int
    height: int
    width: int
    fps: float
    sample_rate: int
    channels: int

    def pictures(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(F, H, W, 3) uint8 of frames `start` to `stop`; only these are read."""
        with _opened(self.path) as file:
            return file.get_slice("pictures")[start : self.frames if stop is None else stop]  # type: ignore[no-any-return]

    def sound(self) -> Tensor | None:
        """(1, C, S) float32, as long as the pictures; None where the part has none.

        Raises:
            CheckpointError: it holds NaN or infinity.
        """
        if self.sample_rate == SOUNDLESS:
            return None
        with _opened(self.path) as file:
            waveform: Tensor = file.get_tensor("sound")[None]
        if not torch.isfinite(waveform).all():
            raise CheckpointError(f"the sound of {self.path} holds NaN; make this part again")
        return waveform


@contextmanager
def _opened(path: Path) -> Iterator["safetensors.safe_open"]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(GONE.format(path)) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!s:.200}. Make this part again") from error


def segment_path(folder: Path, index: int) -> Path:
    """Where part `index` of a clip lies."""
    return folder / f"{index:03d}.safetensors"


def write_segment(path: Path, images: Tensor, sound: Sound | None, fps: float) -> Segment:
    """Store (F, H, W, 3) pictures in 0..1 with their sound, or none; the file appears whole or not at all.

    Raises:
        ShapeError: sides that no MP4 has, or a sound of another length than the pictures.
        CheckpointError: the disk did not take it.
    """
    if images.shape[1] % 2 or images.shape[2] % 2:
        raise ShapeError(
            f"pictures of {images.shape[2]} x {images.shape[1]} cannot be put into an MP4, whose sides are even; crop "
            "or resize them by one pixel"
        )
    waveform = torch.zeros(1, 0) if sound is None else _fitted(sound, len(images), fps)
    pictures = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    rate = SOUNDLESS if sound is None else sound.rate
    sweep(path, OLDER)
    notes = {SEGMENT_MARK: "1", "fps": repr(fps), "sample_rate": str(rate)}
    write_whole(path, {"pictures": pictures, "sound": waveform}, notes)
    return open_segment(path)


def _fitted(sound: Sound, frames: int, fps: float) -> Tensor:
    """(C, S) exactly as long as the pictures."""
    waveform, samples = of_clips(sound, 1).waveform, clip_samples(frames, fps, sound.rate)
    if abs(waveform.shape[-1] - samples) > LEEWAY_SECONDS * sound.rate:
        raise ShapeError(
            f"{frames} pictures at {fps:g} a second last {samples} samples, the sound has {waveform.shape[-1]}; "
            "connect both from one 'MOVA Decode', or the fps of the clip"
        )
    return fit(waveform, samples)[0]


def open_segment(path: Path) -> Segment:
    """The segment in a file, from its header; each field is checked.

    Raises:
        CheckpointError: missing, damaged, or something else.
    """
    try:
        header = read_header(path, "make this part again")
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CheckpointError(GONE.format(path)) from error
        raise
    if header.metadata.get(SEGMENT_MARK) != "1" or header.shapes.keys() != {"pictures", "sound"}:
        raise CheckpointError(f"{path} is no segment of a clip; 'MOVA Save Segment' writes them")
    try:
        return _segment(path, header)
    except (MovaError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or was changed: {error!s:.300}. Make this part again") from error


def _segment(path: Path, header: Header) -> Segment:
    pictures, sound = header.shapes["pictures"], header.shapes["sound"]
    if header.dtypes["pictures"] != "U8" or header.dtypes["sound"] != "F32":
        raise ShapeError(f"its pictures are {header.dtypes['pictures']} and its sound {header.dtypes['sound']}")
    if len(pictures) != 4 or pictures[3] != 3 or 0 in pictures or pictures[1] % 2 or pictures[2] % 2:
        raise ShapeError(f"its pictures have shape {pictures}, not (frames, even height, even width, 3)")
    fps = real(float(header.metadata["fps"]), *FPS_RANGE)
    rate = whole(int(header.metadata["sample_rate"]))
    wanted = 0 if rate == SOUNDLESS else clip_samples(pictures[0], fps, checked_rate(rate))
    if len(sound) != 2 or sound[0] not in CHANNELS or sound[1] != wanted:
        raise ShapeError(f"its sound has shape {sound}, for {pictures[0]} pictures (channels, {wanted}) is right")
    return Segment(
        path=path,
        frames=pictures[0],
        height=pictures[1],
        width=pictures[2],
        fps=fps,
        sample_rate=rate,
        channels=sound[0],
    )


def segments(folder: Path, last: int | None = None) -> list[Segment]:
    """The segments of a clip in order, 000.safetensors, 001.safetensors ..., up to `last` or all.

    Raises:
        CheckpointError: there is none, one is missing in between, or one is damaged.
    """
    there = {
        int(path.stem)
        for path in _listed(folder)
        if NAME.fullmatch(path.stem) and path == segment_path(folder, int(path.stem))
    }
    count = max(there, default=0) + 1 if last is None else last + 1
    missing = next((n for n in range(count) if n not in there), None)
    if missing is not None:
        raise CheckpointError(
            f"part {missing:03d} is not there: {folder} lacks segment {missing:03d} and holds {len(there)}. Make it "
            "again, name the last part to join, or choose another clip"
        )
    return [open_segment(segment_path(folder, n)) for n in range(count)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read: {error.strerror or error}. Look at the folder's rights"
        ) from error


def check_alike(parts: Sequence[Segment], overlap: int) -> None:
    """Accept segments that can follow each other; their sounds may be of any rate and layout.

    Raises:
        ShapeError: pictures of other sizes or rates, or a segment no longer than the overlap.
    """
    first = parts[0]
    for part in parts:
        if (part.height, part.width, part.fps) != (first.height, first.width, first.fps):
            sizes = [f"{p.path.name} has {p.width} x {p.height} at {p.fps:g} a second" for p in (part, first)]
            raise ShapeError(f"{' and '.join(sizes)}; they cannot be joined. Make one of them again")
        if part.frames <= overlap and len(parts) > 1:
            raise ShapeError(f"{part.path.name} has {part.frames} pictures, no more than the overlap of {overlap}")


def joined_sound(parts: Sequence[Segment], overlap: int, rate: int, resample: Resample) -> Tensor | None:
    """(1, C, S) at `rate` of all segments, each beginning with the last `overlap` frames of the one before.

    Parts without sound are silent; None where no part has any.

    Raises:
        CheckpointError: a part cannot be read, or its sound holds NaN.
    """
    if all(part.sample_rate == SOUNDLESS for part in parts):
        return None
    sound, frames = _sound(parts[0], rate, resample), parts[0].frames
    for part in parts[1:]:
        sound = join_sound(sound, _sound(part, rate, resample), frames, part.frames, overlap, part.fps, rate)
        frames += part.frames - overlap
    return sound


def _sound(part: Segment, rate: int, resample: Resample) -> Tensor:
    sound, samples = part.sound(), clip_samples(part.frames, part.fps, rate)
    return torch.zeros(1, 1, samples) if sound is None else fit(resample(sound, part.sample_rate, rate), samples)
