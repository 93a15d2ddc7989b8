"""What every run on MOVA goes through, with whatever sampler node: wrappers that a MODEL carries from the beginning.

fitting    fitting.py: what a run is given is such as MOVA can take
plan       memory.py: how much memory it may take
renew      step_caches.py: caches begin anew when the expert changes
explained  foreign.py: what another pack put on the MODEL and does not fit is named
finite     a run ends at the first step that is not finite
kept       what a mask keeps is put back at the end; an expert on the other side of the boundary is told of,
           and what has no effect (unasked.py)
look       so is what a step of another pack brings in without effect
"""

from typing import Any

import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ....mova_core.errors import NotFiniteError, PatchError
from .. import messages
from ..keys import EVERY_RUN, Options, asking, run_options
from ..machine import bug_report
from ..model.base_model import MovaModel
from ..model.memory import plan
from ..patching.foreign import explained
from ..patching.namesakes import named
from ..patching.patcher import MovaPatcher
from ..types import Executor
from .fitting import fitting
from .step_caches import renew
from .unasked import Unasked

PRECISION = (
    "Leave out flags that lower precision, choose weight_dtype bf16 or fp32, or take away what was put on the MODEL; if it "
    "stays, a file may be damaged: 'MOVA Bug Report' tells their fingerprints"
)


def carry(patcher: MovaPatcher) -> MovaPatcher:
    """`patcher` with the wrappers above."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, EVERY_RUN, fitting)
    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, EVERY_RUN, plan)
    for wrapper in (renew, explained, finite):  # first of their kind, so outermost
        patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, EVERY_RUN, wrapper)
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, EVERY_RUN, kept)
    patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, EVERY_RUN, look)
    return patcher


def finite(executor: Executor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
    """PREDICT_NOISE.

    Raises:
        NotFiniteError: the denoised latent is not finite.
        PatchError: it is of another shape.
    """
    out = executor(x, timestep, model_options, seed)
    if out.shape != x.shape:
        functions = [model_options.get("sampler_cfg_function"), *model_options.get("sampler_post_cfg_function", ())]
        who = ", ".join(named(function) for function in functions if function is not None) or "something"
        raise PatchError(
            f"{who}, put on this MODEL, makes {tuple(out.shape)} of a latent of {tuple(x.shape)}; it is for another model"
        )
    if not all_finite(out):
        patcher = executor.class_obj.model_patcher  # type: ignore[attr-defined]
        when = f"at sigma {float(timestep.max()):.4g}"
        if not all_finite(x):
            raise NotFiniteError(
                f"what the model was given {when} holds NaN or infinite numbers: its latent, its noise, or what a sampler "
                "or guider made of them"
            )
        raise NotFiniteError(
            f"{expert_in_words(patcher)} gave NaN or infinite numbers {when}, {_with(patcher)}. {PRECISION}"
        )
    return out


def kept(
    executor: Executor,
    guider: CFGGuider,
    sigmas: Tensor,
    extra_args: Options,
    callback: object,
    noise: Tensor,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    *rest: object,
    **more: object,
) -> Tensor:
    """SAMPLER_SAMPLE.

    Raises:
        NotFiniteError: the result is not finite.
    """
    model, patcher = guider.inner_model, guider.model_patcher
    idle = Unasked(guider.model_options, guider.conds, len(model.diffusion_model.blocks), messages.warn)
    extra_args = _looked_at(extra_args, idle)
    if message := wrong_side(patcher, sigmas, _clean(model, denoise_mask)[0]):
        messages.warn(message)
    whole = float(sigmas[-1]) == 0  # before: uni_pc writes into them
    given = None if latent_image is None or denoise_mask is None else (latent_image.clone(), denoise_mask.clone())
    samples = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *rest, **more)
    if samples.shape != noise.shape:
        raise PatchError(
            f"this sampler made {tuple(samples.shape)} of a latent of {tuple(noise.shape)}: it is for another model. Use another"
        )
    if not all_finite(samples):
        raise NotFiniteError(
            f"{expert_in_words(patcher)} and this sampler ended in NaN or infinite numbers, {_with(patcher)}. {PRECISION}"
        )
    if given is None or len(sigmas) < 2:
        return samples
    latent_image, denoise_mask = given  # as they came, whatever the sampler wrote into them
    streams = zip(_clean(model, denoise_mask), comfy.utils.unpack_latents(denoise_mask, model.latent_shapes))
    if whole:
        keep = denoise_mask == 0
    else:  # the run goes on elsewhere: what was shown clean stays clean, the rest is noised along
        keep = comfy.utils.pack_latents([torch.full_like(mask, clean) for clean, mask in streams])[0].bool()
    return torch.where(keep, latent_image.to(samples), samples)


def _looked_at(extra_args: Options, idle: Unasked) -> Options:
    """A copy of a sampler's arguments whose evaluations are looked at by `idle`."""
    options = extra_args.get("model_options") or {}
    looked = {**options, "transformer_options": asking(options.get("transformer_options", {}), idle=idle)}
    return {**extra_args, "model_options": looked}


def look(executor: Executor, *args: object, **kwargs: Any) -> Any:
    """APPLY_MODEL."""
    options: Options = kwargs.get("transformer_options") or (args[5] if len(args) > 5 else {})  # type: ignore[assignment]
    if (idle := run_options(options).idle) is not None:
        idle.look(options)
    return executor(*args, **kwargs)


def all_finite(x: Tensor) -> bool:
    """Whether every number of a tensor is finite; one pass over it as a rule."""
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())


def _clean(model: MovaModel, mask: Tensor | None) -> tuple[bool, bool]:
    clean: tuple[bool, bool] = model.clean_streams(mask, model.latent_shapes)
    return clean


def wrong_side(patcher: MovaPatcher, sigmas: Tensor, clean_video: bool = False) -> str | None:
    """What to say where a single expert is asked for steps of the other one; None where it is not, or nothing says which
    it is. A video that is shown clean, at timestep 0, is the low-noise expert's throughout."""
    if patcher.low is not None or patcher.expert is None:
        return None
    boundary = patcher.model.model_config.scheduler.boundary
    steps = [clean_video or bool(sigma * 1000.0 < boundary * 1000.0) for sigma in sigmas[:-1]]
    wrong = steps.count(patcher.expert == "high")
    if not wrong:
        return None
    share = "all steps" if wrong == len(steps) else f"{wrong} of {len(steps)} steps"
    side = "below" if patcher.expert == "high" else "above"
    return (
        f"This is the {patcher.expert}-noise expert, and {share} of this run are {side} its boundary (sigma {boundary:g}), "
        "where the other one was trained. Are two samplers the wrong way round, or is one expert used for all steps? "
        "'MOVA Join Experts' makes one MODEL that changes by itself"
    )


def expert_in_words(patcher: MovaPatcher) -> str:
    expert = getattr(patcher.active or patcher, "expert", None)
    return "the model" if expert is None else f"the {expert}-noise expert"


def _with(patcher: MovaPatcher) -> str:
    """Precision and flags."""
    model = (patcher.active or patcher).model
    flags = ", ".join(bug_report.flags()) or "none"
    return f"with weights in {bug_report.dtypes(model.diffusion_model)}, computing in {_short(model.get_dtype_inference())}, flags: {flags}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
