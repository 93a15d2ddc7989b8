"""ComfyUI's own LoRA nodes on MOVA: the names they look for, and which expert a name belongs to.

ComfyUI maps a LoRA's keys onto a model through the model's state dict and its class (`comfy.lora.model_lora_keys_unet`):
`diffusion_model.<layer>` and kohya's `lora_unet_<layer>` for every model, the plain `<layer>` for the classes it lists.
So a MOVA model lists its video tower's weights under upstream's two folder names as well, without their contents, and
is of a listed class; its patchers send what comes back under those names to the expert they name.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

import comfy.model_base
import comfy.weight_adapter
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from comfy.weight_adapter.bypass import BypassForwardHook
from torch import nn

from ....mova_core.checkpoint.experts import EXPERT_FOLDERS
from ....mova_core.checkpoint.lora_keys import part_of
from ..types import Key, Patches, Values

log = logging.getLogger("mova")
ROOT = "diffusion_model."
EXPERT_PREFIXES = {expert: f"{folder}." for expert, folder in EXPERT_FOLDERS.items()}
Adapters: TypeAlias = dict[tuple[str, str | None], tuple[comfy.weight_adapter.WeightAdapterBase, float]]
"""(layer, expert that was named) -> (ComfyUI's weight adapter, strength)."""


class ListedModel(comfy.model_base.GenmoMochi):
    """A BaseModel whose LoRAs may have plain names, as core allows for Mochi. Nothing else of Mochi is in it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        comfy.model_base.BaseModel.__init__(self, *args, **kwargs)

    def extra_conds(self, **kwargs: object) -> Values:
        return comfy.model_base.BaseModel.extra_conds(self, **kwargs)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        """All weights, and empty entries for the video tower's under `video_dit.` and `video_dit_2.`."""
        entries = super().state_dict(*args, **kwargs)
        nothing = torch.empty(0)
        video = [key for key in entries if key.startswith(ROOT) and part_of(key.removeprefix(ROOT)) == "video"]
        for folder in EXPERT_PREFIXES.values():
            entries.update({f"{ROOT}{folder}{key.removeprefix(ROOT)}": nothing for key in video})
        return entries


class NamedLayer:
    """A layer that was looked up under the folder's name of one expert: the layer, and the name."""

    layer: nn.Module
    expert: str

    def __init__(self, layer: nn.Module, expert: str) -> None:
        vars(self).update(layer=layer, expert=expert)

    def __getattr__(self, name: str) -> object:
        value = getattr(self.layer, name)
        return NamedLayer(value, self.expert) if isinstance(value, nn.Module) else value

    def __getitem__(self, index: int) -> "NamedLayer":
        return NamedLayer(cast(nn.ModuleList, self.layer)[index], self.expert)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.layer, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # what isinstance goes by
        return type(self.layer)


def expert_of(key: str) -> tuple[str, str | None]:
    """A key of `ListedModel.state_dict` without the folder's name, and the expert which that named."""
    for expert, folder in EXPERT_PREFIXES.items():
        if key.startswith(ROOT + folder):
            return ROOT + key.removeprefix(ROOT + folder), expert
    return key, None


def by_expert(patches: Patches) -> tuple[dict[Key, object], dict[str, dict[Key, Key]]]:
    """Patches without an expert's name; and for each expert the keys that name it, with what they are without it."""
    plain: dict[Key, object] = {}
    named: dict[str, dict[Key, Key]] = {expert: {} for expert in EXPERT_PREFIXES}
    for key, value in patches.items():
        name, *rest = (key,) if isinstance(key, str) else key
        real, expert = expert_of(str(name))
        if expert is None:
            plain[key] = value
        elif not (isinstance(value, tuple) and value[0] == "model_as_lora"):  # of a whole model: the empty entries
            named[expert][key] = (real, *rest) if rest else real
    return plain, named


class BypassInjection(PatcherInjection):
    """A LoRA beside the weights of one expert's layers."""

    def __init__(self, patcher: ModelPatcher, adapters: Adapters) -> None:
        self.adapters = adapters
        manager = comfy.weight_adapter.BypassInjectionManager()
        for (layer, expert), (adapter, strength) in adapters.items():
            if expert in (None, patcher.expert):
                manager.add_adapter(layer, adapter, strength)
        (made,) = manager.create_injections(patcher.model)
        super().__init__(made.inject, made.eject)

    def on(self, patcher: ModelPatcher) -> "BypassInjection":
        """The same on a copy of the model on another device: ComfyUI moves adapters to its first one."""
        adapters = {layer: (copy.copy(adapter), strength) for layer, (adapter, strength) in self.adapters.items()}
        made = BypassInjection(patcher, adapters)
        inject = made.inject

        def inject_there(model_patcher: ModelPatcher) -> None:
            inject(model_patcher)
            for adapter, _ in adapters.values():
                place = model_patcher.load_device
                adapter.weights = [w.to(place) if isinstance(w, torch.Tensor) else w for w in adapter.weights]

        made.inject = inject_there
        return made


def _put_back(modules: Mapping[str, nn.Module], before: Mapping[str, Callable[..., object] | None]) -> None:
    """Each module's own forward: ComfyUI takes two adapters of a layer off in the order in which it put them on, so that
    the first stays, empty."""
    for name, module in modules.items():
        own = before[name]
        if own is None:
            vars(module).pop("forward", None)
        else:
            module.forward = own


def bypassed(patcher: ModelPatcher, injections: list[PatcherInjection]) -> Adapters | None:
    """What ComfyUI's bypass injections put beside which layers; None for injections of another kind.

    ComfyUI keeps that to itself, so they are put into the model for a moment and looked at there.
    """
    if all(isinstance(injection, BypassInjection) for injection in injections):
        return {layer: adapter for injection in injections for layer, adapter in injection.adapters.items()}
    modules = dict(patcher.model.named_modules())
    before = {name: vars(module).get("forward") for name, module in modules.items()}
    try:
        for injection in injections:
            injection.inject(patcher)
        adapters: Adapters = {}
        foreign = False
        for name, module in modules.items():
            forward = vars(module).get("forward")
            while forward is not None and forward != before[name]:
                hook = getattr(forward, "__self__", None)
                if not isinstance(hook, BypassForwardHook):
                    foreign = foreign or hook is not module
                    break
                expert = hook.module.expert if type(hook.module) is NamedLayer else None
                adapters[name, expert] = hook.adapter, hook.multiplier
                forward = hook.original_forward
    finally:
        for injection in reversed(injections):
            injection.eject(patcher)
        _put_back(modules, before)
    return None if foreign or not adapters else adapters
