"""What 'MOVA LoRA Loader' says of a file that it applied: in few lines on the node, and whole."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....mova_core.checkpoint.lora import Lora
from ....mova_core.checkpoint.lora_changes import LoraChange
from ....mova_core.checkpoint.lora_keys import LORA_PARTS, LoraPart
from ....mova_core.checkpoint.lora_owner import short

NAMED_KEYS = 5  # keys and reasons listed on the node
MORE_KEYS = 40  # and in the whole report, where keys that differ in their numbers alone are one


@dataclass(frozen=True)
class Report:
    """What was applied: in few lines for the node, and whole."""

    short: str
    whole: str


def report(lora: Lora, applied: Sequence[str], strengths: Mapping[LoraPart, float]) -> Report:
    """The report on a file, after the lines that say to what it was applied."""
    lines = list(applied)
    lines += [
        f"Strength of {part.replace('_', ' ')}: {strengths[part]:g}" for part in LORA_PARTS if strengths[part] != 1
    ]
    lines += _forms(lora) + _scales(lora) + _nothing(lora)
    few, whole = ("\n".join(lines + _left_out(lora.dropped, count)) for count in (NAMED_KEYS, MORE_KEYS))
    return Report(few, whole)


def counted(changes: Sequence[LoraChange]) -> str:
    counts = Counter(change.part for change in changes)
    return ", ".join(f"{counts[part]} {part.replace('_', ' ')}" for part in LORA_PARTS if counts[part]) or "nothing"


def _forms(lora: Lora) -> list[str]:
    """A line on the forms of change in a file that is not a plain LoRA."""
    written = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "diff": "whole difference"}
    found = Counter(
        f"{'DoRA' if c.form == 'lora' and c.magnitude is not None else written[c.form]}"
        f"{' with magnitudes' if c.form != 'lora' and c.magnitude is not None else ''}"
        for c in lora.changes
    )
    return [] if set(found) == {"LoRA"} else [f"Forms: {', '.join(f'{form} ({n})' for form, n in found.most_common())}"]


def _scales(lora: Lora) -> list[str]:
    found = Counter((c.scale, c.rank) for c in lora.changes if c.rank is not None)
    many = ", ..." if len(found) > NAMED_KEYS else ""
    said = [f"{scale:g} at rank {rank} ({count})" for (scale, rank), count in found.most_common(NAMED_KEYS)]
    return [f"Scale (alpha / rank): {', '.join(said)}{many}"] if said else []


def _nothing(lora: Lora) -> list[str]:
    idle = sum(change.is_nothing for change in lora.changes)
    return [f"Zeros alone, so without effect: {idle} of {len(lora.changes)}"] if idle else []


def _left_out(dropped: Mapping[str, str], count: int) -> list[str]:
    """Lines on the keys that were left out by reason, at most `count` reasons with at most `count` keys each."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for key, reason in dropped.items():
        reasons[short(reason, 160)].append(key)
    lines = []
    for reason, keys in list(reasons.items())[:count]:
        named = keys if len(keys) <= count else list(dict.fromkeys(re.sub(r"\d+", "*", key) for key in keys))
        listed = ", ".join(short(key) for key in named[:count])
        lines.append(f"Left out, {len(keys)} keys, {reason}: {listed}{', ...' if len(named) > count else ''}")
    left = sum(len(keys) for keys in list(reasons.values())[count:])
    return [*lines, f"Left out for other reasons: {left} keys"] if left else lines
