"""ComfyUI's own LoRA nodes on MOVA: the names they look for, and which expert a name belongs to.

ComfyUI maps a LoRA's keys onto a model through the model's state dict and its class (`comfy.lora.model_lora_keys_unet`):
`diffusion_model.<layer>` and kohya's `lora_unet_<layer>` for every model, the plain `<layer>` for the classes it lists.
So a MOVA model lists its video tower's weights under upstream's two folder names as well, without their contents, and
is of a listed class; its patchers send what comes back under those names to the expert they name.
"""

import copy
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.patcher_extension
import comfy.weight_adapter
import torch

from ...mova_core.checkpoint.experts import EXPERTS
from ...mova_core.checkpoint.lora_keys import part_of

log = logging.getLogger("mova")
ROOT = "diffusion_model."
FOLDERS = {expert: f"{folder}." for expert, folder in EXPERTS.items()}
EXPERT = "mova_expert"  # attachment of a patcher: "high" or "low"
LOW = "mova_low_noise"  # additional model of a patcher: the other expert


class ListedModel(comfy.model_base.GenmoMochi):
    """A BaseModel whose LoRAs may have plain names, as core allows for Mochi. Nothing else of Mochi is in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        comfy.model_base.BaseModel.__init__(self, *args, **kwargs)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        return comfy.model_base.BaseModel.extra_conds(self, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """All weights, and empty entries for the video tower's under `video_dit.` and `video_dit_2.`."""
        entries = super().state_dict(*args, **kwargs)
        nothing = torch.empty(0)
        video = [key for key in entries if key.startswith(ROOT) and part_of(key.removeprefix(ROOT)) == "video"]
        for folder in FOLDERS.values():
            entries.update({f"{ROOT}{folder}{key.removeprefix(ROOT)}": nothing for key in video})
        return entries


def expert_of(key: str) -> tuple[str, str | None]:
    """A key of `ListedModel.state_dict` without the folder's name, and the expert which that named."""
    for expert, folder in FOLDERS.items():
        if key.startswith(ROOT + folder):
            return ROOT + key.removeprefix(ROOT + folder), expert
    return key, None


class ByName:
    """Mixed into a ModelPatcher class: patches go to the expert that their names say, or to all there are."""

    @property
    def expert(self) -> str | None:
        """Which expert this patcher is; None where nothing says so."""
        return self.get_attachment(EXPERT)

    def patch_expert(self, expert: str | None, patches: Mapping[Any, Any], strength: float) -> bool:
        """Patch one expert, by the weights' own names; None is this patcher's. False where it is not in this MODEL."""
        low = self.get_additional_models_with_key(LOW)
        target = self if expert in (None, self.expert) else low[0] if expert == "low" and low else None
        if target is not None:
            comfy.model_patcher.ModelPatcher.add_patches(target, patches, strength)
        return target is not None

    def add_patches(self, patches: Any, strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """As ModelPatcher's, with the names of `ListedModel.state_dict`."""
        plain, named = _sorted(patches)
        applied = list(super().add_patches(plain, strength_patch, strength_model)) if plain else []
        for expert, entries in named.items():
            if entries and self.expert is None:
                log.warning("LoRA: this MODEL does not say which expert it is; choose one in 'MOVA LoRA Loader'")
            elif entries:
                mine = self.patch_expert(expert, {real: patches[key] for key, real in entries.items()}, strength_patch)
                if not mine:
                    log.info("LoRA: %d keys are for the %s-noise expert, which is another MODEL", len(entries), expert)
                applied += entries
        if not patches:
            log.warning(
                "no key of this LoRA was recognised; 'MOVA LoRA Loader' reads more kinds and says what is wrong"
            )
        return applied

    def add_hook_patches(
        self, hook: Any, patches: Any, strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]:
        """This expert's share; the other one registers the hook for itself."""
        plain, named = _sorted(patches)
        mine = {real: patches[key] for key, real in named.get(self.expert or "", {}).items()}
        super().add_hook_patches(hook, plain, strength_patch, strength_model)
        if mine:
            super().add_hook_patches(hook, mine, strength_patch, strength_model)
        return list(patches)

    def model_state_dict(self, filter_prefix: str | None = None) -> Any:
        """What the model holds, each weight once."""
        entries = super().model_state_dict(filter_prefix)
        for key in [key for key in entries if expert_of(key)[1]]:
            del entries[key]
        return entries

    def set_injections(self, key: str, injections: Any) -> None:
        """A LoRA beside the weights ("bypass") is made again for each expert, from the layers it names."""
        adapters = _bypassed(injections)
        if adapters is None:
            super().set_injections(key, injections)
            return
        for patcher in (self, *self.get_additional_models_with_key(LOW)):
            manager = comfy.weight_adapter.BypassInjectionManager()
            for layer, (adapter, strength) in adapters.items():
                real, expert = expert_of(layer)
                if expert in (None, patcher.expert):
                    manager.add_adapter(real, adapter, strength)
            made = manager.create_injections(patcher.model)
            comfy.model_patcher.ModelPatcher.set_injections(patcher, key, made)

    def renew_injections(self) -> None:
        """A copy on another device has injections into the model it was copied from: have its own layers, and adapters."""
        for key, injections in list(self.injections.items()):
            adapters = _bypassed(injections)
            if adapters is not None:
                manager = _Elsewhere()
                for layer, (adapter, strength) in adapters.items():
                    manager.add_adapter(layer, copy.copy(adapter), strength)
                made = manager.create_injections(self.model)
                comfy.model_patcher.ModelPatcher.set_injections(self, key, made)

    def remove_injections(self, key: str) -> None:
        super().remove_injections(key)
        for low in self.get_additional_models_with_key(LOW):
            low.remove_injections(key)


class _Elsewhere(comfy.weight_adapter.BypassInjectionManager):
    """ComfyUI's moves adapters to its first device; this one to the device of the patcher."""

    def create_injections(self, model: Any) -> list[Any]:
        (made,) = super().create_injections(model)

        def inject(patcher: Any) -> None:
            made.inject(patcher)
            for adapter, _ in self.adapters.values():
                adapter.weights = [
                    w.to(patcher.load_device) if isinstance(w, torch.Tensor) else w for w in adapter.weights
                ]

        return [comfy.patcher_extension.PatcherInjection(inject=inject, eject=made.eject)]


def _sorted(patches: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, dict[Any, Any]]]:
    """Patches without an expert's name; and for each expert the keys that name it, with what they are without it."""
    plain: dict[Any, Any] = {}
    named: dict[str, dict[Any, Any]] = {expert: {} for expert in FOLDERS}
    for key, value in patches.items():
        name, *rest = (key,) if isinstance(key, str) else key
        real, expert = expert_of(name)
        if expert is None:
            plain[key] = value
        elif not (isinstance(value, tuple) and value[0] == "model_as_lora"):  # of a whole model: the empty entries
            named[expert][key] = (real, *rest) if rest else real
    return plain, named


def _bypassed(injections: Any) -> dict[str, Any] | None:
    """Layer -> (adapter, strength) of ComfyUI's bypass injections; None for injections of another kind."""
    adapters: dict[str, Any] = {}
    for injection in injections:
        manager = inspect.getclosurevars(injection.inject).nonlocals.get("self")
        if not isinstance(manager, comfy.weight_adapter.BypassInjectionManager):
            return None
        adapters |= manager.adapters
    return adapters
