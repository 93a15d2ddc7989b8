"""What a clip took: memory while it was made, and seconds a step."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import pairwise

import psutil

from tools.comfy.prompts import Result
from tools.comfy.server import ComfyServer

EVERY = 0.25  # seconds between two looks


class Memory:
    """The most that the server's process and the card held while a clip was made, in bytes.

    The card's is what is taken of it, by whomever, as ComfyUI tells it of any maker's; 0 without one.
    """

    def __init__(self, server: ComfyServer) -> None:
        self.server, self.ram, self.card = server, 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process(self.server.pid)
        while True:
            try:
                self.ram = max(self.ram, process.memory_info().rss)
            except psutil.Error:  # the server has ended; the clip says why
                return
            with suppress(OSError):  # too busy to answer just now
                self.card = max(self.card, self.server.card_taken())
            if self._over.wait(EVERY):
                return


def seconds_a_step(result: Result) -> float | None:
    """Median between two steps of the sampler; None of fewer than two."""
    steps = [e.seconds for e in result.events if e.kind == "progress" and e.data.get("node") == "sample"]
    gaps = sorted(after - before for before, after in pairwise(steps))
    return gaps[len(gaps) // 2] if gaps else None
