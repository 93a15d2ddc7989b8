"""Takes of shots on disk: a folder each, there whole or not at all, never replaced.

    mova_films/<film>/<shot>/<digest>/take.json             what it was made from, and what it holds
                                      latents.safetensors   video and audio, float32
                                      end.safetensors       its last pictures, 8 bit, and all its sound
                                      clip.mp4

Axes: B batch, F frames, H W pixels, C channels, S samples.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from errno import ENOENT
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..checkpoint.files import is_folder
from ..checkpoint.whole_file import WRITE_TRIES, listed, write_text, write_whole
from ..checkpoint.writer import raw
from ..errors import CheckpointError, MovaError, ShapeError
from ..inputs.sounds import Sound
from ..kept.latents import read_latent
from ..waveform import clip_samples
from .take_checks import check_end, checked_fields

log = logging.getLogger("mova")

ShotRecipe = Mapping[str, str]
"""Field -> digest or number, of everything that a take is made from."""

HEADER, LATENTS, END, CLIP = "take.json", "latents.safetensors", "end.safetensors", "clip.mp4"
TAKE_FILES = (HEADER, LATENTS, END, CLIP)
TAKE_VERSION = 1  # version of what a header says
PART = re.compile(r"\..+\.\d+\.part")
STALE_TAKE_SECONDS = 86400.0  # of a folder under a temporary name of another process
DIGEST_DIGITS = 32


@dataclass(frozen=True, kw_only=True)
class Take:
    """What a take's header says. `end` is the digest of its last pictures and its sound; `number` counts in its shot.

    `mean` and `spread` are of its colours, 0..255: red, green, blue.
    """

    shot: str
    number: int
    frames: int
    held: int
    height: int
    width: int
    fps: float
    sample_rate: int
    end: str
    content: dict[str, str]
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    signatures: list[dict[str, str]] = field(default_factory=list)
    made_with: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def digest(self) -> str:
        return self.folder.name

    @property
    def id(self) -> str:
        """Shot and digest, as films name it."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def clip(self) -> Path:
        return self.folder / CLIP

    def pictures(self) -> Tensor:
        """(F, H, W, 3) uint8, its last ones."""
        return self._end()[0]

    def sound(self) -> Sound:
        """(1, C, S) of all of it."""
        return Sound(waveform=self._end()[1][None], rate=self.sample_rate)

    def sound_of(self, frames: int) -> Sound:
        """(1, C, S) of its last so many pictures."""
        sound = self.sound()
        return replace(sound, waveform=sound.waveform[..., -clip_samples(frames, self.fps, sound.rate) :])

    def latents(self) -> tuple[Tensor, Tensor]:
        """Video and audio, (B, C, ...) each."""
        with self._reading(LATENTS):
            kept = read_latent(self.folder / LATENTS)
            if kept.audio is None:
                raise ShapeError("it holds no sound")
            return kept.video, kept.audio

    def bytes(self) -> int:
        return folder_bytes(self.folder)

    def _end(self) -> tuple[Tensor, Tensor]:
        """(F, H, W, 3) uint8 and (C, S), as they were written."""
        with self._reading(END), safetensors.safe_open(self.folder / END, framework="pt") as file:
            pictures, sound = file.get_tensor("pictures"), file.get_tensor("sound")
            check_end(pictures, sound, self.height, self.width, self.frames)
            if end_digest(pictures, sound) != self.end:
                raise ShapeError("it is not what was written")
            return pictures, sound

    @contextmanager
    def _reading(self, file: str) -> Iterator[None]:
        try:
            yield
        except (OSError, MovaError, safetensors.SafetensorError) as error:
            if not is_folder(self.folder):
                raise CheckpointError(_gone(self.folder)) from error
            raise CheckpointError(
                f"{self.folder / file} cannot be read: {error!s:.200}. Delete this take's folder; it is made again"
            ) from error


