"""LoRA files onto a MOVA MODEL, as ComfyUI's own weight adapters: strengths by part, one expert or both, and a report."""

import logging
from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ....mova_core.checkpoint.distillation import PUBLISHED_PAIR, REPOSITORY, distillation_pair
from ....mova_core.checkpoint.experts import EXPERT_FOLDERS
from ....mova_core.checkpoint.load import joint_shapes
from ....mova_core.checkpoint.lora import Lora, choose, parse
from ....mova_core.checkpoint.lora_changes import LoraChange
from ....mova_core.checkpoint.lora_files import read_lora
from ....mova_core.checkpoint.lora_keys import LORA_PARTS, LoraPart
from ....mova_core.checkpoint.lora_owner import short
from ....mova_core.errors import CheckpointError
from ....mova_core.sampling.schedule import Expert
from ..kept.contents import content
from ..listed import in_place
from ..model.base_model import check_model
from ..patching.lora_names import ROOT
from ..patching.patcher import MovaPatcher
from ..types import Key
from .adapters import adapter
from .report import Report, counted, report

log = logging.getLogger("mova")
AUTOMATIC = "auto"


def files() -> list[str]:
    """LoRA files in ComfyUI's `loras` folders, by relative name."""
    return folder_paths.get_filename_list("loras")


def apply(
    model: MovaPatcher, name: str, expert: str, strengths: Mapping[LoraPart, float]
) -> tuple[MovaPatcher, Report]:
    """A clone of the MODEL with the file's changes, and what was applied to what.

    Raises:
        CheckpointError: the file is missing, damaged or of another model, or nothing of it is for the expert asked for.
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    path = folder_paths.get_full_path("loras", name) or in_place("loras", name)
    if path is None:
        raise CheckpointError(
            f"there is no file {short(str(name), 200)!r} in {', '.join(folder_paths.get_folder_paths('loras'))}. "
            "Put it there and press R"
        )
    file = read_lora(Path(path))
    shapes = joint_shapes(model.model.diffusion_model.sizes)
    lora, why = choose(parse(file.tensors, shapes, name=name, scales=file.scales), expert, name)
    patched = model.clone()
    alone = f" This MODEL is the {patched.expert}-noise expert alone." if patched.low is None and patched.expert else ""
    applied = [f"{short(name, 200)}, for {why}.{alone}"]
    for target in _experts(patched, lora, short(name, 200), why):
        changes = [change for change in lora.of(target) if strengths[change.part]]
        _patch(patched, target if patched.expert else None, changes, shapes, strengths)
        applied.append(f"{target}-noise expert: {counted(changes)}")
    made = report(lora, applied, strengths)
    log.info("%s", made.short)
    return patched, made


def distilled(model: MovaPatcher, chosen: Mapping[Expert, str], strength: float) -> tuple[MovaPatcher, str]:
    """A clone of the MODEL with a distillation LoRA on each expert, and what was applied.

    `chosen`: a file for each expert, or AUTOMATIC for that of the pair which lies in the folders.

    Raises:
        CheckpointError: AUTOMATIC, and there is no pair; else as `apply`.
    """
    found = pair() if AUTOMATIC in chosen.values() else None
    said = []
    for expert, name in chosen.items():
        if name == AUTOMATIC:
            name = _of_pair(found, expert)
        model, made = apply(model, name, expert, dict.fromkeys(LORA_PARTS, strength))
        said.append(made.short)
    return model, "\n".join(said)


def pair() -> Mapping[Expert, str] | None:
    """The distillation LoRAs that lie in the folders."""
    return distillation_pair(files())


def contents(chosen: Mapping[Expert, object]) -> list[str]:
    """A hash of what each file holds; of AUTOMATIC, that of the pair which `distilled` would take now. "" is no file."""
    found = pair() if AUTOMATIC in chosen.values() else None
    names = [(found or {}).get(expert) if name == AUTOMATIC else name for expert, name in chosen.items()]
    paths = [folder_paths.get_full_path("loras", name) if isinstance(name, str) else None for name in names]
    return [content(Path(path)) if path else "" for path in paths]


def _of_pair(found: Mapping[Expert, str] | None, expert: Expert) -> str:
    if found is None:
        raise CheckpointError(
            f"no pair of distillation LoRAs is in {', '.join(folder_paths.get_folder_paths('loras'))}: put "
            f"{' and '.join(PUBLISHED_PAIR.values())} there, from {REPOSITORY} on Hugging Face, and press R; or choose quality "
            "full or max, which need none"
        )
    return found[expert]


def _experts(model: MovaPatcher, lora: Lora, name: str, why: str) -> tuple[Expert, ...]:
    """The experts of this MODEL that the file is for."""
    if model.low is not None:
        return tuple(EXPERT_FOLDERS)
    if model.expert is not None:
        if not lora.of(model.expert):
            raise CheckpointError(
                f"{name} has nothing for the {model.expert}-noise expert, which this MODEL is: it is for {why}. Connect "
                "the other expert's MODEL, or choose another expert here"
            )
        return (model.expert,)
    named: list[Expert] = sorted({change.expert for change in lora.changes if change.expert})
    if len(named) > 1:
        raise CheckpointError(
            f"{name} is for both experts, and this MODEL is one of them without saying which; choose high or low"
        )
    return (named[0] if named else "high",)


def _patch(
    model: MovaPatcher,
    expert: str | None,
    changes: list[LoraChange],
    shapes: Mapping[str, tuple[int, ...]],
    strengths: Mapping[LoraPart, float],
) -> None:
    for part in LORA_PARTS:
        for whole in (False, True):  # apart: a layer may have both, and a dict holds one patch a weight
            patches: dict[Key, object] = {
                ROOT + change.parameter: adapter(change, shapes[change.parameter])
                for change in changes
                if change.part == part and (change.form == "diff") == whole
            }
            if patches:
                model.patch_expert(expert, patches, strengths[part])
