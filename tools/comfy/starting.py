"""What a server needs before its process: a free port, a pack in custom_nodes, and no signal in between."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.comfy.events import ServerError

COPY_MARK = ".copied-by-comfy-server"
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "out", "shared")


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def signals_wait() -> Iterator[None]:
    """Hold this process's own signal handlers until the end, so that none comes between a start and its record."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in its main thread alone
        return
    own = {number: signal.getsignal(number) for number in signal.valid_signals()}
    own = {number: handler for number, handler in own.items() if callable(handler)}
    came: list[tuple[int, Any]] = []
    try:
        for number in own:
            signal.signal(number, lambda *arguments: came.append(arguments))
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        for number, frame in came:
            own[number](number, frame)


def place_pack(pack: Path, target: Path) -> None:
    """Put a pack into custom_nodes: a symbolic link, or a copy where links are not allowed (Windows).

    A link or copy of an earlier start is replaced.

    Raises:
        ServerError: something else lies at `target`; it is left alone.
    """
    if target.is_symlink():
        target.unlink()
    elif (target / COPY_MARK).is_file():
        shutil.rmtree(target)
    elif target.exists():
        raise ServerError(f"{target} is neither a link nor a copy made here; remove it, or choose another base")
    try:
        target.symlink_to(pack.resolve(), target_is_directory=True)
    except OSError:
        shutil.copytree(pack, target, ignore=NOT_COPIED)
        (target / COPY_MARK).touch()
