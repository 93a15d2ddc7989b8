"""A MODEL of two experts on several devices: what ComfyUI's multi-GPU nodes copy, and who waits where.

ComfyUI copies a patcher to another device by asking for its model anew (`cached_patcher_init`), each expert by itself, and
before each run brings the copies of the MODEL, not of what belongs to it, up to date. The low-noise expert goes along here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
from torch import nn

from ...mova_core.checkpoint.variants import AUDIO, BRIDGE
from . import newer
from .lora_names import LOW

COPIES = "multigpu"  # additional models of a MODEL: its copies on other devices, as ComfyUI names them
BY_DEVICE = "multigpu_clones"  # model option of a run: device -> patcher, the MODEL's own included


class OnDevices:
    """Mixed into a ModelPatcher class: copies on other devices hold both experts, patched as here."""

    prepares = False  # whether sampling is being prepared: what is additional then is loaded

    @contextmanager
    def preparing(self) -> Iterator[None]:
        self.prepares = True
        try:
            yield
        finally:
            self.prepares = False

    def get_nested_additional_models(self) -> list[Any]:
        """Where sampling is prepared without low-noise experts: each is loaded when its first step comes, not beside the
        other. Else all: they belong to the prompt that runs, so what is pinned of them stays."""
        models = super().get_nested_additional_models()
        if not self.prepares:
            return models
        waiting = {low for model in (self, *models) for low in model.get_additional_models_with_key(LOW)}
        return [model for model in models if model not in waiting]

    def deepclone_multigpu(self, new_load_device: Any = None, models_cache: Any = None) -> Any:
        made = super().deepclone_multigpu(new_load_device, models_cache)
        made.renew_injections()
        if made.low is not None and _source(made) == _source(made.low):
            share_sound(made.model.diffusion_model, made.low.model.diffusion_model)
        return made

    def match_multigpu_clones(self) -> None:
        super().match_multigpu_clones()
        for copy in self.get_additional_models_with_key(COPIES):
            copy.renew_injections()
            if self.low is None or copy.low is None:
                continue
            low = self.low.clone(model_override=copy.low.get_clone_model_override())
            newer.on_device(low, copy.load_device, low.offload_device)
            low.hook_backup = copy.low.hook_backup
            low.renew_injections()
            copy.set_additional_models(LOW, [low])


def everyone(patcher: Any) -> list[Any]:
    """All patchers of a MODEL: both experts, on every device."""
    return [patcher, *comfy.model_patcher.ModelPatcher.get_nested_additional_models(patcher)]


def _source(patcher: Any) -> Any:
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
