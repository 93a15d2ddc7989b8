"""A progress bar of one line. Standard library only."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30


class Bar:
    """`[#########.....] 5/8 denoising, 3 s`: redrawn on a terminal, a line for each change elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream, self.began, self.shown = stream, time.monotonic(), ""

    def show(self, what: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done, and how far it is where that is known."""
        filled = round(WIDTH * done / total) if total else 0
        line = f"[{'#' * filled}{'.' * (WIDTH - filled)}] " + (f"{done}/{total} {what}" if total else what)
        if line == self.shown:
            return
        timed = f"{line}, {time.monotonic() - self.began:.0f} s"
        if self.stream.isatty():
            self.stream.write("\r" + timed.ljust(len(self.shown) + 12))
        else:
            self.stream.write(timed + "\n")
        self.stream.flush()
        self.shown = line

    def end(self) -> None:
        if self.stream.isatty() and self.shown:
            self.stream.write("\n")
            self.stream.flush()
