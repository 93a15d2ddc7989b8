"""Small safetensors files that appear whole or not at all, and what killed writers left of others."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from .writer import Piece, header_of, raw

STALE_PART_SECONDS = 600.0  # a file under a temporary name that was not written to for so long is left over
LEFT = re.compile(r"\..+\.(\d+)\.part")  # as `temporary` names files


def write_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with the rights of any other file; on the disk when this returns.

    Raises:
        CheckpointError: the disk did not take it; what was there before is as it was.
    """
    part = temporary(path)
    try:
        try:
            _write(path, part, tensors, metadata)
        except FileNotFoundError:  # another process has just cleared the folder
            _write(path, part, tensors, metadata)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. Look at the disk's space and the folder's rights"
        ) from error
    finally:
        _gone(part)


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


def temporary(path: Path) -> Path:
    """The name under which this process writes a file until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def sweep(path: Path, other: re.Pattern[str] = LEFT) -> None:
    """Remove what killed writers left beside `path`: of this file at once, of others when they lie still."""
    now = time.time()
    try:
        beside = list(path.parent.iterdir())
    except OSError:  # no such folder yet, or none that may be read: whoever writes will say so
        return
    for left in beside:
        if not LEFT.fullmatch(left.name) and not other.fullmatch(left.name):
            continue
        own = left.name.lstrip(".").startswith(f"{path.stem}.") and not being_written(left)
        try:
            if left.is_file() and (own or now - left.stat().st_mtime > STALE_PART_SECONDS):
                left.unlink()
        except OSError:
            continue  # another process was quicker, or still has it open


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


def _gone(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be written to, or that is none
        return
