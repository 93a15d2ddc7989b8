"""Shots of a film, and their plan: how many pictures each has, what it depends on, its seed.

A shot's length is of what is new. One that goes on begins with pictures of the shot before, which are added.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import MovaError, ShapeError
from ..inputs.numbers import told
from ..inputs.sounds import Sound
from ..preflight import TRAINED
from ..shapes import TEMPORAL_STRIDE, latent_frames
from ..waveform import clip_samples, fit
from .pauses import stretches

CUT, GOES_ON, AFTER, PICTURE = "cut", "goes on", "after", "picture"
BEGINNINGS = (CUT, GOES_ON, AFTER, PICTURE)
OVERLAP = 25
LONGEST_SHOT_NAME = 60  # characters


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A sound that shots are made to, and which stretch is a shot's: seconds, or None for a share of the whole."""

    sound: Sound
    stretch: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """What is asked for. `where` is how errors name it; one of `seconds`, `frames` and `recording` says how long,
    and without any it is as long as was trained.

    `begins` is one of BEGINNINGS; `source` names the shot that it comes after, `picture` is (1, H, W, 3) in 0..1.
    """

    name: str
    prompt: str
    where: str
    audio_prompt: str = ""
    seconds: float | None = None
    frames: int | None = None
    recording: Recording | None = None
    begins: str = CUT
    source: str = ""
    picture: Tensor | None = None
    overlap: int = OVERLAP
    seed: int | None = None
    take: str = ""
    lock: bool = False
    off: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """A shot of a film: its place, all its pictures, those of them that are held, and the shot that it needs."""

    shot: Shot
    number: int
    of: int
    frames: int
    held: int  # pictures of the shot before with which it begins
    needs: str  # name of a shot, or ""
    seed: int
    fps: float

    @property
    def place(self) -> str:
        return f"shot {self.number} of {self.of} ({self.shot.name})"

    def heard(self) -> Sound | None:
        """The stretch of the recording that belongs to all its pictures, the held ones included; (1, C, S)."""
        recording = self.shot.recording
        if recording is None or recording.stretch is None:
            return None
        rate = recording.sound.rate
        start = round((recording.stretch[0] - self.held / self.fps) * rate)
        waveform = recording.sound.waveform[:1]
        if start < 0:  # before the recording there is silence
            waveform, start = torch.nn.functional.pad(waveform, (-start, 0)), 0
        return Sound(waveform=fit(waveform[..., start:], clip_samples(self.frames, self.fps, rate)), rate=rate)


def check_shot_name(name: str, where: str) -> str:
    """A name that a folder can have on every system.

    Raises:
        MovaError: other characters, or too long.
    """
    name = unicodedata.normalize("NFC", name)
    if not name or len(name) > LONGEST_SHOT_NAME or not all(c.isalnum() or c in "-_" for c in name):
        raise MovaError(
            f"{where}: {told(name)} cannot name a shot; use letters, digits, - and _, {LONGEST_SHOT_NAME} at most"
        )
    return name


def plan(shots: Sequence[Shot], fps: float, seed: int) -> list[Planned]:
    """The shots that are on, in order.

    Raises:
        MovaError: none is on, two of one name, one that begins after what is not before it, or a length that cannot be;
            the message says which shot.
    """
    names = [shot.name.casefold() for shot in shots]
    for shot in shots:
        if names.count(shot.name.casefold()) > 1:
            raise MovaError(f"{shot.where}: there are two shots called {shot.name!r}; give each a name of its own")
    on = [shot for shot in shots if not shot.off]
    if not on:
        raise MovaError("there is no shot to make: the list is empty, or all are off")
    planned: list[Planned] = []
    for number, shot in enumerate(_with_stretches(on, fps), 1):
        needs = _needed(shot, [each.shot.name for each in planned])
        held = _held(shot)
        frames = _frames(shot, fps, held)
        own = seed if shot.seed is None else shot.seed
        planned.append(
            Planned(shot=shot, number=number, of=len(on), frames=frames, held=held, needs=needs, seed=own, fps=fps)
        )
        _check_source(planned[-1], planned)
    return planned


