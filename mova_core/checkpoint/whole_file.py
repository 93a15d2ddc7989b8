"""Small files that appear whole or not at all, and what killed writers left of others."""

import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from .writer import Piece, header_of, raw

STALE_PART_SECONDS = 600.0  # a file under a temporary name that was not written to for so long is left over
LEFT = re.compile(r"\..+\.(\d+)\.part")  # as `temporary` names files
WRITE_TRIES = 5  # to write into a folder that other processes clear meanwhile


def write_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with the rights of any other file; on the disk when this returns.

    Raises:
        CheckpointError: the disk did not take it; what was there before is as it was.
    """
    part = temporary(path)
    try:
        for again in reversed(range(WRITE_TRIES)):
            try:
                _write(path, part, tensors, metadata)
                break
            except (FileNotFoundError, FileExistsError):  # mkdir raises both where others clear the folder meanwhile
                if not again:
                    raise
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. Look at the disk's space and the folder's rights"
        ) from error
    finally:
        discard(part)


def _write(path: Path, part: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    specs = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        file.write(header_of([Piece(tensors=specs, make=lambda: tensors)], metadata))
        for tensor in tensors.values():
            file.write(raw(tensor))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)  # noqa: PTH105, atomic on every system


def write_text(path: Path, text: str) -> None:
    """Replace a text file; whole or not at all, and on the disk when this returns.

    Raises:
        OSError: the disk did not take it; what was there before is as it was.
    """
    part = temporary(path)
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105, atomic on every system
    finally:
        discard(part)


def temporary(path: Path) -> Path:
    """The name under which this process writes a file until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def sweep(path: Path, other: re.Pattern[str] = LEFT) -> None:
    """Remove what killed writers left beside `path`: of this file at once, of others when they lie still."""
    now = time.time()
    for left in listed(path.parent):
        if not LEFT.fullmatch(left.name) and not other.fullmatch(left.name):
            continue
        own = left.name.lstrip(".").startswith(f"{path.stem}.") and not being_written(left)
        try:
            if left.is_file() and (own or now - left.stat().st_mtime > STALE_PART_SECONDS):
                left.unlink()
        except OSError:
            continue  # another process was quicker, or still has it open


def listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it is not there, or may not be looked into."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def file_state(path: Path) -> tuple[int, int] | None:
    """When a file was written, in ns since 1970, and its bytes; None where there is none."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # ValueError: no name of a file
        return None
    return (state.st_mtime_ns, state.st_size) if stat.S_ISREG(state.st_mode) else None


def being_written(left: Path) -> bool:
    """Whether the process that a temporary name tells of lives, and is another than this one.

    Only of this machine, and not on Windows, where a file that is open cannot be removed anyway.
    """
    named = LEFT.fullmatch(left.name)
    if os.name != "posix" or named is None or int(named[1]) in (0, os.getpid()):
        return False
    try:
        os.kill(int(named[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def discard(part: Path) -> None:
    """Remove a file under a temporary name, where there is one and it can be removed."""
    try:
        part.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be written to, or that is none
        return
