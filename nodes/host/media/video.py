"""An MP4 written piece by piece, and where ComfyUI keeps what nodes write."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from torch import Tensor

from ....mova_core.checkpoint.whole_file import sweep, temporary
from ....mova_core.errors import CheckpointError, MovaError
from ....mova_core.inputs.numbers import told
from ....mova_core.waveform import CHANNELS
from ..types import Values

SEGMENTS = "mova_segments"
LONGEST_NAME = 180  # bytes, of 255, so that there is room for a number and a temporary ending
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # Hz
BT709, SRGB, LIMITED = 1, 13, 1
PIECE = 16  # pictures that are read at once
FINAL, MASTER = "18", "12"  # crf of H.264: of what is shown, and of what is written once more
DEVICES = re.compile(
    r"(?i:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$) *([.:].*)?"
)
Show = Callable[[Tensor | None], None]
Play = Callable[[int | None], None]


def segment_folder(name: str) -> Path:
    """Where the segments of a clip lie, in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / SEGMENTS / name


def check_name(name: str) -> None:
    """Accept what every system takes for the name of a file or folder.

    Raises:
        MovaError: control characters, which may cut a name, or a name that Windows keeps for a device.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise MovaError(f"{told(name)} holds a control character and cannot name a file; type it again")
    if len(name.encode()) > LONGEST_NAME:
        raise MovaError(f"{told(name)} is too long for the name of a file; {LONGEST_NAME} bytes are the most")
    if DEVICES.fullmatch(name):
        raise MovaError(f"{name!r} is a device on Windows and cannot name a file; choose another name")


def output_file(prefix: str, width: int, height: int, ending: str = ".mp4") -> tuple[Path, str]:
    """A new file for `prefix` in the output folder, and its sub-folder there.

    Raises:
        MovaError: `prefix` names no file, or one outside the output folder, or its folder cannot be made.
    """
    output = Path(folder_paths.get_output_directory()).resolve()
    parts = [part for part in re.split(r"[/\\]", prefix) if part]
    for part in parts:
        check_name(part)
    if not parts or not parts[-1].strip(". ") or not (output / prefix).resolve().is_relative_to(output):
        raise MovaError(
            f"filename_prefix {told(prefix)} names no file in the output folder; give one such as video/MOVA"
        )
    try:
        found = folder_paths.get_save_image_path(prefix, str(output), width, height)
    except OSError as error:
        raise MovaError(
            f"no folder can be made for filename_prefix {told(prefix)}: {error.strerror or error}"
        ) from error
    folder, name, counter, subfolder, _ = found
    return Path(folder) / f"{name}_{counter:05}_{ending}", subfolder


def in_output(path: Path) -> str:
    """The sub-folder of the output folder that a file lies in, as the page asks for it."""
    return path.parent.relative_to(folder_paths.get_output_directory()).as_posix()


def player_rate(rates: Sequence[int]) -> int:
    """The sample rate of AAC, Hz, that keeps all of sounds of these rates, as far as there is one; 48000 for none."""
    return next((rate for rate in AAC_RATES if rate >= max(rates, default=48000)), AAC_RATES[-1])


def workflow_metadata(prompt: object, extra: Mapping[str, object] | None) -> Values:
    """What 'Save Video' writes into a file, unless the user turned that off."""
    if args.disable_metadata:
        return {}
    return {**(extra or {}), **({} if prompt is None else {"prompt": prompt})}


def as_texts(notes: Mapping[str, object]) -> dict[str, str]:
    """Each note as JSON, where it is no text yet."""
    return {str(key): note if isinstance(note, str) else json.dumps(note) for key, note in notes.items()}


def write(
    path: Path,
    size: tuple[int, int],
    pieces: Iterable[Tensor],
    sound: Tensor | None,
    fps: float,
    sample_rate: int,
    metadata: Mapping[str, object],
    *,
    frames: int,
    quality: str = FINAL,
) -> None:
    """Write (F, H, W, 3) uint8 pieces of `size` (W, H) with (C, S) sound, or none, as H.264 and AAC.

    The file has another name until it is whole; cancelling and progress are ComfyUI's. Sound is written up to the end of
    each piece, so a player finds both together. `metadata` goes into the file as JSON, where ComfyUI looks for the
    workflow of a clip that is dropped on its page. `frames` is how many pictures there will be.

    Raises:
        CheckpointError: the disk did not take it.
    """
    part = temporary(path)
    try:
        sweep(path)
        with av.open(str(part), "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as file:
            file.metadata.update({key: json.dumps(value) for key, value in metadata.items()})
            show = _pictures(file, size, fps, quality)
            play = None if sound is None else _sound(file, sound, sample_rate)
            _interleave(pieces, show, play, sample_rate / fps, comfy.utils.ProgressBar(frames))
        os.replace(part, path)  # noqa: PTH105, atomic on every system
    except (OSError, av.FFmpegError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}. Look at the disk's space") from error
    finally:
        part.unlink(missing_ok=True)


def read(path: Path, start: int = 0) -> Iterator[Tensor]:
    """(F, H, W, 3) uint8 pieces of a file that `write` wrote, from picture `start` on.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with av.open(str(path)) as file:
            piece: list[Tensor] = []
            for number, frame in enumerate(file.decode(video=0)):
                if number < start:
                    continue
                rgb = frame.reformat(format="rgb24", src_colorspace="ITU709")
                piece.append(torch.from_numpy(rgb.to_ndarray()))
                if len(piece) == PIECE:
                    yield torch.stack(piece)
                    piece = []
            if piece:
                yield torch.stack(piece)
    except (OSError, av.FFmpegError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Delete it; what it is of is made again") from error


def _interleave(
    pieces: Iterable[Tensor], show: Show, play: Play | None, samples_a_picture: float, progress: comfy.utils.ProgressBar
) -> None:
    shown = 0
    for piece in pieces:
        for picture in piece:
            comfy.model_management.throw_exception_if_processing_interrupted()
            show(picture)
            progress.update(1)
        shown += len(piece)
        if play is not None:
            play(round(shown * samples_a_picture))
    show(None)
    if play is not None:
        play(None)


def _pictures(file: av.container.OutputContainer, size: tuple[int, int], fps: float, quality: str) -> Show:
    """Takes a (H, W, 3) uint8 picture at a time, None after the last. BT.709 and tagged so, as 'Save Video' writes."""
    video = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": quality})
    (video.width, video.height), video.pix_fmt = size, "yuv420p"
    _tag(video.codec_context)

    def show(picture: Tensor | None) -> None:
        frame = None
        if picture is not None:
            frame = av.VideoFrame.from_ndarray(picture.contiguous().numpy(), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            _tag(frame)
        file.mux(video.encode(frame))

    return show


def _tag(target: av.VideoFrame | av.VideoCodecContext) -> None:
    """Say how the numbers stand for colours; without it players guess by the size. Codes of ITU-T H.273."""
    target.color_primaries, target.color_trc, target.colorspace, target.color_range = BT709, SRGB, BT709, LIMITED


def _sound(file: av.container.OutputContainer, sound: Tensor, sample_rate: int) -> Play:
    """Takes the sample up to which (C, S) is written next, None after the last."""
    layout = CHANNELS[len(sound)]
    samples, written = sound.float().clamp(-1, 1).cpu().contiguous().numpy(), 0
    audio = file.add_stream("aac", rate=sample_rate, layout=layout)

    def play(end: int | None) -> None:
        nonlocal written
        stop = samples.shape[-1] if end is None else min(samples.shape[-1], end)
        if stop > written:
            block = av.AudioFrame.from_ndarray(samples[:, written:stop].copy(), format="fltp", layout=layout)
            block.sample_rate, block.pts, written = sample_rate, written, stop
            file.mux(audio.encode(block))
        if end is None:
            file.mux(audio.encode(None))

    return play
