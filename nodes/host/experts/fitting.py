"""What a run is given, held against what MOVA can take, whatever sampler node gives it: noise, mask, sigmas, conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_sampling
import comfy.sample
import torch
from torch import Tensor

from ....mova_core.errors import MovaError, PatchError, ShapeError
from ....mova_core.inputs.latents import check_mask, check_streams
from ..checks import check_values
from ..types import Executor

TIMESTEPS = 1000
ROUNDING = 1e-4
SHIFT = "Leave that node out; 'ModelSamplingSD3', or shift of 'MOVA Sampler', sets the shift"


def fitting(
    executor: Executor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: object,
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    *rest: object,
    **more: object,
) -> object:
    """OUTER_SAMPLE, before anything is loaded.

    Raises:
        ShapeError: the latent is no picture with its sound, the noise is not one tensor a stream, or a mask beyond 0..1.
        PatchError: the MODEL's noise schedule is that of another kind of model.
        MovaError: sigmas beyond 1..0, or a condition that can lie over one stream alone.
    """
    guider = executor.class_obj
    check_schedule(guider.model_patcher.get_model_object("model_sampling"))  # type: ignore[attr-defined]
    check_sigmas(sigmas)
    shapes = more.get("latent_shapes") or [latent_image.shape]
    check_streams(shapes)  # type: ignore[arg-type]
    if noise.shape[1:] != latent_image.shape[1:] or len(noise) not in (1, len(latent_image)):
        raise ShapeError(_other_noise(noise, shapes))  # type: ignore[arg-type]
    if denoise_mask is not None:
        check_mask(denoise_mask)
    conds = guider.conds  # type: ignore[attr-defined]
    check_conditions(conds)
    asked = [kind for kind in conds if kind != "negative" or getattr(guider, "cfg", None) != 1]
    check_times({kind: conds[kind] for kind in asked}, guider.model_patcher.get_model_object("model_sampling"), sigmas)  # type: ignore[attr-defined]
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, *rest, **more)


def check_conditions(conds: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Accept conditions that say something, in values that can be computed with.

    Raises:
        MovaError: none of a kind, or what `check_values` refuses.
    """
    for kind, entries in conds.items():
        if not entries:
            raise MovaError(
                f"the {kind} CONDITIONING is empty: without a prompt the model is never asked. Connect that of 'MOVA Image "
                "to Video+Audio'"
            )
        for entry in entries:
            check_values(entry)


def check_times(conds: Mapping[str, Sequence[Mapping[str, Any]]], sampling: Any, sigmas: Tensor) -> None:
    """Accept prompts of which one is in force at each step.

    Raises:
        MovaError: at some step there is none, where ComfyUI takes a velocity of zero.
    """
    for kind, entries in conds.items():
        spans = [
            (
                sampling.percent_to_sigma(entry.get("start_percent", 0.0)),
                sampling.percent_to_sigma(entry.get("end_percent", 1.0)),
            )
            for entry in entries
        ]
        for step, sigma in enumerate(sigmas[:-1].tolist(), 1):
            if not any(start + ROUNDING >= sigma >= end - ROUNDING for start, end in spans):
                raise MovaError(
                    f"no {kind} prompt is in force at step {step} (sigma {sigma:.3g}): 'ConditioningSetTimestepRange' leaves "
                    "it out, and the clip would turn grey. Combine it with a prompt for the rest, or let the ranges meet"
                )


def check_schedule(sampling: object) -> None:
    """Accept a `model_sampling` of flow matching whose timesteps are MOVA's, 0 to 1000.

    Raises:
        PatchError: another one.
    """
    if not isinstance(sampling, comfy.model_sampling.CONST):
        raise PatchError(
            f"the noise schedule on this MODEL, {kinds(sampling)}, is for models that predict something else; MOVA predicts "
            f"the velocity of a flow. {SHIFT}"
        )
    last = float(sampling.timestep(torch.tensor(1.0)))  # type: ignore[attr-defined]
    if abs(last - TIMESTEPS) > 1:
        raise PatchError(
            f"the noise schedule on this MODEL, {kinds(sampling)}, counts timesteps to {last:g}, MOVA to {TIMESTEPS}. {SHIFT}"
        )


def kinds(thing: object) -> str:
    """Names of the classes that a thing is made of, without those that only put them together."""
    bases = [kind.__name__ for kind in type(thing).__mro__ if kind.__module__.startswith("comfy.")]
    return " and ".join(bases) or type(thing).__name__


def check_sigmas(sigmas: Tensor) -> None:
    """Accept noise levels of a flow: from 1, noise, to 0, clean, and not back to noise alone.

    Raises:
        MovaError: others.
    """
    low, high = float(sigmas.min()), float(sigmas.max())
    if sigmas.ndim != 1 or not (low >= 0 and high <= 1 + ROUNDING):  # NaN fails both
        raise MovaError(
            f"the sigmas of this run are {tuple(sigmas.shape)} numbers from {low:g} to {high:g}; MOVA's go from 1 to 0. Use "
            "'BasicScheduler' with this MODEL: schedulers that ask for sigma_max, or are named after a model, are for others"
        )
    if sigmas[-1] > 1 - ROUNDING:
        raise MovaError(
            f"the last sigma of this run is {float(sigmas[-1]):g}, noise alone: no clip can be given back. Let the run end "
            "at a lower one"
        )


def _other_noise(noise: Tensor, shapes: Sequence[Sequence[int]]) -> str:
    maker = comfy.sample.prepare_noise.__module__
    whose = (
        "a NOISE node that knows one stream made it, or a batch_index of another batch. Use 'RandomNoise'"
        if maker == "comfy.sample"
        else f"it is made by {maker} in place of ComfyUI, which knows one stream. Leave that other pack out, or update it"
    )
    return (
        f"the noise is {noise.numel()} numbers and not one for each of this latent's streams "
        f"({', '.join(str(tuple(shape)) for shape in shapes)}): {whose}"
    )
