"""An MP4 written and read piece by piece: H.264 pictures, AAC sound.

Axes: F pictures, H rows, W columns; C channels, S samples.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import torch
from torch import Tensor

from .checkpoint.whole_file import discard, sweep, temporary
from .errors import CheckpointError, ShapeError
from .waveform import CHANNELS

BT709, SRGB, LIMITED = 1, 13, 1
FLAGS = {"movflags": "use_metadata_tags+faststart"}
PIECE = 16  # pictures that are read at once
FINAL_CRF, MASTER_CRF = "18", "12"  # crf of H.264: of what is shown, and of what is written once more
Show = Callable[[Tensor | None], None]
Play = Callable[[int | None], None]


def write(
    path: Path,
    size: tuple[int, int],
    pieces: Iterable[Tensor],
    sound: Tensor | None,
    fps: float,
    sample_rate: int,
    metadata: Mapping[str, object],
    *,
    quality: str = FINAL_CRF,
    before_picture: Callable[[], object] = lambda: None,
) -> None:
    """Write (F, H, W, 3) uint8 pieces of `size` (W, H) with (C, S) sound in [-1, 1], or none.

    The file has another name until it is whole. Sound is written up to the end of each piece, so a player finds both
    together; neither is cut to the other's length. `metadata` goes into the file as JSON, where ComfyUI looks for the
    workflow of a clip that is dropped on its page. What `before_picture` raises ends the writing, and nothing is left.

    Raises:
        ShapeError: H.264 has no such size, or AAC no such channels.
        CheckpointError: the disk did not take it.
    """
    _check(size, sound)
    part = temporary(path)
    try:
        sweep(path)
        with av.open(str(part), "w", format="mp4", options={**FLAGS, "movie_timescale": str(sample_rate)}) as file:
            file.metadata.update({key: json.dumps(value) for key, value in metadata.items()})
            show = _pictures(file, size, fps, quality)
            play = None if sound is None else _sound(file, sound, sample_rate)
            _interleave(pieces, show, play, sample_rate / fps, before_picture)
        os.replace(part, path)  # noqa: PTH105, atomic on every system
    except (OSError, av.FFmpegError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. Look at the disk's space and the folder's rights"
        ) from error
    finally:
        discard(part)


def read(path: Path, size: tuple[int, int], frames: int, start: int = 0) -> Iterator[Tensor]:
    """(F, H, W, 3) uint8 pieces of a file that `write` wrote with `frames` pictures of `size` (W, H), from `start` on.

    Raises:
        CheckpointError: it cannot be read, or holds others.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            piece: list[Tensor] = []
            number = 0
            for number, frame in enumerate(file.decode(video=0) if file.streams.video else (), 1):
                if (frame.width, frame.height) != size or number > frames:
                    raise ValueError(f"picture {number} is {frame.width} x {frame.height}")
                if number <= start:
                    continue
                rgb = frame.reformat(format="rgb24", src_colorspace="ITU709")
                piece.append(torch.from_numpy(rgb.to_ndarray()))
                if len(piece) == PIECE:
                    yield torch.stack(piece)
                    piece = []
            if number != frames:
                raise ValueError(f"it holds {number} pictures of {frames}")
            if piece:
                yield torch.stack(piece)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error!s:.200}. Delete it; what it is of is made again"
        ) from error


def is_whole(path: Path, size: tuple[int, int], frames: int) -> bool:
    """Whether a file lies there with `frames` pictures of `size` (W, H) and no packet cut; nothing is decoded."""
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            picture = file.streams.video[0]
            packets = [(packet.stream.index, packet.is_corrupt) for packet in file.demux() if packet.size]
            shown = sum(index == picture.index for index, _ in packets)
            return (picture.width, picture.height, shown) == (*size, frames) and not any(cut for _, cut in packets)
    except (OSError, ValueError, IndexError, av.FFmpegError):
        return False


def _check(size: tuple[int, int], sound: Tensor | None) -> None:
    if any(side % 2 or side < 2 for side in size):
        raise ShapeError(f"pictures of {size[0]} x {size[1]} cannot be written as H.264; both sides must be even")
    if sound is not None and (sound.ndim != 2 or sound.shape[0] not in CHANNELS or not sound.shape[1]):
        layouts = ", ".join(CHANNELS.values())
        raise ShapeError(f"sound of shape {tuple(sound.shape)} cannot be written as AAC; give (C, S) of {layouts}")


def _interleave(
    pieces: Iterable[Tensor],
    show: Show,
    play: Play | None,
    samples_a_picture: float,
    before_picture: Callable[[], object],
) -> None:
    shown = 0
    for piece in pieces:
        for picture in piece:
            before_picture()
            show(picture)
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
            if tuple(picture.shape) != (size[1], size[0], 3):
                raise ShapeError(
                    f"a picture of shape {tuple(picture.shape)} does not fit a clip of {size[0]} x {size[1]}"
                )
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
