"""This machine and this MODEL in the terms of mova_core.training.forecast."""

import shutil

import comfy.model_management
import folder_paths
import torch

from ....mova_core.preflight import Machine
from ....mova_core.shapes import VideoShape
from ....mova_core.training.forecast import TrainingPlan
from ....mova_core.training.forecast import report as told
from ....mova_core.training.run import Settings
from ..keys import LOW_NOISE
from ..machine.preflight import link_rate, measured_speed
from ..model import memory
from ..patching.patcher import MovaPatcher


def report(model: MovaPatcher, settings: Settings, shape: VideoShape, clips: int, measure: bool) -> str:
    """What training will take here."""
    base = model.model
    experts = [model, *model.get_additional_models_with_key(LOW_NOISE)]
    layer = sum(p.numel() for module in base.diffusion_model.layer_modules()[0] for p in module.parameters())
    plan = TrainingPlan(
        config=base.sizes,
        settings=settings,
        shape=shape,
        clips=clips,
        weights=_bytes(_distinct(experts[: len(settings.experts)])),
        running=_bytes(_distinct([model])),
        layer=layer * base.element,
        element=base.element,
        audio_grid=base.latent_format.audio_grid,
        disk=float(shutil.disk_usage(folder_paths.get_output_directory()).free),
    )
    machine = Machine(
        device=comfy.model_management.get_torch_device_name(model.load_device),
        capacity=memory.capacity(model.load_device),
        memory=memory.host_capacity(),
        link=link_rate(model.load_device) if measure else None,
    )
    return told(plan, machine, measured_speed(model, plan.load.video) if measure else None)


def _distinct(patchers: list[MovaPatcher]) -> list[torch.Tensor]:
    """Weights of several experts, those that lie in the same memory once."""
    found = {}
    for patcher in patchers:
        for name, parameter in patcher.model.diffusion_model.named_parameters():
            shared = name.startswith(("audio_dit.", "dual_tower_bridge."))
            found[name if shared else (id(patcher), name)] = parameter
    return list(found.values())


def _bytes(parameters: list[torch.Tensor]) -> float:
    return float(sum(parameter.numel() * parameter.element_size() for parameter in parameters))
