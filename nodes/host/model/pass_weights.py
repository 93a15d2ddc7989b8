"""LoRAs that a layer's weights wear while they compute, for evaluations of one run that differ in them.

A run with a teacher evaluates the same weights with a distillation LoRA and without it, several times a step. Patched in
place as ComfyUI does it, 28 GB would be written each time. Here the weights stay as they are, wherever they lie; where a
layer computes, its patched copies take their place and go when it is done: one layer's at a time. Nothing is moved but the
LoRA itself. The copies are those that ComfyUI would have written, rounding and requantising included.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from comfy.ops import CastWeightBiasOp
from torch import Tensor, nn

from ....mova_core.errors import PatchError
from ..keys import COPIES
from ..patching.foreign import MODEL_PREFIX
from ..patching.patcher import MovaPatcher
from ..patching.self_patching import patches_itself
from .weights import resident

WeightPatch: TypeAlias = tuple[object, ...]
"""As ComfyUI keeps it: strength, patch, strength of the weight, part of it, function."""
ModulePatches = Mapping[str, Sequence[WeightPatch]]
"""By a weight's key, what ComfyUI's `calculate_weight` takes."""
Wearing: TypeAlias = tuple[nn.Module, str, str, Sequence[WeightPatch]]
"""Module, name of its weight, key, patches."""
Worn = Mapping[int, Sequence[Wearing]]
"""By the identity of a module."""
NOTHING_WORN: Worn = {}


@dataclass(frozen=True)
class PassWeights:
    """Patches of one kind of evaluation, by the model that wears them."""

    patches: Mapping[nn.Module, ModulePatches]


def worn_by(model: nn.Module | None, weights: PassWeights | None) -> Worn:
    """The patches by module."""
    if model is None or weights is None:
        return NOTHING_WORN
    found: dict[int, list[Wearing]] = {}
    for key, patches in weights.patches.get(model, {}).items():
        holder, _, name = key.removeprefix(MODEL_PREFIX).rpartition(".")
        module = comfy.utils.get_attr(model, holder) if holder else model
        found.setdefault(id(module), []).append((module, name, key, patches))
    return found


def two_passes(model: MovaPatcher, teacher: MovaPatcher) -> tuple[MovaPatcher, PassWeights, PassWeights]:
    """A clone of `model` with the patches that both have, and what each has beside them.

    Raises:
        PatchError: they are not the same weights, or differ in what cannot be worn.
    """
    run = model.clone()
    pairs = [(run, teacher), *([(run.low, teacher.low)] if run.low is not None and teacher.low is not None else [])]
    if any(mine.model is not theirs.model for mine, theirs in pairs) or (run.low is None) != (teacher.low is None):
        raise PatchError(
            "model and teacher hold different weights; connect to teacher the MODEL of the loader, and to model the same one "
            "with the distillation LoRAs put on it"
        )
    if run.get_additional_models_with_key(COPIES):
        raise PatchError("a teacher works on one device; leave out 'MultiGPU CFG Split', or choose quality light")
    if any(set(mine.injections) != set(theirs.injections) for mine, theirs in pairs):
        raise PatchError(
            "model has a LoRA beside its weights (bypass) that its teacher has not, and it cannot be taken off for the "
            "teacher; put it on with 'MOVA LoRA Loader', or choose quality light"
        )
    worn: list[dict[nn.Module, ModulePatches]] = [{}, {}]
    for mine, theirs in pairs:
        shared, *own = _apart(mine.patches, theirs.patches)
        for side, patches in zip(worn, own):
            side[mine.model.diffusion_model] = patches
        mine.patches = shared
        mine.patches_uuid = uuid.uuid4() if own[1] else theirs.patches_uuid
    return run, PassWeights(worn[0]), PassWeights(worn[1])


def _apart(
    mine: ModulePatches, theirs: ModulePatches
) -> tuple[dict[str, list[WeightPatch]], dict[str, list[WeightPatch]], dict[str, list[WeightPatch]]]:
    """What both begin with, and the rest of each."""
    shared: dict[str, list[WeightPatch]] = {}
    rest: dict[str, list[WeightPatch]] = {}
    other: dict[str, list[WeightPatch]] = {}
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        one, two = list(mine.get(key, ())), list(theirs.get(key, ()))
        count = 0
        while count < min(len(one), len(two)) and one[count][:2] == two[count][:2]:
            count += 1
        for found, patches in ((shared, one[:count]), (rest, one[count:]), (other, two[count:])):
            if patches:
                found[key] = patches
    return shared, rest, other


@contextmanager
def outside_layers(model: nn.Module, weights: PassWeights | None, device: torch.device) -> Iterator[None]:
    """What weights beside the layers wear: embeddings, heads. They are few, and stay for a whole forward."""
    worn = worn_by(model, weights)
    if worn:
        inside = {id(m) for layer in model.layer_modules() for root in layer for m in root.modules()}  # type: ignore[operator]
        outer = [entries[0][0] for key, entries in worn.items() if key not in inside]
        if outer:
            with resident(outer, device), _worn(outer, worn, device):
                yield
            return
    yield


@contextmanager
def wearing(layer: Sequence[nn.Module], worn: Worn, device: torch.device) -> Iterator[None]:
    """Patched copies in the place of a layer's weights, which are where they compute."""
    if not worn:
        yield
        return
    modules = {id(m): m for root in layer for m in root.modules() if id(m) in worn}
    with _worn(list(modules.values()), worn, device):
        yield


