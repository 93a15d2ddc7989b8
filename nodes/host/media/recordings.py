"""Recordings read by FFmpeg, a window at a time: pictures at 24 a second by time, and the sound that belongs to them.

Axes: F pictures, H W pixels, C channels, S samples.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import torch
from torch import Tensor

from ....mova_core.errors import MovaError
from ....mova_core.shapes import DEFAULT_FPS, AudioGrid, audio_samples
from ....mova_core.training.clips import Window, fitted, shown
from ....mova_core.waveform import CHANNELS, fit, mono
from .resampling import resampled

COVER = av.stream.Disposition.attached_pic  # a picture of the whole, in a track of its own
WIDEST = 4.0  # of a pixel's sides; what says more is no shape of pixels
HDR = (16, 18)  # transfer curves of PQ and HLG
SPARE = 1.0  # seconds of sound decoded beyond the last window: its track has a clock of its own


@dataclass(frozen=True)
class RecordingSource:
    """Where a recording comes from, and the part of it, in seconds, that is meant; `duration` 0 is to its end."""

    name: str
    content: Path | BytesIO
    start: float = 0.0
    duration: float = 0.0


@dataclass(frozen=True)
class Probe:
    """What is known before decoding: size in pixels as shown, when each picture begins in seconds, length in seconds.

    `before` pictures come before the part that is meant; `hdr`: its colours are of a wider range than 8 bits show;
    `rate` in pictures, `sound_rate` in samples a second, 0 without sound.
    """

    height: int
    width: int
    times: tuple[float, ...]
    seconds: float
    sound_rate: int
    rate: float
    before: int = 0
    hdr: bool = False
    interlaced: bool = False

    @property
    def sound(self) -> bool:
        return self.sound_rate > 0


@dataclass(frozen=True)
class Piece:
    """A window: (F, H, W, 3) uint8 pictures, and (1, S) float32 sound at the codec's rate or None."""

    pictures: Tensor
    sound: Tensor | None


@contextmanager
def opened(source: RecordingSource) -> Iterator[av.container.InputContainer]:
    """The container, with every error of it told as one of this clip.

    Raises:
        MovaError: it cannot be read.
    """
    if isinstance(source.content, BytesIO):
        source.content.seek(0)
    try:
        content = source.content if isinstance(source.content, BytesIO) else str(source.content)
        with av.open(content, mode="r", metadata_errors="replace") as container:  # titles come in any encoding
            yield container
    except (av.error.FFmpegError, OSError, EOFError) as error:
        why = error.strerror if isinstance(error, av.error.FFmpegError | OSError) else None
        raise MovaError(
            f"{source.name} cannot be read ({why or error!s:.150}); play it, and replace it if it is damaged"
        ) from error


def probe(source: RecordingSource) -> Probe:
    """Look at a recording without decoding more than one picture of it.

    Raises:
        MovaError: damaged, or without pictures.
    """
    with opened(source) as container:
        stream = _video(container, source)
        packets = (p for p in container.demux(stream) if p.size and not p.is_discard)  # cut off without encoding anew
        stamps = sorted(p.pts for p in packets if p.pts is not None)
        if not stamps:
            raise MovaError(f"{source.name} holds no pictures; is it sound alone, or cut off?")
        container.seek(0)
        picture = next(container.decode(stream), None)
        if picture is None:
            raise MovaError(f"{source.name} cannot be decoded; replace it")
        turned = _turns(picture) % 2
        base, rate = float(_tick(stream)), float(stream.average_rate or DEFAULT_FPS)
        tall, wide = picture.height, round(picture.width * _stretch(stream))
        sides = (wide, tall) if turned else (tall, wide)
        audio, hdr, interlaced = _audio(container), stream.codec_context.color_trc in HDR, picture.interlaced_frame
    first = stamps[0] * base + source.start
    times = [stamp * base - first for stamp in stamps]
    begin = max(0, bisect_left(times, 1e-3) - 1) if source.start else 0
    times = [time for time in times[begin:] if not source.duration or time < source.duration - 1e-3]
    if not times:
        raise MovaError(f"{source.name} has no picture in the part from {source.start:g} s on")
    seconds = times[-1] + 1 / rate
    seconds = min(seconds, source.duration) if source.duration else seconds
    sound_rate = audio.codec_context.sample_rate if audio else 0
    return Probe(*sides, tuple(times), seconds, sound_rate, len(times) / seconds, begin, hdr, interlaced)


def pieces(
    source: RecordingSource, found: Probe, windows: Sequence[Window], size: tuple[int, int], grid: AudioGrid
) -> Iterator[Piece]:
    """The windows of a recording, which follow each other: pictures fitted to (height, width), sound for a codec that
    counts by `grid`. One window's pictures are held at once, however long the recording is.

    Raises:
        MovaError: it ends before its header says, or is damaged on the way.
    """
    until = max(window.start + window.frames / DEFAULT_FPS for window in windows)
    sound = _sound(source, grid.sample_rate, until) if found.sound else None
    wanted = [shown(found.times, window) for window in windows]
    for window, pictures in zip(windows, _pictures(source, found, wanted, size), strict=True):
        yield Piece(pictures, None if sound is None else _part(sound, window, grid))


