"""LoRAs of every dialect in one form, and what they do to a weight: W + strength * alpha / rank * up @ down.

A file becomes a `Lora`: changes of named parameters, and every key that was left out with the reason.
Axes: O outputs, I inputs, R rank.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Size, Tensor

from ..errors import CheckpointError
from .lora_keys import (
    AUDIO,
    OTHER_KIND,
    OTHER_KINDS,
    PARTS,
    Expert,
    Names,
    Part,
    audio_in_name,
    expert_in_name,
    names_both_transformers,
    part_of,
    refuse,
    split_key,
    why_no_target,
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a file adds to one parameter: `up` (O, R) @ `down` (R, I) * alpha / R, or the whole difference `diff`."""

    parameter: str  # its name in the joint model
    expert: Expert | None  # None: of whichever expert is at work
    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None  # None: the rank
    diff: Tensor | None = None

    @property
    def part(self) -> Part:
        return part_of(self.parameter)

    @property
    def scale(self) -> float:
        """alpha / rank; 1 for a whole difference."""
        return 1.0 if self.down is None or self.alpha is None else self.alpha / self.down.shape[0]

    def delta(self, shape: Size | tuple[int, ...]) -> Tensor:
        """The change at strength 1, float32, in the parameter's shape."""
        if self.up is None or self.down is None:
            assert self.diff is not None
            return self.diff.float().reshape(shape)
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)  # (O, I)
        return self.scale * product.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A file's changes, and the keys that have no target, each with the reason."""

    changes: tuple[Change, ...]
    dropped: Mapping[str, str]

    def of(self, expert: Expert) -> tuple[Change, ...]:
        """The changes one expert gets."""
        return tuple(change for change in self.changes if change.expert in (None, expert))

    def only(self, expert: Expert) -> "Lora":
        """On one expert alone; what names the other is left out."""
        kept = tuple(replace(change, expert=expert) for change in self.of(expert))
        other = [change for change in self.changes if change.expert not in (None, expert)]
        left_out = {
            f"{c.parameter} of the {c.expert}-noise expert": f"only the {expert}-noise expert is asked for"
            for c in other
        }
        return Lora(changes=kept, dropped={**self.dropped, **left_out})

    def named(self, expert: Expert) -> "Lora":
        """With the video changes that name no expert given to one; audio tower and bridge stay both's."""
        given = (replace(c, expert=expert) if c.expert is None and c.part == "video" else c for c in self.changes)
        return Lora(changes=tuple(given), dropped=self.dropped)

    @property
    def names_expert(self) -> bool:
        return any(change.expert for change in self.changes)


