"""Memory and time of a MODEL's last run, for bug reports: a moment after each step, kept with the MODEL and its clones."""

import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch

TIMELINE = "mova_timeline"  # attachment of a MODEL, key of its wrappers
GIB = 2**30


@dataclass(frozen=True)
class Moment:
    """What was in use by a moment of a run, in GiB of the whole machine, not of ComfyUI alone.

    On CUDA the device's is the highest that torch's own count knows since it was last reset, activations included;
    'MOVA Sampler' resets it when a run begins. Elsewhere, and for the host, it is what is in use after the step.
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

    def add(self, what: str, device: Any) -> None:
        used = (_used(place) for place in (device, torch.device("cpu")))
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


def watched(model: Any) -> Any:
    """`model`, whose runs are written down."""
    model.set_attachments(TIMELINE, Timeline())
    kinds = comfy.patcher_extension.WrappersMP
    model.add_wrapper_with_key(kinds.OUTER_SAMPLE, TIMELINE, _run)
    model.add_wrapper_with_key(kinds.PREDICT_NOISE, TIMELINE, _step)
    return model


def _run(executor: Any, *args: Any, **kwargs: Any) -> Any:
    patcher = executor.class_obj.model_patcher
    timeline = patcher.get_attachment(TIMELINE)
    timeline.begin()
    timeline.add("start", patcher.load_device)
    outcome = "stopped"
    try:
        result = executor(*args, **kwargs)
        outcome = "end"
        return result
    finally:
        timeline.add(outcome, patcher.load_device)


def _step(executor: Any, *args: Any, **kwargs: Any) -> Any:
    result = executor(*args, **kwargs)
    patcher = executor.class_obj.model_patcher
    expert = getattr(getattr(patcher, "active", None), "expert", None) or "one"
    patcher.get_attachment(TIMELINE).add(f"a step of the {expert}-noise expert", patcher.load_device)
    return result


def _used(device: Any) -> float:
    management = comfy.model_management
    used = management.get_total_memory(device) - management.get_free_memory(device)
    if management.is_device_cuda(device):
        used += torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    return float(used) / GIB
