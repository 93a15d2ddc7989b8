"""What the audio tower was told of the video by the bridge, kept between the evaluations of one run.

Guidance makes several evaluations a step, for several conditions, in whatever batches memory allows; each is kept under the
identity ComfyUI gives the condition, and under the options that change what is told.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...mova_core.model.hearing import Hearing
from ...mova_core.ops import Runtime
from .runtime import BRIDGE_CACHE

Options = dict[str, Any]


@dataclass
class BridgeCache:
    """Of one run: by condition, the bridge's message to the audio at each layer; and whether to ask for it or to fill it."""

    kept: dict[Hashable, dict[int, Tensor | None]] = field(default_factory=dict)
    replay: bool = False

    def store(self, options: Options, layers: dict[int, Tensor | None]) -> None:
        """The messages of a full forward, for each of its conditions."""
        names = list(_names(options))
        for place, name in enumerate(names):
            self.kept[name] = {
                layer: message if message is None else message.chunk(len(names))[place]
                for layer, message in layers.items()
            }

    def messages(self, options: Options, device: torch.device) -> dict[int, Tensor | None]:
        """What the conditions of this forward were told in the last full one, by layer, on the device of this one."""
        parts = [self.kept[name] for name in _names(options)]
        together = {}
        for layer in parts[0]:
            messages = [part[layer] for part in parts]
            together[layer] = (
                None if messages[0] is None else torch.cat([m.to(device) for m in messages if m is not None])
            )
        return together


def recording(options: Options, run: Runtime) -> tuple[Runtime, Callable[[], None]]:
    """A runtime that remembers, where a run wants that, and what keeps it after the forward."""
    cache: BridgeCache | None = options.get(BRIDGE_CACHE)
    if cache is None:
        return run, lambda: None
    hearing = Hearing()
    return hearing.recording(run), lambda: cache.store(options, hearing.heard())


def _names(options: Options) -> Iterator[Hashable]:
    window = options.get("context_window")
    place = None if window is None else tuple(window.index_list)
    flags = (options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True))
    for name in options["uuids"]:
        yield name, place, flags, frozenset(options.get("stg_self_attn_blocks", ()))
