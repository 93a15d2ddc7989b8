"""How fast a run goes and what it holds, shown under the sampler after each step and logged once at its end."""

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch

from ...mova_core.preflight import spoken
from . import messages

log = logging.getLogger("mova")
GIB = 2**30
RECENT = 5  # steps whose median is the pace: the one that loaded the other expert does not count


class Pace:
    """A watcher of `sampling.sample`. `beside` says what else is to stay under the node, below its own line."""

    def __init__(
        self,
        device: torch.device,
        node_id: Any,
        beside: Callable[[], str] = str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device, self.node_id, self.beside, self.clock = device, node_id, beside, clock
        self.begun = self.last = clock()
        self.intervals: list[float] = []
        self.peak = 0.0
        begin_peak(device)

    def __call__(self, step: int, denoised: Any, steps: int) -> None:
        now = self.clock()
        if step == 0:  # or again, with another seed
            self.intervals.clear()
        else:
            self.intervals.append(now - self.last)
        self.last, self.peak = now, max(self.peak, device_peak(self.device))
        line = self.line(step + 1, steps)
        messages.show("\n".join(filter(None, (line, self.beside()))), self.node_id)
        if step + 1 == steps:
            log.info("%s", line)

    def line(self, done: int, steps: int) -> str:
        """`Step 12 of 50, 9.1 s a step, 5 min 45 s to go, 4.6 GiB at most`."""
        parts = [f"{steps} steps in {spoken(self.last - self.begun)}"] if done == steps else [f"Step {done} of {steps}"]
        if self.intervals:
            pace = statistics.median(self.intervals[-RECENT:])
            parts.append(f"{pace:.3g} s a step")
            if done < steps:
                parts.append(f"{spoken(pace * (steps - done))} to go")
        if self.peak:
            parts.append(f"{self.peak / GIB:.1f} GiB of VRAM at most")
        return ", ".join(parts)


def begin_peak(device: torch.device) -> None:
    """Forget what torch held at most before."""
    if comfy.model_management.is_device_cuda(device):
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> float:
    """Bytes in use on a CUDA device at the highest since `begin_peak`, weights of ComfyUI's own allocator included; else 0."""
    if not comfy.model_management.is_device_cuda(device):
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return float(total - free - torch.cuda.memory_reserved(device) + torch.cuda.max_memory_reserved(device))
