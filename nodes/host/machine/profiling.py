"""What a run takes: its pace under the sampler after each step, and a timeline of time and memory for bug reports.

Memory is counted by one formula, `device_peak`: what is in use on the device at the highest since `begin_peak`.
"""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import comfy.model_management
import comfy.patcher_extension
import torch

from ....mova_core.preflight import GIB, format_duration
from .. import messages
from ..keys import TIMELINE
from ..patching.patcher import MovaPatcher
from ..types import Executor

log = logging.getLogger("mova")
RECENT_STEPS = 5  # steps whose median is the pace: the one that loaded the other expert does not count


class Progress:
    """A watcher of `sampling.sample`. `beside` says what else is to stay under the node, below its own line."""

    def __init__(
        self,
        device: torch.device,
        node_id: str | None,
        beside: Callable[[], str] = str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device, self.node_id, self.beside, self.clock = device, node_id, beside, clock
        self.begun = self.last = clock()
        self.intervals: list[float] = []
        self.peak = 0.0
        begin_peak(device)

    def __call__(self, step: int, denoised: object, steps: int) -> None:
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

    def phase(self, step: int, what: str) -> None:
        """Say what runs within step 0, 1, 2..."""
        messages.show("\n".join(filter(None, (f"Step {step + 1}: {what}", self.beside()))), self.node_id)

    def line(self, done: int, steps: int) -> str:
        """`Step 12 of 50, 9.1 s a step, 5 min 45 s to go, 4.6 GiB at most`."""
        parts = (
            [f"{steps} steps in {format_duration(self.last - self.begun)}"]
            if done == steps
            else [f"Step {done} of {steps}"]
        )
        if self.intervals:
            pace = statistics.median(self.intervals[-RECENT_STEPS:])
            parts.append(f"{pace:.3g} s a step")
            if done < steps:
                parts.append(f"{format_duration(pace * (steps - done))} to go")
        if self.peak:
            parts.append(f"{self.peak / GIB:.1f} GiB of VRAM at most")
        return ", ".join(parts)


def begin_peak(device: torch.device) -> None:
    """Forget what torch held at most before."""
    if comfy.model_management.is_device_cuda(device):
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> float:
    """Bytes in use on a CUDA device at the highest since `begin_peak`, weights of ComfyUI's own allocator included; 0 on
    a device that keeps no such count."""
    if not comfy.model_management.is_device_cuda(device):
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return float(total - free - torch.cuda.memory_reserved(device) + torch.cuda.max_memory_reserved(device))


def in_use(device: torch.device) -> float:
    """Bytes in use on a device: at the highest since `begin_peak`, or where nothing counts that, now."""
    management = comfy.model_management
    return device_peak(device) or float(management.get_total_memory(device) - management.get_free_memory(device))


@dataclass(frozen=True)
class Moment:
    """What was in use by a moment of a run, in GiB of the whole machine, not of ComfyUI alone.

    On CUDA the device's is the highest since it was last reset, activations included; a run resets it when it begins.
    Elsewhere, and for the host, it is what is in use after the step.
    """

    seconds: float
    what: str
    device: float
    host: float


@dataclass
class Timeline:
    """The moments of the last run."""

    began: float = 0.0
    moments: list[Moment] = field(default_factory=list)

    def begin(self) -> None:
        self.began = time.monotonic()
        self.moments.clear()

    def add(self, what: str, device: torch.device) -> None:
        used = (in_use(place) / GIB for place in (device, torch.device("cpu")))
        self.moments.append(Moment(time.monotonic() - self.began, what, *used))

    def lines(self) -> list[str]:
        """The run in words: steps of one expert in a row are one line."""
        said, before = [], 0.0
        for what, group in groupby(self.moments, key=lambda moment: moment.what):
            moments = list(group)
            until = moments[-1].seconds
            each = f", {(until - before) / len(moments):.2f} s each" if len(moments) > 1 else ""
            device, host = (max(getattr(m, place) for m in moments) for place in ("device", "host"))
            count = f"{len(moments)} times " if len(moments) > 1 else ""
            said.append(
                f"until {until:.1f} s: {count}{what}{each}; device {device:.2f} GiB, host {host:.2f} GiB in use"
            )
            before = until
        return said


def watched(model: MovaPatcher) -> MovaPatcher:
    """`model`, whose runs are written down."""
    model.set_attachments(TIMELINE, Timeline())
    kinds = comfy.patcher_extension.WrappersMP
    model.add_wrapper_with_key(kinds.OUTER_SAMPLE, TIMELINE, _run)
    model.add_wrapper_with_key(kinds.PREDICT_NOISE, TIMELINE, _step)
    return model


def _run(executor: Executor, *args: object, **kwargs: object) -> object:
    patcher = executor.class_obj.model_patcher
    timeline = patcher.get_attachment(TIMELINE)
    timeline.begin()
    begin_peak(patcher.load_device)
    timeline.add("start", patcher.load_device)
    outcome = "stopped"
    try:
        result = executor(*args, **kwargs)
        outcome = "end"
        return result
    finally:
        timeline.add(outcome, patcher.load_device)


def _step(executor: Executor, *args: object, **kwargs: object) -> object:
    result = executor(*args, **kwargs)
    patcher = executor.class_obj.model_patcher
    expert = getattr(getattr(patcher, "active", None), "expert", None) or "one"
    patcher.get_attachment(TIMELINE).add(f"a step of the {expert}-noise expert", patcher.load_device)
    return result
