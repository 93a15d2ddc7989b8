"""Processes that begin as this one is and end by themselves or by SIGKILL: what a crash leaves is what they leave."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")


def forked(work: Callable[[], object]) -> int:
    """The id of a process that does `work`; it ends with 0, or with 1 after an exception."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    finally:  # it ends here after whatever exception: the tests are its parent's
        traceback.print_exc()
        os._exit(1)


def ended(child: int, seconds: float = 60.0) -> int:
    """How a process ended: its exit code, or minus the signal."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def killed() -> NoReturn:
    """End this process as a crash does: nothing is flushed, closed or tidied."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process that was killed goes on")
