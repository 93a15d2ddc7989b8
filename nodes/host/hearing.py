"""What the audio tower heard of the video, kept between the evaluations of one run.

Guidance makes several evaluations a step, for several conditions, in whatever batches memory allows; each is kept under the
identity ComfyUI gives the condition, and under the options that change what is heard.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...mova_core.model.hearing import Hearing
from ...mova_core.ops import Runtime
from .runtime import HEARING

Options = dict[str, Any]


@dataclass
class Kept:
    """Of one run: by condition, what was heard at each layer; and whether to ask for it or to fill it."""

    heard: dict[Hashable, dict[int, Tensor | None]] = field(default_factory=dict)
    replay: bool = False


def replays(options: Options) -> bool:
    """Whether the audio tower is asked for alone."""
    return HEARING in options and options[HEARING].replay


def recording(options: Options, run: Runtime) -> tuple[Runtime, Callable[[], None]]:
    """A runtime that remembers, where a run wants that, and what keeps it after the forward."""
    if HEARING not in options:
        return run, lambda: None
    hearing = Hearing()

    def keep() -> None:
        layers, names = hearing.heard(), list(_names(options))
        for place, name in enumerate(names):
            share = {
                layer: message if message is None else message.chunk(len(names))[place]
                for layer, message in layers.items()
            }
            options[HEARING].heard[name] = share

    return hearing.recording(run), keep


def remembered(options: Options, device: torch.device) -> dict[int, Tensor | None]:
    """What the conditions of this forward heard in the last full one, by layer, on the device of this one."""
    parts = [options[HEARING].heard[name] for name in _names(options)]
    together = {}
    for layer in parts[0]:
        messages = [part[layer] for part in parts]
        together[layer] = None if messages[0] is None else torch.cat([message.to(device) for message in messages])
    return together


def _names(options: Options) -> Iterator[Hashable]:
    window = options.get("context_window")
    place = None if window is None else tuple(window.index_list)
    flags = (options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True))
    for name in options["uuids"]:
        yield name, place, flags, frozenset(options.get("stg_self_attn_blocks", ()))
