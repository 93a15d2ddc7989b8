"""How far the demo is, by tqdm: a bar for each thing that is done."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

FORMAT = "{desc}, {elapsed}"
COUNTED = "[{bar:30}] {n_fmt}/{total_fmt} " + FORMAT


class Bar:
    """One line for what is being done now; the line of what is done stays."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream, self._bar = stream, None

    def show(self, what: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done, and how far it is where that is known."""
        if self._bar is None or (self._bar.desc, self._bar.total or 0) != (what, total):
            self.end()
            form = COUNTED if total else FORMAT
            self._bar = tqdm(desc=what, total=total or None, file=self.stream, bar_format=form, ascii=" #")
        if self._bar.n != done:
            self._bar.n = done
            self._bar.refresh()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
