"""LoRAs of every dialect in one form: changes of named parameters, and every key that was left out with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import CheckpointError
from ..sampling.schedule import Expert
from .lora_changes import (
    FORMS,
    MAX_ALPHA,
    LoraChange,
    as_magnitude,
    incomplete,
    is_finite,
    misfit,
    not_one_number,
    rank_of,
    unpacked,
)
from .lora_keys import split_key
from .lora_names import expert_in_name
from .lora_owner import refuse, short
from .lora_scale import Scales
from .lora_sorting import Keys, sort

WHOLE_DIFFERENCES = {"diff": "weight", "diff_b": "bias", "diff_m": "modulation"}  # kinds that are a whole difference
BESIDE = ("alpha", "magnitude", "up_bias", "down_scale", "up_scale")  # kinds that mean nothing alone


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A file's changes, and the keys that have no target, each with the reason."""

    changes: tuple[LoraChange, ...]
    dropped: Mapping[str, str]

    def of(self, expert: Expert) -> tuple[LoraChange, ...]:
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
    scales: Scales | None = None,
) -> Lora:
    """The changes that a file's tensors mean for a model with these parameters.

    `name` is the file's, with folders; it tells where a file of bare keys belongs to the audio tower. `scales` are for
    layers without an alpha of their own.

    Raises:
        CheckpointError: nothing fits, and the message says which model the file is probably for; or a number is not
            finite.
    """
    reading = _Reading(tensors, parameters, name, scales or Scales())
    for (layer, expert), keys in reading.sorted.layers.items():
        reading.read(layer, expert, keys)
    if not reading.changes:
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        raise refuse(shapes, reading.sorted.dropped, name, parameters)
    return Lora(changes=tuple(reading.changes), dropped=reading.sorted.dropped)


class _Reading:
    """One file on its way to changes."""

    def __init__(
        self, tensors: Mapping[str, Tensor], parameters: Mapping[str, tuple[int, ...]], name: str, scales: Scales
    ) -> None:
        self.tensors, self.parameters, self.name, self.scales = tensors, parameters, name, scales
        self.changes: list[LoraChange] = []
        self.sorted = sort(tensors, parameters, name)
        self.drop = self.sorted.drop

    def read(self, layer: str, expert: Expert | None, keys: Keys) -> None:
        """Add the changes of one layer."""
        weight = layer if layer in self.parameters else f"{layer}.weight"
        forms = [form for form, kinds in FORMS.items() if keys.keys() & set(kinds)]
        if len(forms) > 1:
            self.drop(keys, f"mixes {' and '.join(forms)}", *BESIDE, *(k for form in forms for k in FORMS[form]))
        elif forms:
            self._formed(forms[0], weight, expert, {k: v for k, v in keys.items() if k in (*FORMS[forms[0]], *BESIDE)})
        else:
            self.drop(keys, "an alpha without a LoRA", "alpha")
            self.drop(keys, "a magnitude, bias or scale without a LoRA", *BESIDE[1:])
        for kind, parameter in WHOLE_DIFFERENCES.items():
            if kind in keys:
                named = weight if kind == "diff" else f"{layer}.{parameter}"
                self._add({kind: keys[kind]}, named, expert, "diff", {"diff": self.tensors[keys[kind]]})

    def _formed(self, form: str, weight: str, expert: Expert | None, keys: Keys) -> None:
        whole = {f"{kind}_{half}" for kind in ("lokr_w1", "lokr_w2") if kind in keys for half in "ab"}
        tensors = {kind: self.tensors[keys[kind]] for kind in FORMS[form] if kind in keys and kind not in whole}
        shape = self.parameters.get(weight)
        if incomplete(form, tensors):
            return self.drop(keys, "its other half is missing")
        if "alpha" in keys and (problem := not_one_number(self.tensors[keys["alpha"]])):
            return self.drop(keys, problem)
        magnitude = None
        if "magnitude" in keys and shape is not None:
            magnitude = as_magnitude(self.tensors[keys["magnitude"]], shape) if len(shape) > 1 else None
            if magnitude is None:
                return self.drop(keys, f"its magnitudes do not fit a layer of {' x '.join(map(str, shape))}")
        scale = self._scale(keys, tensors)
        if not self._add(keys, weight, expert, form, tensors, scale, magnitude):
            return None
        if "up_bias" in keys:  # PEFT's `lora_bias`
            bias, named = self.tensors[keys["up_bias"]], f"{weight.removesuffix('.weight')}.bias"
            self._add({"up_bias": keys["up_bias"]}, named, expert, "diff", {"diff": bias}, scale)
        return None

    def _scale(self, keys: Keys, tensors: Mapping[str, Tensor]) -> float:
        """The layer's own alpha over its rank, else what the file says, else 1; two whole factors have none."""
        rank = rank_of(tensors)
        if not rank:
            return 1.0
        if "alpha" in keys:
            alpha = float(self.tensors[keys["alpha"]].reshape(()))
            if not abs(alpha) < MAX_ALPHA:
                raise self._not_finite(keys["alpha"], f"an alpha of {alpha:g}")
            return alpha / rank
        split = split_key(next(iter(keys.values())))
        stated = self.scales.of(split.stem if split else "", rank)
        return 1.0 if stated is None else stated

    def _add(
        self,
        keys: Keys,
        parameter: str,
        expert: Expert | None,
        form: str,
        tensors: Mapping[str, Tensor],
        scale: float = 1.0,
        magnitude: Tensor | None = None,
    ) -> bool:
        beside = {kind: self.tensors[keys[f"{kind}_scale"]] for kind in tensors if f"{kind}_scale" in keys}
        problem = misfit(form, tensors, self.parameters.get(parameter), beside)
        if problem:
            self.drop(keys, problem)
            return False
        for kind in keys:
            if kind != "alpha" and not is_finite(self.tensors[keys[kind]]):
                raise self._not_finite(keys[kind], "NaN or infinite numbers")
        tensors = {**tensors, **{kind: unpacked(tensors[kind], scale) for kind, scale in beside.items()}}
        self.changes.append(
            LoraChange(parameter=parameter, expert=expert, form=form, tensors=tensors, scale=scale, magnitude=magnitude)
        )
        return True

    def _not_finite(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(
            f"{short(self.name, 200)} holds {what} ({short(key)}); its training broke down or the file is damaged. "
            "Choose an earlier checkpoint or download it again"
        )


def choose(lora: Lora, expert: str, name: str) -> tuple[Lora, str]:
    """A LoRA for the experts that its user asks for, and the words that say why.

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
            raise CheckpointError(
                f"every key of {short(name, 200)} is for the other expert, not the {expert}-noise one; choose auto"
            )
        return chosen, f"the {expert}-noise expert alone, as asked"
    if expert != "auto":
        raise CheckpointError(f"there is no expert {short(expert)!r}; choose auto, high, low or both")
    if lora.names_expert:
        return lora, "each key's own expert, as the keys name them"
    told = expert_in_name(name)
    if told is None:
        return lora, "both experts: neither keys nor file name say which"
    if not any(change.part == "video" for change in lora.changes):
        return lora, "both experts: it changes only what they share"
    guess, words = told
    return lora.named(guess), f"the {guess}-noise expert, guessed from {words!r} in the file name"
