"""Sizes: frames, latent frames, seconds, audio samples, audio steps, tokens. They are computed nowhere else.

frames          1 + 4n pictures, `fps` a second
latent frames   the first frame alone, then one per four frames
audio samples   as many as the frames last, at the rate of the codec (published: 48000 a second)
audio steps     one per hop of the codec (960 samples, so 50 a second); the last may reach past the end of the picture
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import ShapeError

SPATIAL_STRIDE = 8  # pixels per latent pixel, both ways
PATCH = 2  # latent pixels per token, both ways
SIZE_MULTIPLE = SPATIAL_STRIDE * PATCH
TEMPORAL_STRIDE = 4  # frames per latent frame, after the first
VIDEO_LATENT_CHANNELS = 16
AUDIO_LATENT_CHANNELS = 128
FPS_RANGE = 1.0, 120.0  # pictures a second that nodes and files may state
DEFAULT_FPS = 24.0  # pictures a second of every training clip


@dataclass(frozen=True, kw_only=True)
class AudioGrid:
    """How a codec counts sound. Its checkpoint decides both."""

    sample_rate: int  # Hz
    hop_length: int  # samples of one audio step

    def __post_init__(self) -> None:
        if self.sample_rate < 1 or self.hop_length < 1:
            raise ShapeError(f"sound of {self.sample_rate} Hz in steps of {self.hop_length} samples is none")

    @property
    def steps_per_second(self) -> float:
        return self.sample_rate / self.hop_length


PUBLISHED_GRID = AudioGrid(sample_rate=48000, hop_length=960)
"""Of the published codec; for what comes without one that says."""


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """A clip in frames and pixels. Only what the model can make can be constructed."""

    batch: int
    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_batch(self.batch)
        latent_frames(self.frames)
        check_size(self.width, self.height)


@dataclass(frozen=True, kw_only=True)
class AudioShape:
    """Sound in audio steps; `audio_steps` says how many a clip needs."""

    batch: int
    steps: int

    def __post_init__(self) -> None:
        _check_batch(self.batch)
        if self.steps < 1:
            raise ShapeError(f"sound cannot have {self.steps} audio steps; it needs at least 1")


def latent_frames(frames: int) -> int:
    """Latent frames of a clip: the first frame alone, then one per four.

    Raises:
        ShapeError: `frames` is not 4n + 1.
    """
    if frames < 1:
        raise ShapeError(f"a clip cannot have {frames} frames; the shortest has 1, the next {1 + TEMPORAL_STRIDE}")
    groups, rest = divmod(frames - 1, TEMPORAL_STRIDE)
    if rest:
        below = frames - rest
        raise ShapeError(f"a clip cannot have {frames} frames; the nearest are {below} and {below + TEMPORAL_STRIDE}")
    return groups + 1


def frames_of(latent_frames: int) -> int:
    """Frames that so many latent frames decode to.

    Raises:
        ShapeError: there is no latent frame.
    """
    if latent_frames < 1:
        raise ShapeError(f"a clip cannot have {latent_frames} latent frames; it needs at least 1")
    return TEMPORAL_STRIDE * (latent_frames - 1) + 1


def check_size(width: int, height: int) -> None:
    """Accept sizes in pixels that fill whole tokens.

    Raises:
        ShapeError: a side is not a positive multiple of 16.
    """
    if width > 0 and height > 0 and width % SIZE_MULTIPLE == 0 and height % SIZE_MULTIPLE == 0:
        return
    sides = [(_multiple_below(side), _multiple_above(side)) for side in (width, height)]
    nearest = dict.fromkeys(f"{w}x{h}" for w, h in zip(*sides, strict=True))  # one or two, in order
    raise ShapeError(
        f"a picture cannot be {width}x{height}: width and height are multiples of {SIZE_MULTIPLE}; "
        f"the nearest {'are' if len(nearest) > 1 else 'is'} {' and '.join(nearest)}"
    )


def check_fps(fps: float) -> None:
    """Accept frame rates that give a clip a duration.

    Raises:
        ShapeError: `fps` is not a finite number above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ShapeError(
            f"a clip cannot run at {fps} frames a second; give a positive rate, 24 as MOVA was trained with"
        )


def clip_seconds(frames: int, fps: float) -> float:
    """How long a clip is shown.

    Raises:
        ShapeError: no frame, or an impossible frame rate.
    """
    check_fps(fps)
    if frames < 1:
        raise ShapeError(f"a clip cannot have {frames} frames; it needs at least 1")
    return frames / fps


def audio_samples(frames: int, fps: float, grid: AudioGrid = PUBLISHED_GRID) -> int:
    """Samples of sound that a clip lasts.

    Raises:
        ShapeError: no frame, an impossible frame rate, or a clip shorter than one sample.
    Source: OpenMOSS/MOVA 595a976 `pipeline_mova.py`; the product is taken before the quotient, as there.
    """
    seconds = clip_seconds(frames, fps)
    samples = int(grid.sample_rate * frames / fps)
    if samples < 1:
        raise ShapeError(
            f"{frames} frames at {fps} a second last {seconds} s, less than one sample; lower the frame rate"
        )
    return samples


