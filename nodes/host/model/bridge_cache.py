"""The keys and values by which the audio asks the video, kept between the evaluations of one run.

Guidance makes several evaluations a step, for several conditions, in whatever batches memory allows; each is kept under the
identity ComfyUI gives the condition, and under the options that change what is kept. They stay on the device where the run
has room for them, the others wait in host memory and come a layer ahead of their use.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import comfy.model_management
import torch
from torch import Tensor

from ....mova_core.model.compact import Compact, compacted
from ....mova_core.model.teacher import States, with_states_kept
from ....mova_core.ops import KeysValues, Runtime
from ..keys import Options, run_options
from .staying_weights import StayingWeights

Parts = tuple[Compact, ...]
"""Of a layer: keys and values."""


@dataclass(frozen=True)
class Keeping:
    """What a run asks for: how many conditions are kept, and whether in eight bits (None: where the model has sixteen).

    `teacher`: the layer from which a second forward gives them.
    """

    conditions: int = 1
    eight_bits: bool | None = None
    teacher: int | None = None

    def compact(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether keys and values of this dtype are made smaller."""
        if device.type == "mps":  # it knows no float8
            return False
        return dtype.itemsize == 2 if self.eight_bits is None else self.eight_bits and dtype.itemsize > 1


@dataclass
class BridgeCache:
    """Of one run: by condition, the bridge's keys and values at each layer, and the states from which a teacher begins.

    `room`: bytes they may take on the device. `only`: the conditions to keep, by their identity; all if None.
    """

    keeping: Keeping = Keeping()
    room: float = float("inf")
    only: frozenset[Hashable] | None = None
    kept: dict[Hashable, dict[int, Parts | None]] = field(default_factory=dict)
    states: dict[Hashable, States] = field(default_factory=dict)
    host: dict[Hashable, Tensor] = field(default_factory=dict)  # memory of the steps before, to be used again
    weights: StayingWeights = field(default_factory=StayingWeights)  # the sound's, from one of its steps to the next

    def store(self, options: Options, layer: int, pair: KeysValues | None) -> None:
        """Those of a layer of a full forward, for each of its conditions."""
        names = list(_names(options))
        for place, name in enumerate(names):
            if self.only is not None and name[0] not in self.only:
                continue
            parts = None
            if pair is not None:
                shares = [part.chunk(len(names))[place] for part in pair]
                parts = tuple(self._placed(share, (name, layer, side)) for side, share in enumerate(shares))
            self.kept.setdefault(name, {})[layer] = parts

    def store_states(self, options: Options, states: States) -> None:
        """Those that enter the layer at which a teacher begins."""
        names = list(_names(options))
        for place, name in enumerate(names):
            if self.only is None or name[0] in self.only:
                video, audio = (part.chunk(len(names))[place].clone() for part in states)
                self.states[name] = video, audio

    def teacher_states(self, options: Options) -> States | None:
        """Those of the conditions of this forward, given away."""
        parts = [self.states.pop(name) for name in _names(options) if name in self.states]
        if not parts:
            return None
        video, audio = (torch.cat(side) if len(side) > 1 else side[0] for side in zip(*parts, strict=True))
        return video, audio

    def forget(self, options: Options) -> None:
        """Those of these conditions, before a full forward: it may leave layers out that the last one walked."""
        self.weights.release()
        for name in _names(options):
            self.kept.pop(name, None)

    def keys_values(self, options: Options, device: torch.device, dtype: torch.dtype) -> "LayersAhead":
        """Of the conditions of this forward in the last full one, by layer, on the device of this one."""
        return LayersAhead([self.kept[name] for name in _names(options)], device, dtype)

    def _placed(self, share: Tensor, name: Hashable) -> Compact:
        small = compacted(share) if self.keeping.compact(share.dtype, share.device) else Compact(share, None)
        here = sum(part.nbytes for part in self._parts() if part.values.device == share.device)
        if here + small.nbytes <= self.room:
            # a share of a batch would keep the whole batch alive
            return (
                small
                if small.scale is not None or share.untyped_storage().nbytes() == share.nbytes
                else Compact(share.clone(), None)
            )
        waiting = self.host.get(name)
        if waiting is None or waiting.shape != small.values.shape or waiting.dtype != small.values.dtype:
            pinned = comfy.model_management.is_device_cuda(share.device)
            comfy.model_management.ensure_pin_budget(small.nbytes)  # or copies of other models' weights fill the memory
            waiting = torch.empty(small.values.shape, dtype=small.values.dtype, device="cpu", pin_memory=pinned)
            self.host[name] = waiting
        return Compact(waiting.copy_(small.values, non_blocking=True), small.scale)

    def _parts(self) -> Iterator[Compact]:
        for layers in self.kept.values():
            for parts in layers.values():
                yield from parts or ()


