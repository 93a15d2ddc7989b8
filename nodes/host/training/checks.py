"""Whether a run can be made of a MODEL and a data set here: what can be wrong is said before the first step."""

import comfy.model_management
import torch

from ....mova_core.checkpoint.experts import EXPERT_FOLDERS
from ....mova_core.errors import ConfigError, MovaError
from ....mova_core.estimate import Workload
from ....mova_core.preflight import GIB
from ....mova_core.sampling.schedule import Expert
from ....mova_core.shapes import VideoShape
from ....mova_core.training.budget import Budget, budget, kept
from ....mova_core.training.run import Settings
from ..experts.pair import OURS
from ..keys import LOW_NOISE, run_options
from ..model.memory import capacity
from ..patching.patcher import MovaPatcher
from . import data_set
from .weights import check_unpackable

MEMORY = ("auto", "normal", "low")


def experts_of(model: MovaPatcher, settings: Settings) -> dict[Expert, MovaPatcher]:
    """The patchers that a run needs.

    Raises:
        MovaError: the MODEL lacks an expert, or is patched, hooked, compiled, or packed in a way that cannot be undone.
    """
    lows = model.get_additional_models_with_key(LOW_NOISE)
    there: dict[Expert, MovaPatcher] = {"high": model, "low": lows[0]} if lows else {}
    if not lows:
        own: Expert | None = model.expert or (
            settings.experts[0] if len(set(settings.parts) & set(EXPERT_FOLDERS)) == 1 else None
        )
        if own is None:
            raise ConfigError("this MODEL is one expert without saying which; choose either high or low to train")
        there = {own: model}
    wanted = [expert for expert in settings.experts if expert in there]
    lacking = [part for part in settings.parts if part in EXPERT_FOLDERS and part not in there]
    if lacking:
        raise ConfigError(f"this MODEL lacks the {lacking[0]}-noise expert; connect both, or do not train that one")
    for patcher in there.values():
        check_untouched(patcher)
    return {expert: there[expert] for expert in wanted}


def check_untouched(patcher: MovaPatcher) -> None:
    """Accept a MODEL as a loader gives it.

    Raises:
        MovaError: LoRAs, hooks, compiled modules, block patches or wrappers of other nodes are on it.
    """
    options = patcher.model_options.get("transformer_options", {})
    wrappers = {key for kind in patcher.wrappers.values() for key in kind} | {
        key for kind in options.get("wrappers", {}).values() for key in kind
    }
    touched = {
        "LoRAs or merges": patcher.patches,
        "hooks": patcher.hook_patches,
        "LoRAs in bypass": patcher.injections,
        "block patches": options.get("patches") or options.get("patches_replace"),
        "replaced modules (torch.compile?)": set(patcher.object_patches) - {"model_sampling"},
        "wrappers (torch.compile, caches, context windows?)": wrappers - OURS,
        "hooks on its modules": any(_hooked(each) for each in patcher.model.diffusion_model.modules()),
        "a model function wrapper": patcher.model_options.get("model_function_wrapper"),
    }
    found = [what for what, value in touched.items() if value]
    if found:
        raise MovaError(
            f"this MODEL has {', '.join(found)}; training works on the model as it was loaded. Connect the MODEL of "
            "'MOVA Loader' or 'MOVA Model Loader' directly"
        )
    check_unpackable(patcher.model.diffusion_model)


def without_effect(patcher: MovaPatcher) -> list[str]:
    """What is on a MODEL for sampling alone."""
    asked = run_options(patcher.model_options.get("transformer_options", {}))
    found = {
        "bridge strength": asked.bridge,
        "sparse attention": asked.sparse,
        "another shift": "model_sampling" in patcher.object_patches,
    }
    return [what for what, value in found.items() if value]


def _hooked(module: torch.nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def budget_of(model: MovaPatcher, settings: Settings, shape: VideoShape, *, low: bool) -> Budget:
    """What a step on a clip of this shape needs of a device."""
    sizes, element = model.model.sizes, model.model.element
    weights = sum(p.numel() for module in model.model.diffusion_model.layer_modules()[0] for p in module.parameters())
    return budget(
        sizes,
        Workload.of(shape, grid=model.model.latent_format.audio_grid),
        layer=weights * element,
        parts=settings.parts,
        rank=settings.rank,
        layers=settings.layers,
        optimizer=settings.optimizer,
        low=low,
        element=element,
    )


def largest(data: data_set.DataSet) -> VideoShape:
    """The clip of a data set that needs most: the one of most tokens."""
    return max(map(_shape, data.clips), key=lambda shape: Workload.of(shape).video)


def _shape(clip: data_set.Clip) -> VideoShape:
    return VideoShape(batch=1, frames=clip.frames, height=clip.height, width=clip.width)


def chosen_path(model: MovaPatcher, settings: Settings, shape: VideoShape, memory: str) -> bool:
    """Whether the low path is taken.

    Raises:
        MovaError: not even that fits the device.
    """
    if memory == "normal" or comfy.model_management.is_device_cpu(model.load_device):
        return memory == "low"
    room = capacity(model.load_device)
    whole, low = (budget_of(model, settings, shape, low=low).device for low in (False, True))
    if low > room:
        raise MovaError(
            f"a step on {shape.frames} pictures of {shape.width}x{shape.height} needs {low / GIB:.1f} GiB of this device, "
            f"which has {room / GIB:.1f}: fewer pictures, a smaller size, a lower rank or adamw8bit would make it fit. "
            "'MOVA Training Budget' tells by how much"
        )
    return memory == "low" or whole > room


def host_memory(model: MovaPatcher, data: data_set.DataSet) -> float:
    """Bytes of the layers' inputs, of the clip that has most."""
    sizes, element = model.model.sizes, model.model.element
    grid = model.model.latent_format.audio_grid
    return max(kept(sizes, Workload.of(shape, grid=grid), element) for shape in {_shape(clip) for clip in data.clips})


def check_host_memory(needed: float) -> None:
    """Have so many bytes free; copies of weights that ComfyUI pinned for other runs are given back for it.

    Raises:
        MovaError: they are not to be had.
    """
    comfy.model_management.synchronize()
    comfy.model_management.ensure_pin_budget(needed, evict_active=True)
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MovaError(
            f"a step keeps {needed / GIB:.1f} GiB of layers' inputs in host memory, of which {free / GIB:.1f} are free: "
            "fewer pictures, a smaller size, or int8 weights leave more"
        )


def check_channels(model: MovaPatcher, data: data_set.DataSet) -> None:
    """Accept a data set that this model's encoders made.

    Raises:
        MovaError: its latents or prompts have other sizes.
    """
    sizes, clip = model.model.sizes, data.clips[0]
    kept, width = data_set.media(clip), data_set.context(clip.prompt).shape[-1]
    found = kept["video"].shape[1], kept["audio"].shape[1], width
    wanted = sizes.video.out_channels, sizes.audio.in_channels, sizes.video.text_width
    if found != wanted:
        raise MovaError(
            f"the data set has {found} channels of picture, sound and text, this MODEL {wanted}; make it with the VAEs and "
            "the CLIP of the same 'MOVA Loader'"
        )
