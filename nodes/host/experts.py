"""Two experts behind one MODEL. Each has its ModelPatcher; the high-noise one is the MODEL and knows the other.

A step whose video sigma is below the boundary is evaluated by the low-noise expert, which ComfyUI loads when its first
step comes. Patches, hooks and object patches put on the MODEL reach both, so no LoRA is half applied.
"""

import inspect
from functools import cache
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY, TORCH_COMPILE_KWARGS, set_torch_compile_wrapper

from . import newer
from .devices import BY_DEVICE, COPIES, OnDevices
from .lora_names import EXPERT, LOW, ByName
from .memory import plan
from .model import CLEAN_STREAMS
from .self_patching import SelfPatchingWeights
from .step_caches import BOUNDARY, renew

EVERY_RUN = "mova_every_run"  # key of the wrappers that a MODEL carries from the beginning


class _BothWeights(list[Any]):
    """A weight of the high-noise expert with its patches, as merging nodes take it, and the low-noise expert's."""

    def __init__(self, high: list[Any], low: list[Any]) -> None:
        super().__init__(high)
        self.low = low


class _Experts:
    """Mixed into a ModelPatcher class: what is done to the MODEL is done to the low-noise expert too."""

    active: Any = None  # the patcher whose weights were loaded last in this run

    @property
    def low(self) -> Any:
        models = self.get_additional_models_with_key(LOW)
        return models[0] if models else None

    def add_patches(self, patches: Any, strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """Also patches the low-noise expert: in a merge with its like, and not at all in a merge with a single expert."""
        applied = set(super().add_patches(patches, strength_patch, strength_model))
        if self.low is not None:
            shared = {
                key: getattr(value, "low", value)
                for key, value in patches.items()
                if isinstance(value, _BothWeights) or not isinstance(value, list)
            }
            if shared:
                applied |= set(self.low.add_patches(shared, strength_patch, strength_model))
        return list(applied)

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list[Any]]:
        high = super().get_key_patches(filter_prefix)
        if self.low is None:
            return high
        low = self.low.get_key_patches(filter_prefix)
        return {key: _BothWeights(value, low[key]) for key, value in high.items()}

    def add_object_patch(self, name: str, obj: Any) -> None:
        super().add_object_patch(name, obj)
        if self.low is not None and name != "model_sampling":  # the run's schedule is the high-noise expert's
            self.low.add_object_patch(name, obj)

    def set_model_compute_dtype(self, dtype: Any) -> None:
        super().set_model_compute_dtype(dtype)
        if self.low is not None:
            self.low.set_model_compute_dtype(dtype)

    def register_all_hook_patches(
        self, hooks: Any, target_dict: Any, model_options: Any = None, registered: Any = None
    ) -> Any:
        known = super().register_all_hook_patches(hooks, target_dict, model_options, registered)
        if self.low is not None:  # after this one, which begins by restoring both
            self.low.register_all_hook_patches(hooks, target_dict, model_options)
        return known

    def restore_hook_patches(self) -> None:
        super().restore_hook_patches()
        if self.low is not None:
            self.low.restore_hook_patches()

    def clone(self, disable_dynamic: bool = False, model_override: Any = None, force_deepcopy: bool = False) -> Any:
        """As ModelPatcher's. Without dynamic VRAM it is a patcher of our kind still, and so is the low-noise expert."""
        made = super().clone(disable_dynamic, model_override, force_deepcopy)
        plain = disable_dynamic and self.is_dynamic()
        if plain:
            made.__class__ = _patcher_class(comfy.model_patcher.ModelPatcher)
        if self.low is not None and (plain or force_deepcopy):
            low = self.low.get_non_dynamic_delegate() if plain else self.low.clone(force_deepcopy=True)
            made.set_additional_models(LOW, [low])
        return made

    def pre_run(self) -> None:
        super().pre_run()
        self.active = self
        if self.low is not None:  # nodes that choose a device set the MODEL's alone
            newer.on_device(self.low, self.load_device, self.offload_device)

    def cleanup(self) -> None:
        self.active = None
        super().cleanup()
        if self.low is not None:
            self.low.cleanup()

    def activate(self, expert: Any, shape: Any) -> None:
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


@cache
def _patcher_class(base: type) -> type:
    return type("MovaPatcher", (ByName, _Experts, OnDevices, SelfPatchingWeights, base), {})


