"""What a file holds, told by its size and samples of it; looked at again when its size or its time changes."""

import hashlib
from functools import lru_cache
from pathlib import Path

from ....mova_core.errors import MovaError

READ_HEAD = 2**20  # bytes of a file's beginning that are read
READ_PLACES, READ_EACH = 64, 2**16  # and so many bytes at so many places


def content(path: Path) -> str:
    """A hash of a file's content.

    Raises:
        MovaError: it cannot be read.
    """
    try:
        state = path.stat()
        return _content(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise MovaError(f"{path} cannot be read: {error.strerror or error}. Check the file") from error


def rewritten(path: Path) -> bool:
    """Whether it has gone, or was written since this process first asked: what ComfyUI holds may be what it was before."""
    try:
        return path.stat().st_mtime_ns != _first_seen(path)
    except OSError:
        return True


@lru_cache(maxsize=4096)
def _first_seen(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=4096)
def _content(path: Path, size: int, _: int) -> str:
    told = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        told.update(file.read(READ_HEAD))
        for n in range(READ_PLACES):
            file.seek(size * n // READ_PLACES)
            told.update(file.read(READ_EACH))
    return told.hexdigest()[:32]
