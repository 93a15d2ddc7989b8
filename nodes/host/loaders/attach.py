"""A video expert that another loader has loaded (ComfyUI's own, or one for GGUF) -> MOVA, with a shared file.

Such a loader knows the tower as Wan, whose layer names are ours. Its layers are taken over as they are, with whatever
way they keep and cast their weights; audio tower and bridge come from the file. The MODEL that came in is not changed.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.wan.model import WanModel
from comfy.model_patcher import ModelPatcher
from comfy.ops import CastWeightBiasOp
from torch import nn

from ....mova_core.checkpoint.fingerprint import expert_fingerprint
from ....mova_core.checkpoint.load import assign, shapes_of
from ....mova_core.checkpoint.source import Source, sound_of
from ....mova_core.checkpoint.variants import AUDIO, BRIDGE
from ....mova_core.config import TowerConfig
from ....mova_core.errors import CheckpointError, ConfigError
from ....mova_core.model.mova import Mova
from .. import newer
from ..experts import pair
from ..model.base_model import MovaModel
from ..model.settings import MovaSettings
from ..patching.patcher import MovaPatcher
from ..patching.self_patching import alias
from .loading import is_quantised, read, settings_of

TOWER_SIZES = {
    "width": "dim",
    "heads": "num_heads",
    "layers": "num_layers",
    "ffn_width": "ffn_dim",
    "in_channels": "in_dim",
    "out_channels": "out_dim",
    "text_width": "text_dim",
    "frequency_width": "freq_dim",
    "eps": "eps",
}


def attach(
    model: ModelPatcher, path: Path, bridge: Path | None = None, *, dynamic: bool = True
) -> tuple[MovaPatcher, tuple[str, ...]]:
    """A MOVA MODEL of one expert, and what could not be verified of it. ComfyUI may ask for it again where it may ask
    the other loader for `model` again.

    Raises:
        CheckpointError: the MODEL is no image-to-video expert of Wan's shape, is patched already, or the file is no
            shared file that fits it.
    """
    tower = model.model.diffusion_model
    sound = sound_of(path, _sizes(tower, type(model.model).__name__), bridge)
    if model.patches:
        raise CheckpointError("this MODEL is patched already; connect LoRAs after 'MOVA Attach Sound'")
    settings = settings_of(sound)
    tensors = sound.tensors(read=read)
    compute = model.model.get_dtype_inference()
    settings.set_inference_dtype(model.model.get_dtype(), compute)
    quantised = any(is_quantised(part) for part in tensors.values())
    if quantised:
        settings.quant_config = {"mixed_ops": True}
        settings.manual_cast_dtype = compute
    else:
        settings.custom_operations = comfy.ops.manual_cast
    joint = MovaModel(settings, device=torch.device("cpu" if quantised else "meta"))
    plain = Mova(sound.model, device="meta")
    for part, weights in tensors.items():
        assign(getattr(joint.diffusion_model, part), weights, str(path), shapes=shapes_of(getattr(plain, part)))
    _take_over(joint.diffusion_model, tower, settings)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    joint.device = offload
    comfy.model_management.archive_model_dtypes(joint.diffusion_model)
    disk = newer.disk_of(model)  # where the larger part lies
    made = pair.patcher(joint, device, offload, dynamic and model.is_dynamic(), **disk)
    if model.cached_patcher_init is not None:
        made.cached_patcher_init = (attached_again, (path, bridge, model.cached_patcher_init))
    return made, (*sound.notes, *_unverified(sound, tower))


Remade: TypeAlias = (
    tuple[Callable[..., ModelPatcher | tuple[ModelPatcher, ...]], Sequence[object]]
    | tuple[Callable[..., ModelPatcher | tuple[ModelPatcher, ...]], Sequence[object], int]
)
"""How another loader makes a MODEL again: function, arguments, and which of its outputs it is where it has several."""


def attached_again(path: Path, bridge: Path | None, source: Remade, disable_dynamic: bool = False) -> MovaPatcher:
    """The expert of `attach`, whose MODEL the other loader makes anew."""
    load, arguments, *place = source
    model = load(*arguments, disable_dynamic=disable_dynamic)
    return attach(model[place[0]] if place else model, path, bridge, dynamic=not disable_dynamic)[0]


def _sizes(tower: WanModel, kind: str) -> TowerConfig:
    try:
        sizes = {ours: getattr(tower, theirs) for ours, theirs in TOWER_SIZES.items()}
        return TowerConfig(patch=tuple(tower.patch_size), **sizes)
    except (AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"this MODEL is {kind}, not a video expert of Wan's shape; load video_dit or video_dit_2 of MOVA"
        ) from error


def _take_over(joint: Mova, tower: WanModel, settings: MovaSettings) -> None:
    """Give the video tower of `joint` copies of the layers of `tower`, and its modulations. Weights are shared."""
    theirs = dict(tower.named_modules())
    for name, module in list(joint.named_modules()):
        if name.startswith((AUDIO, BRIDGE)):
            continue
        for key in [key for key, value in module.named_parameters(recurse=False) if value is not None]:
            if key == "modulation":
                weight = getattr(theirs[name], key).detach()
                module.register_parameter(key, nn.Parameter(weight, requires_grad=False))
        if isinstance(module, LEAVES) or hasattr(module, "in_features"):
            joint.set_submodule(name, _copied(theirs[name]))


LEAVES = (nn.Conv3d, nn.LayerNorm, nn.RMSNorm)


def _copied(layer: nn.Module) -> nn.Module:
    """The layer with parameters of its own over the same memory. It casts weights to its input: float32 stays float32."""
    new: CastWeightBiasOp = copy.copy(layer)
    new._parameters = {
        key: None if value is None else nn.Parameter(alias(value), requires_grad=False)
        for key, value in layer._parameters.items()
    }
    new._buffers = dict(layer._buffers)
    new.comfy_cast_weights = True
    return new


def _unverified(sound: Source, tower: WanModel) -> tuple[str, ...]:
    found = expert_fingerprint(tower.head.modulation.detach().cpu())
    if found in sound.experts.values():
        return ()
    return (
        "Nothing says whether this expert is MOVA's or Wan 2.2's: they have the same shapes. Only MOVA's was trained "
        "beside sound.",
    )