def patcher(model: Any, load_device: Any, offload_device: Any, dynamic: bool = True, **disk: bool) -> Any:
    """A ModelPatcher for one expert, of the kind ComfyUI uses on this machine; `disk` as `newer.disk` says."""
    plain = not dynamic or comfy.model_management.is_device_cpu(load_device)
    base = comfy.model_patcher.ModelPatcher if plain else comfy.model_patcher.CoreModelPatcher
    made = _patcher_class(base)(model, load_device=load_device, offload_device=offload_device, **disk)
    kinds = comfy.patcher_extension.WrappersMP
    made.add_wrapper_with_key(kinds.PREPARE_SAMPLING, EVERY_RUN, plan)
    made.add_wrapper_with_key(kinds.PREDICT_NOISE, EVERY_RUN, renew)  # first of its kind, so outermost
    return made


def join(high: Any, low: Any, boundary: float) -> Any:
    """One MODEL of two experts that changes at `boundary` (video sigma, strict)."""
    joined, low = high.clone(), low.clone()
    low.remove_additional_models(COPIES)  # the MODEL's copies get copies of this expert
    joined.set_additional_models(LOW, [low])
    joined.set_attachments(EXPERT, "high")
    low.set_attachments(EXPERT, "low")
    joined.set_attachments(BOUNDARY, boundary)
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    joined.remove_wrappers_with_key(kind, LOW)
    joined.add_wrapper_with_key(kind, LOW, route)
    return joined


def split(model: Any) -> tuple[Any, Any]:
    """The high-noise and the low-noise expert of a joined MODEL, each a MODEL of its own.

    Raises:
        ValueError: the MODEL holds one expert.
    """
    low = model.get_additional_models_with_key(LOW)
    if not low:
        raise ValueError("this MODEL holds one expert, there is nothing to split; connect the MODEL of 'MOVA Loader'")
    high = model.clone()
    high.remove_additional_models(LOW)
    for copy in high.get_additional_models_with_key(COPIES):
        copy.remove_additional_models(LOW)
    high.remove_attachments(BOUNDARY)
    high.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, LOW)
    return high, low[0].clone()


def route(executor: Any, model: Any, conds: Any, x_in: Any, timestep: Any, model_options: Any) -> Any:
    """Evaluate the step with the expert its noise level belongs to, on every device. `timestep` is the video sigma, 1..0."""
    patcher = model.current_patcher
    below = bool((timestep * 1000.0).max() < patcher.get_attachment(BOUNDARY) * 1000.0)
    low = below or _video_is_clean(conds)
    copies = model_options.get(BY_DEVICE, {})
    experts = {each: each.low if low else each for each in (patcher, *copies.values())}
    for each, expert in experts.items():
        each.activate(expert, [2 * x_in.shape[0], *x_in.shape[1:]])
    if copies:
        model_options = {**model_options, BY_DEVICE: {device: experts[each] for device, each in copies.items()}}
    if low:
        model_options = _with_own_compiled(patcher, patcher.low, model_options)
    return executor(experts[patcher].model, conds, x_in, timestep, model_options)


def _with_own_compiled(patcher: Any, low: Any, model_options: dict[str, Any]) -> dict[str, Any]:
    """What was compiled of the high-noise expert would run in the low-noise one's place: compile its own instead."""
    kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
    theirs = patcher.get_wrappers(kind, COMPILE_KEY)
    if not theirs:
        return model_options
    if not low.get_wrappers(kind, COMPILE_KEY):
        modules = inspect.getclosurevars(theirs[-1]).nonlocals["compiled_module_dict"]
        set_torch_compile_wrapper(low, keys=list(modules), **patcher.model_options[TORCH_COMPILE_KWARGS])
    options = model_options["transformer_options"]
    own = {**options["wrappers"][kind], COMPILE_KEY: low.get_wrappers(kind, COMPILE_KEY)}
    return {**model_options, "transformer_options": {**options, "wrappers": {**options["wrappers"], kind: own}}}


def _video_is_clean(conds: Any) -> bool:
    """Whether the model is shown a held video, at timestep 0, whatever the sampler's noise level."""
    return any(cond["model_conds"][CLEAN_STREAMS].cond[0] for entries in conds if entries for cond in entries)
