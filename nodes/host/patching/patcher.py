"""One expert's ModelPatcher, and every way in which something put on a MODEL of two experts reaches the second.

The high-noise expert's patcher is the MODEL and knows the low-noise one's (`low`). In the order below:

expert     which one this is
patches    to the expert that a key names, else to both; a merge takes each expert's own weights
objects    object patches, weight wrappers, injections and load callbacks, bound to the layers of each expert
hooks      each expert registers its own share
precision  for both
running    which expert is loaded; ComfyUI loads the other when its first step comes
copies     clones, and copies on other devices, hold both
packed     weights that apply their own patches (GGUF) are given them when they are loaded

Options on the MODEL (wrappers, attention, block patches) go to each step as ComfyUI does it; `experts.route` binds them to
the expert that runs it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import torch
from comfy.hooks import Hook, HookGroup
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic
from comfy.patcher_extension import CallbacksMP, PatcherInjection

from ....mova_core.sampling.schedule import Expert
from .. import newer
from ..keys import COPIES, EXPERT, LOW_NOISE, Options
from ..types import Key, Patches
from . import devices, lora_names
from .foreign import Bound, check_injections, check_object_patch, mirrored, untold
from .lora_names import log
from .namesakes import Namesakes
from .self_patching import patches_itself

MIRRORED = (CallbacksMP.ON_LOAD, CallbacksMP.ON_DETACH, CallbacksMP.ON_INJECT_MODEL, CallbacksMP.ON_EJECT_MODEL)


class BothWeights(list[object]):
    """A weight of the high-noise expert with its patches, as merging nodes take it, and the low-noise expert's."""

    def __init__(self, high: list[object], low: list[object]) -> None:
        super().__init__(high)
        self.low = low