def audio_steps(frames: int, fps: float, grid: AudioGrid = PUBLISHED_GRID) -> int:
    """Audio steps that cover a clip, the last one possibly in part.

    Raises:
        ShapeError: as `audio_samples`.
    """
    return (audio_samples(frames, fps, grid) - 1) // grid.hop_length + 1


def audio_step_rate(steps: int, frames: int, fps: float, stated: float | None = None) -> float:
    """Audio steps a second of a clip's sound: as stated, else the published codec's where it fits, else as counted.

    Raises:
        ShapeError: no frame, or an impossible frame rate.
    """
    if stated is not None:
        return stated
    fits = steps == audio_steps(frames, fps)
    return PUBLISHED_GRID.steps_per_second if fits else steps / clip_seconds(frames, fps)


def check_audio_steps(steps: int, frames: int, fps: float, grid: AudioGrid) -> None:
    """Refuse sound that a codec of this grid would make much longer or shorter than its picture.

    Raises:
        ShapeError: less than two thirds of the clip, or more than one and a half times it.
    """
    wanted = audio_steps(frames, fps, grid)
    if not 2 * wanted - 6 <= 3 * steps <= 4.5 * wanted + 6:  # and two steps either way
        raise ShapeError(
            f"the sound of this latent has {steps} steps, which this audio VAE ({grid.sample_rate} Hz, steps of "
            f"{grid.hop_length} samples) decodes to {steps / grid.steps_per_second:.2f} s; its {frames} pictures last "
            f"{clip_seconds(frames, fps):.2f} s, {wanted} steps. Make the latent with the VAE of the same 'MOVA Loader'"
        )


def video_latent_shape(shape: VideoShape, channels: int = VIDEO_LATENT_CHANNELS) -> tuple[int, int, int, int, int]:
    """(batch, channels, latent frames, height / 8, width / 8)."""
    height, width = shape.height // SPATIAL_STRIDE, shape.width // SPATIAL_STRIDE
    return shape.batch, channels, latent_frames(shape.frames), height, width


def audio_latent_shape(shape: AudioShape, channels: int = AUDIO_LATENT_CHANNELS) -> tuple[int, int, int]:
    """(batch, channels, audio steps)."""
    return shape.batch, channels, shape.steps


def video_tokens(shape: VideoShape) -> int:
    """Tokens of one sample in the video tower. In the audio tower an audio step is a token."""
    return latent_frames(shape.frames) * (shape.height // SIZE_MULTIPLE) * (shape.width // SIZE_MULTIPLE)


def latent_frame_range(start_seconds: float, end_seconds: float, frames: int, fps: float) -> range:
    """Latent frames of a clip that show anything of a time span; empty if the span is, or lies outside.

    Raises:
        ShapeError: `frames` is not 4n + 1, or an impossible frame rate.
    """
    check_fps(fps)
    latent_frames(frames)
    shown = _covering(start_seconds * fps, end_seconds * fps, frames)
    if not shown:
        return range(0)
    first, last = (-(-frame // TEMPORAL_STRIDE) for frame in (shown[0], shown[-1]))  # frame 0 is alone in its group
    return range(first, last + 1)


def audio_step_range(start_seconds: float, end_seconds: float, steps: int, rate: float = 50.0) -> range:
    """Audio steps, of `steps` at `rate` a second, that sound in any of a time span; empty if it is, or lies outside."""
    return _covering(start_seconds * rate, end_seconds * rate, steps)


def _covering(start: float, end: float, total: int) -> range:
    """Whole units that overlap [start, end). Rounded first: 97 / 24 * 24 frames are 97, not 97.00000000000001."""
    start, end = round(max(start, 0.0), 6), round(min(end, total), 6)
    return range(math.floor(start), math.ceil(end)) if start < end else range(0)


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ShapeError(f"a batch cannot hold {batch} samples; it needs at least 1")


def _multiple_below(side: int) -> int:
    return max(side // SIZE_MULTIPLE, 1) * SIZE_MULTIPLE


def _multiple_above(side: int) -> int:
    return max(-(-side // SIZE_MULTIPLE), 1) * SIZE_MULTIPLE


def steps_during(indices: Iterable[int], frames: int, steps: int) -> list[int]:
    """The audio steps, of `steps`, that sound during latent frames, of `frames`: each once, one a frame or more."""
    heard: dict[int, None] = {}
    for index in indices:
        begin = min(round(index * steps / frames), steps - 1)
        heard |= dict.fromkeys(range(begin, max(begin + 1, min(round((index + 1) * steps / frames), steps))))
    return list(heard)