def _needed(shot: Shot, before: Sequence[str]) -> str:
    if shot.begins == GOES_ON:
        if not before:
            raise MovaError(f"{shot.where} goes on, but it is the first that is on; begin it with a cut or a picture")
        return before[-1]
    if shot.begins == AFTER:
        if shot.source not in before:
            raise MovaError(
                f"{shot.where} begins after {told(shot.source)}, which is not before it, or is off; before it are "
                f"{', '.join(before) or 'none'}"
            )
        return shot.source
    if shot.begins == PICTURE and shot.picture is None:
        raise MovaError(f"{shot.where} begins with a picture, and none is connected; connect one, or begin with a cut")
    return ""


def _held(shot: Shot) -> int:
    if shot.begins != GOES_ON:
        return 0
    try:
        latent_frames(shot.overlap)
    except ShapeError as error:
        raise ShapeError(f"{shot.where}: overlap {shot.overlap}: {error}") from None
    return shot.overlap


def _frames(shot: Shot, fps: float, held: int) -> int:
    if (shot.seconds, shot.frames, shot.recording) == (None, None, None):
        return TRAINED
    stretch = shot.recording.stretch if shot.recording else None
    new = shot.seconds * fps if shot.seconds is not None else float(shot.frames or 0)
    if stretch is not None:
        new = (stretch[1] - stretch[0]) * fps
    if new <= 0:
        raise ShapeError(f"{shot.where} has no length; give it seconds, such as 6 s, or frames")
    frames = TEMPORAL_STRIDE * math.ceil((new + held - 1) / TEMPORAL_STRIDE - 1e-6) + 1
    if frames > TRAINED:
        most = (TRAINED - held) / fps
        raise ShapeError(
            f"{shot.where} lasts {frames} frames{f', {held} of them held' if held else ''}; the longest that was "
            f"trained is {TRAINED}: {most:.1f} s of it can be new here. Split it, the second part with 'goes on'"
        )
    return frames


def _check_source(planned: Planned, all_: Sequence[Planned]) -> None:
    source = next((each for each in all_ if each.shot.name == planned.needs), None)
    if source is not None and planned.held > source.frames:
        raise ShapeError(
            f"{planned.shot.where}: an overlap of {planned.held} pictures is more than shot {source.shot.name!r} has, "
            f"{source.frames}; shorten the overlap"
        )


def _with_stretches(shots: Sequence[Shot], fps: float) -> list[Shot]:
    """The shots that ask for a share of the recording with their stretches: it is cut at its pauses, and each cut is
    moved to the next place where whole shots meet, so that nothing of it is heard twice or lost."""
    sharing = [s for s in shots if s.recording is not None and s.recording.stretch is None]
    if not sharing:
        return list(shots)
    held = [s.overlap if s.begins == GOES_ON else 0 for s in sharing]
    recordings = [s.recording for s in sharing if s.recording is not None]
    found = stretches(recordings[0].sound, [(TRAINED - each) / fps for each in held])
    start, given = 0, {}
    for shot, recording, overlap, (_, end) in zip(sharing, recordings, held, found):
        new = _whole(end * fps - start, overlap, up=shot is sharing[-1])
        stretch = start / fps, (start + new) / fps
        given[shot.name] = replace(shot, recording=replace(recording, stretch=stretch))
        start += new
    return [given.get(shot.name, shot) for shot in shots]


def _whole(new: float, held: int, up: bool) -> int:
    """New pictures of a shot that has about so many: as many as make 4n + 1 with those that are held."""
    alone = 0 if held else 1
    groups = (new - alone) / TEMPORAL_STRIDE
    count = math.ceil(groups - 1e-6) if up else round(groups)
    return min(TEMPORAL_STRIDE * max(count, 1) + alone, TRAINED - held)
