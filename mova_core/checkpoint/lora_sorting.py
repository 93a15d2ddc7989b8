"""The keys of a LoRA by the layer that they change, and every key that is of none, with the reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import CheckpointError
from ..sampling.schedule import Expert
from .lora_keys import AUDIO_TOWER, LONGEST_KEY, Names, names_second, split_key
from .lora_names import audio_in_name
from .lora_owner import kind_reason, short, why_no_target

Keys = dict[str, str]  # kind -> the key that has it
Layer = tuple[str, Expert | None]


@dataclass
class Sorted:
    """Layers, with their keys by kind, and the keys left out."""

    layers: dict[Layer, Keys] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def drop(self, keys: Keys, reason: str, *kinds: str) -> None:
        """Leave out a layer's keys of these kinds, or all."""
        self.dropped.update({key: reason for kind, key in keys.items() if kind in kinds or not kinds})


def sort(keys: Iterable[str], parameters: Iterable[str], name: str) -> Sorted:
    """The keys of a file called `name`, for a model of these parameters.

    A layer with a tensor of unknown meaning is left out whole: half of another form is worse than nothing of it.

    Raises:
        CheckpointError: the file holds several adapters, and nothing says which is meant.
    """
    keys = list(keys)
    usual = [key for key in keys if len(key) <= LONGEST_KEY]
    high: Expert | None = "high" if names_second(usual) else None
    names = Names(parameters, AUDIO_TOWER if audio_in_name(name) else "", high)
    adapter = _adapter(usual, name)
    found, spoiled = Sorted(), dict[Layer, str]()
    for key in keys:
        split = split_key(key) if len(key) <= LONGEST_KEY else None
        layer, expert = names.find(split.stem) if split else (None, None)
        if split is None or layer is None:
            found.dropped[key] = _left_out(key, names, spoiled, known=split is not None)
            continue
        kinds = found.layers.setdefault((layer, expert), {})
        if split.adapter not in ("", adapter):
            found.dropped[key] = f"of the adapter {short(split.adapter, 40)!r}; {adapter!r} is applied"
        elif split.kind in kinds:
            found.dropped[key] = "says the same as a key that is used"
        else:
            kinds[split.kind] = key
    for target in spoiled.keys() & found.layers.keys():
        found.drop(found.layers.pop(target), spoiled[target])
    return found


def _left_out(key: str, names: Names, spoiled: dict[Layer, str], *, known: bool) -> str:
    """Why a key has no place; a layer that it makes unreadable is noted in `spoiled`."""
    if len(key) > LONGEST_KEY:
        return "a name longer than any layer's"
    held = None if known else names.holder(key)
    if held is None:
        return why_no_target(key, names)
    layer, expert, kind = held
    reason, alone = kind_reason(kind)
    if not alone:
        spoiled[(layer, expert)] = reason
    return reason


def _adapter(keys: Iterable[str], name: str) -> str:
    """The adapter of a file that is applied: the only one, or `default`; empty where no key names one."""
    splits = (split_key(key) for key in keys)
    adapters: Mapping[str, None] = dict.fromkeys(split.adapter for split in splits if split and split.adapter)
    if len(adapters) > 1 and "default" not in adapters:
        listed = ", ".join(repr(short(adapter, 40)) for adapter in list(adapters)[:5])
        more = ", ..." if len(adapters) > 5 else ""
        raise CheckpointError(
            f"{short(name, 200)} holds {len(adapters)} adapters ({listed}{more}), and nothing says which is meant. "
            "Save one of them alone"
        )
    return "default" if "default" in adapters else next(iter(adapters), "")
