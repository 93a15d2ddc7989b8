"""The keys and values by which the audio asks the video, kept between the evaluations of one run.

Guidance makes several evaluations a step, for several conditions, in whatever batches memory allows; each is kept under the
identity ComfyUI gives the condition, and under the options that change what is kept.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from ...mova_core.model.audio_only import Layers
from ...mova_core.ops import KeysValues, Runtime
from .keys import Options, run_options


@dataclass
class BridgeCache:
    """Of one run: by condition, the bridge's keys and values at each layer."""

    kept: dict[Hashable, dict[int, KeysValues | None]] = field(default_factory=dict)

    def store(self, options: Options, layer: int, pair: KeysValues | None) -> None:
        """Those of a layer of a full forward, for each of its conditions."""
        names = list(_names(options))
        shares = [None] * len(names) if pair is None else list(zip(*(part.chunk(len(names)) for part in pair)))
        for name, share in zip(names, shares):
            self.kept.setdefault(name, {})[layer] = share  # type: ignore[assignment]

    def forget(self, options: Options) -> None:
        """Those of these conditions, before a full forward: it may leave layers out that the last one walked."""
        for name in _names(options):
            self.kept.pop(name, None)

    def keys_values(self, options: Options, device: torch.device) -> Layers:
        """Of the conditions of this forward in the last full one, by layer, on the device of this one."""
        parts = [self.kept[name] for name in _names(options)]
        together: dict[int, KeysValues | None] = {}
        for layer in parts[0]:
            pairs = [pair for part in parts if (pair := part[layer]) is not None]
            keys, values = (torch.cat([pair[i].to(device) for pair in pairs]) if pairs else None for i in (0, 1))
            together[layer] = None if keys is None or values is None else (keys, values)
        return together


def keeping(options: Options, run: Runtime) -> Runtime:
    """A runtime that keeps, where a run wants that."""
    cache = run_options(options).bridge_cache
    if cache is None:
        return run
    cache.forget(options)
    return replace(run, keep=partial(cache.store, options))


def _names(options: Options) -> Iterator[Hashable]:
    window = options.get("context_window")
    place = None if window is None else tuple(window.index_list)
    flags = (options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True))
    for name in options["uuids"]:
        yield name, place, flags, frozenset(options.get("stg_self_attn_blocks", ()))