class LayersAhead(Mapping[int, KeysValues | None]):
    """Keys and values of one or more conditions by layer; asking for a layer sends for the next."""

    def __init__(self, conditions: list[dict[int, Parts | None]], device: torch.device, dtype: torch.dtype) -> None:
        self.conditions, self.device, self.dtype = conditions, device, dtype
        self.order = sorted(conditions[0])
        self.coming: dict[int, tuple[list[Parts], torch.Stream | None]] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, layer: int) -> KeysValues | None:
        self._send_for(layer)
        conditions, stream = self.coming.pop(layer)
        following = self.order.index(layer) + 1
        if following < len(self.order):
            self._send_for(self.order[following])
        comfy.model_management.sync_stream(self.device, stream)
        if not conditions:
            return None
        keys, values = (
            torch.cat([part.expanded(self.dtype) for part in side]) if len(side) > 1 else side[0].expanded(self.dtype)
            for side in zip(*conditions, strict=True)
        )
        return keys, values

    def _send_for(self, layer: int) -> None:
        if layer in self.coming:
            return
        management = comfy.model_management
        wanted = [parts for kept in self.conditions if (parts := kept[layer]) is not None]
        away = any(part.values.device != self.device for parts in wanted for part in parts)
        stream = management.get_offload_stream(self.device) if away else None
        fast = management.device_supports_non_blocking(self.device)

        def sent(part: Compact) -> Compact:
            copy = management.cast_to(part.values, None, self.device, non_blocking=fast, stream=stream)
            if stream is not None and copy is not part.values:
                copy.record_stream(management.current_stream(self.device))
            return Compact(copy, part.scale)

        self.coming[layer] = [tuple(map(sent, parts)) for parts in wanted], stream


def cache_of(model_options: Options, only: frozenset[Hashable] | None = None) -> BridgeCache:
    """An empty cache for a run under these options."""
    asked = run_options(model_options.get("transformer_options", {}))
    return BridgeCache(asked.keeping or Keeping(), asked.keeping_room, only)


def keeping(options: Options, run: Runtime) -> Runtime:
    """A runtime that keeps, where a run wants that."""
    asked = run_options(options)
    if asked.bridge_cache is None:
        return run
    cache = asked.bridge_cache
    if asked.forward == "full":
        cache.forget(options)
    until = cache.keeping.teacher if asked.forward == "full" else None

    def keep(layer: int, pair: KeysValues | None) -> None:
        if until is None or pair is None or layer < until:  # the others are the teacher's to give
            cache.store(options, layer, pair)

    kept = replace(run, keep=keep)
    return kept if not until else with_states_kept(kept, until, partial(cache.store_states, options))


def _names(options: Options) -> Iterator[tuple[Hashable, ...]]:
    window = options.get("context_window")
    place = None if window is None else tuple(window.index_list)
    flags = (options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True))
    for name in options["uuids"]:
        yield name, place, flags, frozenset(options.get("stg_self_attn_blocks", ()))
