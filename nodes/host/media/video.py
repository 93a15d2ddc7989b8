"""Where ComfyUI keeps what nodes write, and an MP4 written with its progress."""

import json
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy.cli_args import args
from torch import Tensor

from ....mova_core import mp4
from ....mova_core.checkpoint.whole_file import being_written, listed
from ....mova_core.errors import MovaError
from ....mova_core.inputs.numbers import told
from ..types import Values

SEGMENTS = "mova_segments"
LONGEST_NAME = 180  # bytes, of 255, so that there is room for a number and a temporary ending
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # Hz
DATE = re.compile(r"%date:([^%]*)%")
NOT_ON_WINDOWS = set('<>:"|?*')
DEVICES = re.compile(
    r"(?i:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$) *([.:].*)?"
)


def segment_folder(name: str) -> Path:
    """Where the segments of a clip lie, in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / SEGMENTS / name


def check_name(name: str) -> None:
    """Accept what every system takes for the name of a file or folder.

    Raises:
        MovaError: control characters, which may cut a name, or a name that Windows keeps for a device.
    """
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise MovaError(f"{told(name)} holds a control character and cannot name a file; type it again")
    if os.name == "nt" and set(name) & NOT_ON_WINDOWS:
        raise MovaError(f"{told(name)} cannot name a file on Windows; leave out {' '.join(sorted(NOT_ON_WINDOWS))}")
    if len(name.encode()) > LONGEST_NAME:
        raise MovaError(f"{told(name)} is too long for the name of a file; {LONGEST_NAME} bytes are the most")
    if DEVICES.fullmatch(name):
        raise MovaError(f"{name!r} is a device on Windows and cannot name a file; choose another name")


def output_file(prefix: str, width: int, height: int, ending: str = ".mp4") -> tuple[Path, str]:
    """A new file for `prefix` in the output folder, and its sub-folder there.

    Raises:
        MovaError: `prefix` names no file, or one outside the output folder, or its folder cannot be made.
    """
    prefix = DATE.sub(lambda found: _dated(found[1], time.localtime()), prefix)
    output = os.path.abspath(folder_paths.get_output_directory())  # noqa: PTH100, as ComfyUI does
    parts = [part for part in re.split(r"[/\\]", prefix) if part not in ("", ".")]
    for part in parts:
        check_name(part)
    inside = os.path.normpath(os.path.join(output, *parts))  # noqa: PTH118
    named = bool(parts) and bool(parts[-1].strip(". ")) and inside.startswith(output + os.sep)
    if not named or prefix.startswith(("/", "\\")) or prefix.endswith(("/.", "\\.")):
        raise MovaError(
            f"filename_prefix {told(prefix)} names no file in the output folder; give one such as video/MOVA"
        )
    if not Path(inside).parent.resolve().is_relative_to(Path(output).resolve()):  # which ComfyUI writes to no more
        raise MovaError(
            f"filename_prefix {told(prefix)} leads out of the output folder by a link; give another, or start ComfyUI with "
            "--output-directory"
        )
    try:
        found = folder_paths.get_save_image_path(os.path.relpath(inside, output), output, width, height)
    except OSError as error:
        raise MovaError(
            f"no folder can be made for filename_prefix {told(prefix)}: {error.strerror or error}"
        ) from error
    folder, name, counter, subfolder, _ = found
    paths = (Path(folder) / f"{name}_{number:05}_{ending}" for number in count(counter))
    return next(path for path in paths if not _taken(path)), subfolder


def _dated(form: str, now: time.struct_time) -> str:
    """A time in the letters of ComfyUI's page, which fills them in for its own nodes alone: `yyyy-MM-dd`, `hhmmss`."""
    year = f"{now.tm_year:04}"
    values = {"M": now.tm_mon, "d": now.tm_mday, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}

    def filled(found: re.Match[str]) -> str:
        letters = found[0]
        return year[-len(letters) :] if letters[0] == "y" else f"{values[letters[0]]:0{len(letters)}}"

    return re.sub(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?", filled, form)


def _taken(path: Path) -> bool:
    """Whether a file has that name, in whatever letters the disk takes for the same, or is being written under it."""
    if os.path.lexists(path):
        return True
    begun = f".{path.name}.".casefold()
    return any(left.name.casefold().startswith(begun) and being_written(left) for left in listed(path.parent))


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
    quality: str = mp4.FINAL_CRF,
) -> None:
    """Write an MP4 of `frames` pictures as `mova_core.mp4` does; cancelling and progress are ComfyUI's."""
    progress = comfy.utils.ProgressBar(frames)

    def told() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(1)

    mp4.write(path, size, pieces, sound, fps, sample_rate, metadata, quality=quality, before_picture=told)