@contextmanager
def _worn(modules: Sequence[nn.Module], worn: Worn, device: torch.device) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            entries = worn[id(module)]
            if hasattr(module, "_v"):
                stack.enter_context(_on_card(module, entries, device))
            else:
                for _, name, key, patches in entries:
                    stack.enter_context(_in_place_of(module, name, key, patches, device))
        yield


@contextmanager
def _in_place_of(
    module: nn.Module, name: str, key: str, patches: Sequence[WeightPatch], device: torch.device
) -> Iterator[None]:
    weight: Tensor = getattr(module, name)
    if patches_itself(weight):
        before = weight.patches
        weight.patches = [*before, (list(patches), key)]  # as the GGUF pack's patcher leaves them
        try:
            yield
        finally:
            weight.patches = before
        return
    setattr(module, name, nn.Parameter(_patched(module, name, key, weight, patches, device), requires_grad=False))
    try:
        yield
    finally:
        setattr(module, name, weight)


@contextmanager
def _on_card(module: CastWeightBiasOp, entries: Sequence[Wearing], device: torch.device) -> Iterator[None]:
    """Under dynamic VRAM, where a weight that is in use lies beside its module."""
    before = {name: getattr(module, name, None) for name in ("_v_weight", "_v_bias")}
    known, resident_before = {name for name in before if hasattr(module, name)}, module._prefetch["resident"]
    bias = module.bias
    values = comfy.ops.resolve_cast_module_with_vbar(
        module, module.weight.dtype, device, None if bias is None else bias.dtype, None, False
    )
    if module._prefetch["signature"] is not None:  # it has a place of its own, and was written there just now
        before, known, resident_before = {n: getattr(module, n) for n in before}, set(before), True
    if module._prefetch["signature"] is None:  # in a buffer that the next layer's transfer may take
        values = tuple(value if value is None else value.clone() for value in values)
    made = dict(zip(("weight", "bias"), values))
    for _, name, key, patches in entries:
        made[name] = _patched(module, name, key, made[name], patches, device)
    module._v_weight, module._v_bias, module._prefetch["resident"] = made["weight"], made["bias"], True
    try:
        yield
    finally:
        for name, value in before.items():
            if name in known:
                setattr(module, name, value)
            else:
                delattr(module, name)
        module._prefetch["resident"] = resident_before


def _patched(
    module: nn.Module, name: str, key: str, weight: Tensor, patches: Sequence[WeightPatch], device: torch.device
) -> Tensor:
    """What ComfyUI's patcher would have put in the place of `weight`."""
    convert, assign = getattr(module, f"convert_{name}", None), getattr(module, f"set_{name}", None)
    exact = comfy.model_management.lora_compute_dtype(device)
    value = comfy.model_management.cast_to_device(weight, device, exact, copy=True)
    if convert is not None:
        value = convert(value, inplace=True)
    value = comfy.lora.calculate_weight(list(patches), value, key)
    seed = comfy.utils.string_to_seed(key)
    if assign is not None:
        made: Tensor = assign(value, inplace_update=False, seed=seed, return_weight=True)
    else:
        made = comfy.float.stochastic_rounding(value, weight.dtype, seed=seed)
    return made
