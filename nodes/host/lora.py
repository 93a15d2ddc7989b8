"""LoRA files onto a MOVA MODEL, as ComfyUI's own weight adapters: strengths by part, one expert or both, and a report."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import comfy.weight_adapter
import folder_paths

from ...mova_core.checkpoint.lora import Change, Lora, choose, parse
from ...mova_core.checkpoint.lora_files import read_lora
from ...mova_core.checkpoint.lora_keys import PARTS, Part
from ...mova_core.config import MovaConfig
from ...mova_core.errors import CheckpointError
from ...mova_core.model.mova import Mova
from .lora_names import FOLDERS, LOW, ROOT
from .sampling import check_model

log = logging.getLogger("mova")
NAMED_KEYS = 5  # keys listed for each reason on the node; the report lists all
EXPERTS = tuple(FOLDERS)


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
    lora, why = choose(parse(file.tensors, shapes, name=name, alpha=file.alpha), expert, name)
    patched = model.clone()
    lines = [f"{name}, for {why}."]
    for target in _experts(patched, lora, name):
        changes = [change for change in lora.of(target) if strengths[change.part]]
        _patch(patched, target if patched.expert else None, changes, shapes, strengths)
        lines.append(f"{target}-noise expert: {_counted(changes)}")
    lines += [f"Strength of {part.replace('_', ' ')}: {strengths[part]:g}" for part in PARTS if strengths[part] != 1]
    lines += _scales(lora)
    short = "\n".join(lines + _left_out(lora.dropped, NAMED_KEYS))
    whole = "\n".join(lines + _left_out(lora.dropped, len(lora.dropped)))
    log.info("%s", short)
    return patched, Report(short, whole)


@cache
def _shapes(sizes: MovaConfig) -> dict[str, tuple[int, ...]]:
    """Parameters of the joint model in full precision, whatever its weights are kept in."""
    return {key: tuple(tensor.shape) for key, tensor in Mova(sizes, device="meta").state_dict().items()}


def _experts(model: Any, lora: Lora, name: str) -> tuple[str, ...]:
    """The experts of this MODEL that the file is for."""
    if model.get_additional_models_with_key(LOW):
        return EXPERTS
    if model.expert is not None:
        if not lora.of(model.expert):
            raise CheckpointError(f"{name} has nothing for the {model.expert}-noise expert, which this MODEL is")
        return (model.expert,)
    named = sorted({change.expert for change in lora.changes if change.expert})
    if len(named) > 1:
        raise CheckpointError(
            f"{name} is for both experts, and this MODEL is one of them without saying which; choose high or low"
        )
    return (named[0] if named else EXPERTS[0],)


def _patch(
    model: Any, expert: str | None, changes: list[Change], shapes: Mapping[str, Any], strengths: Mapping[Part, float]
) -> None:
    for part in PARTS:
        for whole in (False, True):  # apart: a layer may have both, and a dict holds one patch a weight
            patches = {
                ROOT + change.parameter: _adapter(change, shapes[change.parameter])
                for change in changes
                if change.part == part and (change.diff is not None) == whole
            }
            if patches:
                model.patch_expert(expert, patches, strengths[part])


def _adapter(change: Change, shape: Any) -> Any:
    """The change as ComfyUI's patch."""
    if change.diff is not None:
        return ("diff", (change.diff.reshape(shape),))
    return comfy.weight_adapter.LoRAAdapter(set(), (change.up, change.down, change.alpha, None, None, None))


def _counted(changes: list[Change]) -> str:
    counts = Counter(change.part for change in changes)
    return ", ".join(f"{counts[part]} {part.replace('_', ' ')}" for part in PARTS if counts[part]) or "nothing"


def _scales(lora: Lora) -> list[str]:
    found = Counter((c.scale, c.down.shape[0]) for c in lora.changes if c.down is not None)
    many = ", ..." if len(found) > NAMED_KEYS else ""
    said = [f"{scale:g} at rank {rank} ({count})" for (scale, rank), count in found.most_common(NAMED_KEYS)]
    return [f"Scale (alpha / rank): {', '.join(said)}{many}"] if said else []


def _left_out(dropped: Mapping[str, str], count: int) -> list[str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for key, reason in dropped.items():
        reasons[reason].append(key)
    return [
        f"Left out, {len(keys)} keys, {reason}: {', '.join(keys[:count])}{', ...' if len(keys) > count else ''}"
        for reason, keys in reasons.items()
    ]
