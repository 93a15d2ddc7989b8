"""LoRA files onto a MOVA MODEL, as ComfyUI's own weight adapters: strengths by part, one expert or both, and a report."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

from ...mova_core.checkpoint.experts import EXPERTS, Expert
from ...mova_core.checkpoint.lora import Lora, choose, parse
from ...mova_core.checkpoint.lora_changes import Change
from ...mova_core.checkpoint.lora_files import read_lora
from ...mova_core.checkpoint.lora_keys import PARTS, Part
from ...mova_core.checkpoint.lora_owner import short
from ...mova_core.config import MovaConfig
from ...mova_core.errors import CheckpointError
from ...mova_core.model.mova import Mova
from .lora_adapters import adapter
from .lora_names import ROOT
from .sampling import check_model

log = logging.getLogger("mova")
NAMED_KEYS = 5  # keys and reasons listed on the node
MORE_KEYS = 40  # and in the report, where keys that differ in their numbers alone are one


@dataclass(frozen=True)
class Report:
    """What was applied: in few lines for the node, and whole."""

    short: str
    whole: str


def files() -> list[str]:
    """LoRA files in ComfyUI's `loras` folders, by relative name."""
    return folder_paths.get_filename_list("loras")


def apply(model: Any, name: str, expert: str, strengths: Mapping[Part, float]) -> tuple[Any, Report]:
    """A clone of the MODEL with the file's changes, and what was applied to what.

    Raises:
        CheckpointError: the file is missing, damaged or of another model, or nothing of it is for the expert asked for.
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise CheckpointError(
            f"there is no file {name!r} in {', '.join(folder_paths.get_folder_paths('loras'))}. Put it there and press R"
        )
    file = read_lora(Path(path))
    shapes = _shapes(model.model.diffusion_model.sizes)
    lora, why = choose(parse(file.tensors, shapes, name=name, scales=file.scales), expert, name)
    patched = model.clone()
    lines = [f"{short(name, 200)}, for {why}."]
    for target in _experts(patched, lora, name):
        changes = [change for change in lora.of(target) if strengths[change.part]]
        _patch(patched, target if patched.expert else None, changes, shapes, strengths)
        lines.append(f"{target}-noise expert: {_counted(changes)}")
    lines += [f"Strength of {part.replace('_', ' ')}: {strengths[part]:g}" for part in PARTS if strengths[part] != 1]
    lines += _forms(lora) + _scales(lora)
    short_report = "\n".join(lines + _left_out(lora.dropped, NAMED_KEYS))
    whole = "\n".join(lines + _left_out(lora.dropped, MORE_KEYS))
    log.info("%s", short_report)
    return patched, Report(short_report, whole)


@cache
def _shapes(sizes: MovaConfig) -> dict[str, tuple[int, ...]]:
    """Parameters of the joint model in full precision, whatever its weights are kept in."""
    return {key: tuple(tensor.shape) for key, tensor in Mova(sizes, device="meta").state_dict().items()}


def _experts(model: Any, lora: Lora, name: str) -> tuple[Expert, ...]:
    """The experts of this MODEL that the file is for."""
    if model.low is not None:
        return tuple(EXPERTS)
    if model.expert is not None:
        if not lora.of(model.expert):
            raise CheckpointError(
                f"{short(name, 200)} has nothing for the {model.expert}-noise expert, which this MODEL is. Connect the "
                "other expert's MODEL, or choose another expert here"
            )
        return (model.expert,)
    named: list[Expert] = sorted({change.expert for change in lora.changes if change.expert})
    if len(named) > 1:
        raise CheckpointError(
            f"{short(name, 200)} is for both experts, and this MODEL is one of them without saying which; choose high "
            "or low"
        )
    return (named[0] if named else "high",)


def _patch(
    model: Any, expert: str | None, changes: list[Change], shapes: Mapping[str, Any], strengths: Mapping[Part, float]
) -> None:
    for part in PARTS:
        for whole in (False, True):  # apart: a layer may have both, and a dict holds one patch a weight
            patches = {
                ROOT + change.parameter: adapter(change, shapes[change.parameter])
                for change in changes
                if change.part == part and (change.form == "diff") == whole
            }
            if patches:
                model.patch_expert(expert, patches, strengths[part])


def _counted(changes: list[Change]) -> str:
    counts = Counter(change.part for change in changes)
    return ", ".join(f"{counts[part]} {part.replace('_', ' ')}" for part in PARTS if counts[part]) or "nothing"


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