class MovaPatcher(ModelPatcher):
    """See above. `MovaDynamicPatcher` is the same over ComfyUI's dynamic VRAM."""

    active: "MovaPatcher | None" = None  # the patcher whose weights were loaded last in this run
    bound_options: Bound  # of this run
    object_patches: dict[str, object]  # the ModelPatcher's
    _untold: dict[CodeType, str] | None  # of this run, once looked for
    prepares = False  # whether sampling is being prepared: what is additional then is loaded

    # --- expert

    @property
    def low(self) -> "MovaPatcher | None":
        models = self.get_additional_models_with_key(LOW_NOISE)
        return models[0] if models else None

    @property
    def expert(self) -> Expert | None:
        """Which expert this patcher is, "high" or "low"; None where nothing says so."""
        return self.get_attachment(EXPERT)

    def warn_once(self, message: str) -> None:
        """Once a MODEL, however many layers or steps it is true of."""
        said: set[str] = self.__dict__.setdefault("_said", set())
        if message not in said:
            said.add(message)
            log.warning("%s", message)

    # --- patches

    def patch_expert(self, expert: str | None, patches: Patches, strength: float) -> bool:
        """Patch one expert, by the weights' own names; None is this patcher's. False where it is not in this MODEL."""
        target = self if expert in (None, self.expert) else self.low if expert == "low" else None
        if target is not None:
            ModelPatcher.add_patches(target, patches, strength)
        return target is not None

    def add_patches(self, patches: Patches, strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Key]:
        """As ModelPatcher's, with the names of `ListedModel.state_dict`."""
        plain, named = lora_names.by_expert(patches)
        applied = self._patch_both(plain, strength_patch, strength_model) if plain else []
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

    def _patch_both(self, patches: Patches, strength: float, strength_model: float) -> list[Key]:
        """In a merge each expert with its like, and the low-noise one not at all in a merge with a single expert."""
        applied = set(super().add_patches(patches, strength, strength_model))
        if self.low is not None:
            shared = {
                key: getattr(value, "low", value)
                for key, value in patches.items()
                if isinstance(value, BothWeights) or not isinstance(value, list)
            }
            if shared:
                applied |= set(self.low.add_patches(shared, strength, strength_model))
        return list(applied)

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list[object]]:
        high = super().get_key_patches(filter_prefix)
        if self.low is None:
            return high
        low = self.low.get_key_patches(filter_prefix)
        return {key: BothWeights(value, low[key]) for key, value in high.items()}

    def model_state_dict(self, filter_prefix: str | None = None) -> dict[str, torch.Tensor]:
        """What the model holds, each weight once."""
        entries = super().model_state_dict(filter_prefix)
        return {key: value for key, value in entries.items() if lora_names.expert_of(key)[1] is None}

    # --- objects

    def namesakes(self, other: "MovaPatcher") -> Namesakes:
        """From this expert's layers to another's, looked up once a patcher."""
        known = self.__dict__.setdefault("_namesakes", {})
        if other.model not in known:
            known[other.model] = Namesakes(self, other)
        found: Namesakes = known[other.model]
        return found

    def add_object_patch(self, name: str, obj: object) -> None:
        """Raises PatchError where MOVA has no such thing, or the low-noise expert cannot have it too."""
        check_object_patch(self, name, obj)
        super().add_object_patch(name, obj)
        if self.low is not None and name != "model_sampling":  # the run's schedule is the high-noise expert's
            self.low.add_object_patch(name, mirrored(self, self.low, obj, name))

    def add_weight_wrapper(self, name: str, function: Callable[..., torch.Tensor]) -> None:
        super().add_weight_wrapper(name, function)
        if self.low is not None:
            self.low.add_weight_wrapper(name, mirrored(self, self.low, function, name))

    def add_callback_with_key(self, call_type: str, key: str, callback: Callable[..., None]) -> None:
        super().add_callback_with_key(call_type, key, callback)
        if self.low is not None and call_type in MIRRORED:
            self.low.add_callback_with_key(call_type, key, mirrored(self, self.low, callback, call_type))

    def set_injections(self, key: str, injections: list[PatcherInjection]) -> None:
        """A LoRA beside the weights ("bypass") is made again for each expert, from the layers it names."""
        adapters = lora_names.bypassed(self, injections)
        for patcher in (self, self.low):
            if patcher is not None and adapters is not None:
                ModelPatcher.set_injections(patcher, key, [lora_names.BypassInjection(patcher, adapters)])
        if adapters is None:
            super().set_injections(key, injections)
            if self.low is not None:
                theirs = [mirrored(self, self.low, each, key) for each in injections]
                check_injections(self, self.low, key, theirs)
                ModelPatcher.set_injections(self.low, key, theirs)

    def remove_injections(self, key: str) -> None:
        super().remove_injections(key)
        if self.low is not None:
            self.low.remove_injections(key)

    def renew(self, source: "MovaPatcher") -> None:
        """After a copy to another device: what it holds of the model it was copied from becomes its own."""
        names = source.namesakes(self)
        self.object_patches = {n: names.bound(o, n)[0] for n, o in self.object_patches.items()}
        for key, injections in list(self.injections.items()):
            renewed = [i.on(self) if isinstance(i, lora_names.BypassInjection) else i for i in injections]
            ModelPatcher.set_injections(self, key, renewed)

    # --- hooks

    def add_hook_patches(
        self, hook: Hook, patches: Patches, strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Key]:
        """This expert's share; the other one registers the hook for itself."""
        plain, named = lora_names.by_expert(patches)
        mine = {real: patches[key] for key, real in named.get(self.expert or "", {}).items()}
        super().add_hook_patches(hook, plain, strength_patch, strength_model)
        if mine:
            super().add_hook_patches(hook, mine, strength_patch, strength_model)
        return list(patches)

    def register_all_hook_patches(
        self,
        hooks: HookGroup,
        target_dict: Options,
        model_options: Options | None = None,
        registered: HookGroup | None = None,
    ) -> HookGroup:
        known = super().register_all_hook_patches(hooks, target_dict, model_options, registered)
        if self.low is not None:  # after this one, which begins by restoring both
            self.low.register_all_hook_patches(hooks, target_dict, model_options)
        return known

    def restore_hook_patches(self) -> None:
        super().restore_hook_patches()
        if self.low is not None:
            self.low.restore_hook_patches()

    # --- precision

    def set_model_compute_dtype(self, dtype: torch.dtype) -> None:
        super().set_model_compute_dtype(dtype)
        if self.low is not None:
            self.low.set_model_compute_dtype(dtype)

    # --- running

    def pre_run(self) -> None:
        super().pre_run()
        self.active, self.bound_options, self._untold = self, {}, None
        if self.low is not None:  # nodes that choose a device set the MODEL's alone
            newer.on_device(self.low, self.load_device, self.offload_device)

    def activate(self, expert: "MovaPatcher", shape: list[int]) -> None:
        """Have ComfyUI load `expert`, evicting what it must, if it is not the one already running."""
        if self.active is expert:
            return
        if self.active is not None:
            self.active.patch_hooks(None)  # hooks write in place, and the experts share a tower and the bridge
        needed = expert.model.memory_required(shape)  # of the path that this run was planned for
        comfy.model_management.load_models_gpu([expert], memory_required=needed, minimum_memory_required=needed)
        if expert is not self:
            expert.hook_mode = self.hook_mode
            expert.pre_run()
        self.active = expert

    def untold(self, options: Options) -> dict[CodeType, str]:
        """Functions on this MODEL that may hold either expert's layers, looked for once a run."""
        if self._untold is None:
            self._untold = untold(self, options)
        return self._untold

    def cleanup(self) -> None:
        self.active, self.bound_options, self._untold = None, {}, None
        super().cleanup()
        if self.low is not None:
            self.low.cleanup()

    # --- copies

    def clone(
        self,
        disable_dynamic: bool = False,
        model_override: tuple[object, ...] | None = None,
        force_deepcopy: bool = False,
    ) -> "MovaPatcher":
        """As ModelPatcher's. Without dynamic VRAM it is a patcher of our kind still, and so is the low-noise expert."""
        made = super().clone(disable_dynamic, model_override, force_deepcopy)
        plain = disable_dynamic and self.is_dynamic()
        if plain:
            made = MovaPatcher.adopted(made)
        if self.low is not None and (plain or force_deepcopy):
            low = self.low.get_non_dynamic_delegate() if plain else self.low.clone(force_deepcopy=True)
            made.set_additional_models(LOW_NOISE, [low])
        return made

    @classmethod
    def adopted(cls, made: ModelPatcher) -> "MovaPatcher":
        """A patcher of ours with all that a plain one of ComfyUI's holds."""
        ours = cls(made.model, made.load_device, made.offload_device, made.size, made.weight_inplace_update)
        ours.__dict__.update(vars(made))
        return ours

    @contextmanager
    def preparing(self) -> Iterator[None]:
        self.prepares = True
        try:
            yield
        finally:
            self.prepares = False

    def get_nested_additional_models(self) -> list[ModelPatcher]:
        """Where sampling is prepared without low-noise experts: each is loaded when its first step comes, not beside the
        other. Else all: they belong to the prompt that runs, so what is pinned of them stays."""
        models = super().get_nested_additional_models()
        if not self.prepares:
            return models
        waiting = {low for model in (self, *models) for low in model.get_additional_models_with_key(LOW_NOISE)}
        return [model for model in models if model not in waiting]

    def deepclone_multigpu(
        self, new_load_device: torch.device | None = None, models_cache: dict[object, ModelPatcher] | None = None
    ) -> "MovaPatcher":
        made: MovaPatcher = super().deepclone_multigpu(new_load_device, models_cache)
        made.renew(self)
        if made.low is not None and devices.source(made) == devices.source(made.low):
            devices.share_sound(made.model.diffusion_model, made.low.model.diffusion_model)
        return made

    def match_multigpu_clones(self) -> None:
        super().match_multigpu_clones()
        for made in self.get_additional_models_with_key(COPIES):
            made.renew(self)
            if self.low is None or made.low is None:
                continue
            low = self.low.clone(model_override=made.low.get_clone_model_override())
            newer.on_device(low, made.load_device, low.offload_device)
            low.hook_backup = made.low.hook_backup
            low.renew(self.low)
            made.set_additional_models(LOW_NOISE, [low])

    # --- packed

    def patch_weight_to_device(self, key: str, *args: object, **kwargs: object) -> object:
        weight = comfy.utils.get_attr(self.model, key)
        return weight if patches_itself(weight) else super().patch_weight_to_device(key, *args, **kwargs)

    def load(self, *args: object, **kwargs: object) -> None:
        super().load(*args, **kwargs)
        for key, patches in self.patches.items():
            weight = comfy.utils.get_attr(self.model, key)
            if patches_itself(weight):
                weight.patches = [(patches, key)]

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        super().unpatch_model(device_to, unpatch_weights)
        for weight in self.model.parameters() if unpatch_weights else ():
            if patches_itself(weight):
                weight.patches = []


class MovaDynamicPatcher(MovaPatcher, ModelPatcherDynamic):
    """The same over ComfyUI's dynamic VRAM, which it has on cards alone."""

    def __new__(
        cls, model: BaseModel | None = None, load_device: torch.device | None = None, *args: object, **kwargs: object
    ) -> MovaPatcher:
        if load_device is not None and comfy.model_management.is_device_cpu(load_device):
            return MovaPatcher(model, load_device, *args, **kwargs)
        made: MovaPatcher = super().__new__(cls, model, load_device, *args, **kwargs)
        return made