def digest(recipe: ShotRecipe) -> str:
    """The name of a take: a hash of its recipe."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:DIGEST_DIGITS]


def end_digest(pictures: Tensor, sound: Tensor) -> str:
    """A hash of what the next shot may begin with: (F, H, W, 3) uint8 and (C, S)."""
    found = hashlib.sha256()
    for part in (pictures, sound):
        found.update(f"{part.dtype} {tuple(part.shape)}".encode())
        found.update(raw(part))
    return found.hexdigest()[:DIGEST_DIGITS]


def takes(film: Path) -> list[Take]:
    """All whole takes of a film, by shot and number."""
    folders = sorted(folder for shot in listed(film) for folder in listed(shot) if not PART.fullmatch(folder.name))
    found = [take for folder in folders if (take := read_take(folder))]
    return sorted(found, key=lambda take: (take.folder.parent.name, take.number))


def read_take(folder: Path) -> Take | None:
    """The take in a folder; None where it is not whole or its header is damaged: then it is made again."""
    try:
        if any(not (folder / name).is_file() for name in TAKE_FILES):
            return None
        said = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        if said.pop("mova_take") != TAKE_VERSION:
            return None
        return Take(**checked_fields(said), folder=folder)
    except FileNotFoundError:  # it has just gone
        return None
    except (OSError, MovaError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read (%.200s); this take does not count", folder / HEADER, error)
        return None


def find(film: Path, name: str) -> Take:
    """The take that `Take.id` names.

    Raises:
        CheckpointError: it is not there, or not whole.
    """
    take = read_take(film / name)
    if take is None:
        raise CheckpointError(_gone(film / name))
    return take


def _gone(folder: Path) -> str:
    film, shot, take = (f"{each.name:.80}" for each in (folder.parent.parent, folder.parent, folder))
    return f"the take {shot}/{take} of {film} is gone or not whole; run the film again to make it"


def write_take(
    film: Path, take: Take, latents: Mapping[str, Tensor], end: Mapping[str, Tensor], write_clip: Callable[[Path], None]
) -> Take:
    """Put a take beside the others of its shot, under the digest of its content; one that is there stays.

    `latents` holds video and audio, `end` pictures and sound. `write_clip` writes an MP4 to the path it is given.

    Raises:
        CheckpointError: the disk did not take it; then nothing of it is left.
    """
    final = film / take.shot / digest(take.content)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        for again in reversed(range(WRITE_TRIES)):
            try:
                _write_part(film, take, part, latents, end, write_clip)
                _move(part, final)
                break
            except (OSError, CheckpointError) as error:
                went = isinstance(error, FileNotFoundError) or not part.is_dir()  # while it was written to
                if not went or not again:
                    raise
    except OSError as error:
        raise CheckpointError(
            f"{final} cannot be written: {error.strerror or error}. Look at the disk's space and the folder's rights"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return find(film, f"{take.shot}/{final.name}")


def _write_part(
    film: Path,
    take: Take,
    part: Path,
    latents: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    write_clip: Callable[[Path], None],
) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    sweep(part.parent)
    part.mkdir()
    numbered = replace(
        take, number=1 + max((other.number for other in takes(film) if other.shot == take.shot), default=0)
    )
    metadata = {"frame_rate": repr(take.fps), "origin": json.dumps(_header(numbered))}
    write_whole(part / LATENTS, latents, {"mova_joint_latent": "1", **metadata})
    write_whole(part / END, end, {})
    write_clip(part / CLIP)
    _write_header(part, numbered)
    if read_take(part) is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(part))


def _move(part: Path, final: Path) -> None:
    """Give a folder its name, unless a whole take has it; what is there and not whole is set aside."""
    if read_take(final) is not None:
        return
    with suppress(FileNotFoundError):
        final.rename(final.with_name(f".{final.name}-{time.time_ns()}.0.part"))
    try:
        part.rename(final)
    except OSError:
        if read_take(final) is None:  # else another process was quicker with the same
            raise


def _header(take: Take) -> dict[str, Any]:
    said = {key: value for key, value in asdict(take).items() if key != "folder"}
    return {"mova_take": TAKE_VERSION, **said}


def _write_header(folder: Path, take: Take) -> None:
    write_text(folder / HEADER, json.dumps(_header(take), indent=1, ensure_ascii=False))


def add_signature(take: Take, signature: ShotRecipe) -> None:
    """Write into a take's header another way in which the workflow above it was written; without rights, do not."""
    if dict(signature) in take.signatures:
        return
    try:
        _write_header(take.folder, replace(take, signatures=[*take.signatures, dict(signature)]))
    except OSError as error:
        log.info("%s: %s; the film loads its model to compare, next time too", take.folder, error.strerror or error)


def sweep(shot: Path) -> None:
    """Remove what killed processes left in a shot's folder: of this process at once, of others after a day."""
    for left in listed(shot):
        if not PART.fullmatch(left.name):
            continue
        with suppress(OSError):
            own = left.name.endswith(f".{os.getpid()}.part")
            if own or time.time() - left.stat().st_mtime > STALE_TAKE_SECONDS:
                shutil.rmtree(left)


def could_go(film: Path, used: Sequence[Take], limit: float) -> list[Take]:
    """Takes that the film does not use, the first made first, where the film's folder holds more than `limit` GB; 0 is
    no limit. Nothing is deleted."""
    if not limit or folder_bytes(film) <= limit * 1e9:
        return []
    kept = {take.id for take in used}
    return sorted((take for take in takes(film) if take.id not in kept), key=lambda take: take.number)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder and those in it."""
    return sum(_size(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # gone meanwhile
        return 0


def as_light(pictures: Tensor) -> Tensor:
    """(F, H, W, 3) uint8 as float32 in 0..1."""
    return pictures.to(torch.float32) / 255