def _pictures(
    source: RecordingSource, found: Probe, windows: Sequence[list[int]], size: tuple[int, int]
) -> Iterator[Tensor]:
    """(F, H, W, 3) uint8 for each list of indices in `found.times`, which rise from list to list."""
    made: dict[int, Tensor] = {}
    with opened(source) as container:
        stream = _video(container, source)
        decoded = _decoded(container, stream, found, source.start)
        for indices in windows:
            made = {index: made[index] for index in indices if index in made}  # the last one may be seen on
            lacking = set(indices) - made.keys()
            while lacking:
                index, picture = next(decoded, (-1, None))
                if picture is None:
                    raise MovaError(
                        f"{source.name} is damaged: of {len(set(indices))} pictures, {len(lacking)} cannot be decoded (the "
                        f"first at {found.times[min(lacking)]:.2f} s). Convert it again, or leave it out"
                    )
                if index in lacking:
                    made[index] = _as_shown(picture, stream, size)
                    lacking.remove(index)
            yield torch.stack([made[index] for index in indices])


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, found: Probe, start: float
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every picture from the first on, and its index in `found.times`; -1 where it has none."""
    stream.thread_type = "AUTO"
    first, counted = None, container.format.name == "avi"  # which does not say when pictures are shown
    for number, picture in enumerate(container.decode(stream)):
        if picture.pts is None and not counted:
            continue
        time = float((picture.pts or 0) * _tick(stream))
        first = time if first is None else first
        yield (number - found.before if counted else _at(found.times, time - first - start)), picture


def _at(times: Sequence[float], time: float) -> int:
    """Index of what begins at a time; -1 where nothing does."""
    index = bisect_left(times, time - 1e-4)
    return index if index < len(times) and abs(times[index] - time) < 1e-3 else -1


def _as_shown(picture: av.VideoFrame, stream: av.VideoStream, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 of `size`: pixels square, and turned to what a player shows."""
    stretched = round(picture.width * _stretch(stream))
    pixels = torch.from_numpy(picture.to_ndarray(format="rgb24", width=stretched, height=picture.height))
    return fitted(torch.rot90(pixels, _turns(picture))[None], *size)[0]


def _stretch(stream: av.VideoStream) -> float:
    """How much wider a pixel is shown than high, as on DV tapes and DVDs."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if WIDEST**-1 <= ratio <= WIDEST else 1.0


def _sound(source: RecordingSource, to: int, until: float) -> Tensor | None:
    """(1, S) float32 at `to` Hz from the first picture on, by the clocks of both streams, as far as `until` seconds of the
    part that is meant; None where it holds nothing."""
    with opened(source) as container:
        stream = _audio(container)
        if stream is None:
            return None
        video = _video(container, source)
        start = float((video.start_time or 0) * _tick(video))
        rate, blocks, begun, length = 0, [], None, 0
        for frame in _known(container.decode(stream)):
            if begun is None:
                begun, rate = float((frame.pts or 0) * _tick(frame)), frame.sample_rate
            blocks.append(mono(_samples(frame)[None])[0])  # an hour of two channels would take twice the room
            length += frame.samples
            if begun + length / rate > start + source.start + until + SPARE:
                break
    if not blocks or begun is None:
        return None
    late = round((begun - start - source.start) * to)
    sound = resampled(torch.cat(blocks, dim=1)[None], rate, to)[0]
    return torch.nn.functional.pad(sound, (late, 0)) if late >= 0 else sound[:, -late:]


def _known(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Frames of a layout that MOVA knows; quadrophony and the like as FFmpeg mixes them to stereo."""
    mixer = av.AudioResampler(format="fltp", layout="stereo")
    for frame in frames:
        yield from [frame] if frame.layout.nb_channels in CHANNELS else mixer.resample(frame)


def _samples(frame: av.AudioFrame) -> Tensor:
    """(C, S) float32 in -1..1, of any format."""
    values = torch.from_numpy(frame.to_ndarray())
    if not frame.format.is_planar:
        values = values.view(-1, frame.layout.nb_channels).t()
    if values.is_floating_point():
        return values.float()
    if values.dtype == torch.uint8:
        return (values.float() - 128) / 128
    return values.float() / -float(torch.iinfo(values.dtype).min)


def _part(sound: Tensor, window: Window, grid: AudioGrid) -> Tensor:
    begin = round(window.start * grid.sample_rate)
    return fit(sound[None, :, begin:], audio_samples(window.frames, DEFAULT_FPS, grid))[0]


def _video(container: av.container.InputContainer, source: RecordingSource) -> av.VideoStream:
    if not container.streams.video:
        raise MovaError(f"{source.name} holds no pictures; is it sound alone?")
    pictures = [stream for stream in container.streams.video if not stream.disposition & COVER]
    return (pictures or container.streams.video)[0]


def _audio(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first track that can be decoded; None without one."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def _tick(of: av.VideoStream | av.AudioFrame) -> Fraction:
    """Seconds that its stamps count in, which all that comes out of a file states."""
    assert of.time_base is not None
    return of.time_base


def _turns(picture: av.VideoFrame) -> int:
    """Quarter turns, against the clock, to what a player shows."""
    return round(getattr(picture, "rotation", 0) / 90) % 4