def parse(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, tuple[int, ...]],
    *,
    name: str = "the LoRA",
    alpha: float | None = None,
) -> Lora:
    """The changes that a file's tensors mean for a model with these parameters.

    `name` is the file's, with folders; it tells where a file of bare keys belongs to the audio tower. `alpha` is for
    every layer that has none of its own.

    Raises:
        CheckpointError: nothing fits; the message says which model the file is probably for.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    layers = Names(
        parameters,
        AUDIO if audio_in_name(name) else "",
        "high" if names_both_transformers(shapes) else None,
    )
    unusual = {OTHER_KINDS.sub("", key) for key in shapes if OTHER_KINDS.search(key)}
    dropped: dict[str, str] = {}
    found: dict[tuple[str, Expert | None], dict[str, str]] = {}  # layer and expert -> kind -> key
    for key in shapes:
        stem, kind = split_key(key) or (key, "")
        layer, expert = layers.find(stem)
        if not kind or layer is None:
            dropped[key] = why_no_target(key)
        elif stem in unusual:
            dropped[key] = OTHER_KIND
        elif kind in (kinds := found.setdefault((layer, expert), {})):
            dropped[key] = f"says the same as {kinds[kind]}, which is used"
        else:
            kinds[kind] = key
    changes: list[Change] = []
    for (layer, expert), kinds in found.items():
        changes += _changes(layer, expert, kinds, tensors, parameters, alpha, dropped)
    if not changes:
        raise refuse(shapes, dropped, name)
    return Lora(changes=tuple(changes), dropped=dropped)


def _changes(
    layer: str,
    expert: Expert | None,
    kinds: dict[str, str],
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, tuple[int, ...]],
    alpha: float | None,
    dropped: dict[str, str],
) -> list[Change]:
    """The changes of one layer; keys that do not fit its shapes are named in `dropped`."""
    weight = layer if layer in parameters else f"{layer}.weight"
    made = []
    if "down" in kinds or "up" in kinds:
        keys = [kinds[kind] for kind in ("down", "up", "alpha") if kind in kinds]
        change = _low_rank(weight, expert, kinds, tensors, alpha)
        problem = "its other half is missing" if change is None else _misfit(change, parameters.get(weight))
        if change is None or problem:
            dropped.update(dict.fromkeys(keys, problem))
        else:
            made.append(change)
    elif "alpha" in kinds:
        dropped[kinds["alpha"]] = "an alpha without a LoRA"
    targets = {"diff": weight, "diff_b": f"{layer}.bias", "diff_m": f"{layer}.modulation"}
    for kind, parameter in targets.items():
        if kind not in kinds:
            continue
        change = Change(parameter=parameter, expert=expert, diff=tensors[kinds[kind]])
        problem = _misfit(change, parameters.get(parameter))
        if problem:
            dropped[kinds[kind]] = problem
        else:
            made.append(change)
    return made


def _low_rank(
    weight: str, expert: Expert | None, kinds: dict[str, str], tensors: Mapping[str, Tensor], alpha: float | None
) -> Change | None:
    if "down" not in kinds or "up" not in kinds:
        return None
    if "alpha" in kinds:
        own = tensors[kinds["alpha"]]
        alpha = float(own.reshape(-1)[0]) if own.numel() else alpha
    return Change(parameter=weight, expert=expert, down=tensors[kinds["down"]], up=tensors[kinds["up"]], alpha=alpha)


def _misfit(change: Change, shape: tuple[int, ...] | None) -> str:
    """Why a change does not fit a parameter of this shape; empty where it does."""
    if shape is None:
        return "the model has no such layer"
    if change.down is None or change.up is None:
        assert change.diff is not None
        if change.diff.squeeze().shape != Size(n for n in shape if n != 1):
            return f"has shape {tuple(change.diff.shape)}, the layer {shape}"
        return "" if change.diff.is_floating_point() else f"holds {change.diff.dtype}, not numbers of a LoRA"
    if not (change.down.is_floating_point() and change.up.is_floating_point()):
        return f"holds {change.down.dtype} and {change.up.dtype}, not numbers of a LoRA"
    if change.down.ndim < 2 or change.up.ndim < 2 or not change.down.shape[0]:
        return f"has shapes {tuple(change.up.shape)} and {tuple(change.down.shape)}, which make no LoRA"
    made = (change.up.shape[0], change.down.shape[1:].numel())
    wanted = (shape[0], Size(shape[1:]).numel())
    rank = change.down.shape[0]
    if len(shape) < 2 or made != wanted or change.up.shape[1:].numel() != rank or rank > max(wanted):
        return f"is of rank {rank} for a layer of {made[0]} x {made[1]}, this one is {' x '.join(map(str, shape))}"
    if change.alpha is not None and not abs(change.alpha) < 1e6:
        return f"has alpha {change.alpha}"
    return ""


def merge(weight: Tensor, changes: Iterable[tuple[Change, float]]) -> Tensor:
    """A parameter with changes at their strengths: summed in float32, then cast back to the parameter's dtype.

    Where every strength is 0 the same tensor is returned.
    """
    total: Tensor | None = None
    for change, strength in changes:
        if strength:
            total = (weight.float() if total is None else total) + strength * change.delta(weight.shape)
    return weight if total is None else total.to(weight.dtype)


def merged(
    tensors: Mapping[str, Tensor], lora: Lora, expert: Expert, strengths: Mapping[Part, float]
) -> dict[str, Tensor]:
    """The weights of one expert's joint model with a LoRA merged in, at a strength for each part.

    Raises:
        CheckpointError: a strength is missing, or a parameter.
    """
    missing = [part for part in PARTS if part not in strengths]
    if missing:
        raise CheckpointError(f"no strength for {', '.join(missing)}; give one for each of {', '.join(PARTS)}")
    out = dict(tensors)
    for change in lora.of(expert):
        if change.parameter not in out:
            raise CheckpointError(
                f"the weights lack {change.parameter}, which the LoRA changes; they are of another model"
            )
        out[change.parameter] = merge(out[change.parameter], [(change, strengths[change.part])])
    return out


def choose(lora: Lora, expert: str, name: str) -> tuple[Lora, str]:
    """A LoRA for the experts that its user asks for, and the sentence that says why.

    `expert` is "auto" (by the keys, else by the file's name, else both), "high", "low" or "both".

    Raises:
        CheckpointError: nothing of it is for the expert asked for.
    """
    if expert == "both":
        return lora, "both experts, as asked" + (
            "; keys that name one expert stay with it" if lora.names_expert else ""
        )
    if expert in ("high", "low"):
        chosen = lora.only("high" if expert == "high" else "low")
        if not chosen.changes:
            raise CheckpointError(f"every key of {name} is for the other expert, not the {expert}-noise one")
        return chosen, f"the {expert}-noise expert alone, as asked"
    if expert != "auto":
        raise CheckpointError(f"there is no expert {expert!r}; choose auto, high, low or both")
    if lora.names_expert:
        return lora, "each key's own expert, as the keys name them"
    told = expert_in_name(name)
    if told is None:
        return lora, "both experts: neither keys nor file name say which"
    if not any(change.part == "video" for change in lora.changes):
        return lora, "both experts: it changes only what they share"
    return lora.named(told), f"the {told}-noise expert, as the file name says"
