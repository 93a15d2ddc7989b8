"""A MODEL of two experts on several devices: what ComfyUI's multi-GPU nodes copy.

ComfyUI copies a patcher to another device by asking for its model anew (`cached_patcher_init`), each expert by itself, and
before each run brings the copies of the MODEL up to date; `patcher.py` does the same for the low-noise expert.
"""

from comfy.model_patcher import ModelPatcher
from torch import nn

from ....mova_core.checkpoint.variants import AUDIO, BRIDGE


def everyone(patcher: ModelPatcher) -> list[ModelPatcher]:
    """All patchers of a MODEL: both experts, on every device."""
    return [patcher, *ModelPatcher.get_nested_additional_models(patcher)]


def source(patcher: ModelPatcher) -> tuple[object, ...]:
    """What an expert is loaded anew from, but for which expert it is."""
    load, arguments, *_ = patcher.cached_patcher_init
    return load, arguments[:-1]


def share_sound(high: nn.Module, low: nn.Module) -> None:
    """Let `low` hold audio tower and bridge of `high`, which were read from the same files, in the same memory."""
    for part in (AUDIO, BRIDGE):
        theirs = dict(high.get_submodule(part).named_modules())
        for name, module in low.get_submodule(part).named_modules():
            for key, value in theirs[name].named_parameters(recurse=False):
                setattr(module, key, nn.Parameter(value.detach(), requires_grad=False))
