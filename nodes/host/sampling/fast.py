"""Few steps with a distilled model and a sound that keeps its words: the recipe of `mova_core.sampling.fast`, hosted."""

import logging
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ....mova_core.errors import ConfigError
from ....mova_core.estimate import FULL, Throughput, Workload, recipe_work
from ....mova_core.preflight import GIB, format_duration
from ....mova_core.sampling.fast import Recipe, audio_steps_between
from ....mova_core.sampling.guidance import Guidance
from ....mova_core.sampling.schedule import Span
from ....mova_core.shapes import VideoShape, latent_frames, video_tokens
from .. import joint_latents
from ..keys import Options, run_options
from ..machine import profiling
from ..machine.preflight import measured_speed
from ..model import memory, sparse
from ..model.base_model import check_model
from ..model.bridge_cache import Keeping, cache_of
from ..model.pass_weights import PassWeights, two_passes
from ..patching.patcher import MovaPatcher
from ..types import Conditioning, Conditions, Latent
from . import guiders, long_runs, samplers
from .av_euler import NOBODY, AtSteps, AVSteps, Callback, told
from .long_runs import Node

Evaluated: TypeAlias = comfy.samplers.KSamplerX0Inpaint

log = logging.getLogger("mova")
DISTILLED_SHIFT = 5.0  # of the picture's schedule, that the distillation LoRAs know
Phase = Callable[[int, str], None]
"""Called as (step, what runs) before each part of a step."""


def sample_fast(
    model: MovaPatcher,
    teacher: MovaPatcher | None,
    conds: tuple[Conditioning, Conditioning],
    latent: Latent,
    recipe: Recipe,
    seed: int,
    node: Node = long_runs.NOWHERE,
    kept: long_runs.StepKeeping = long_runs.NOT_KEPT,
) -> Latent:
    """The LATENT made by `recipe`. `conds`: positive and negative; `kept`: how the run is kept on its way.

    Raises:
        ConfigError, PatchError, ShapeError: the inputs do not fit the recipe, the model or each other.
    """
    check_model(model)
    inputs = {"model": model, "positive": conds[0], "negative": conds[1], "recipe": recipe, "seed": seed}
    run, weights = model, None
    if recipe.teacher is not None:
        if teacher is None:
            raise ConfigError(
                "this quality needs a teacher: connect the MODEL as it was before the distillation LoRAs, or choose light"
            )
        check_model(teacher)
        run, own, taught = two_passes(model, teacher)
        weights, inputs = (own, taught), {**inputs, "teacher": teacher}
    way = "steps" if recipe.substeps else "start"
    long_run = long_runs.long_run(inputs, latent, way, kept, node, model.model_options)
    sample = partial(_sampled, run, weights, conds, latent, recipe, seed, node.node_id, long_run)
    return sample() if long_run is None else long_run.completed(lambda: (sample(), seed))[0]


def _sampled(
    model: MovaPatcher,
    weights: tuple[PassWeights, PassWeights] | None,
    conds: tuple[Conditioning, Conditioning],
    latent: Latent,
    recipe: Recipe,
    seed: int,
    node_id: str | None,
    long_run: long_runs.LongRun | None,
) -> Latent:
    shifts = shifts_of(model, recipe, joint_latents.video_shape(latent))
    steps = recipe.steps
    shifted = samplers.with_shifts(model, shifts[0], shifts[0] if recipe.substeps else shifts[1])
    values = samplers.schedule(shifted, samplers.EXACT, steps, shifts[0], 1.0)
    guidance = Guidance(
        text_scale=recipe.text_scale, audio_text_scale=recipe.audio_scale, bridge_scale=recipe.bridge_scale
    )
    if recipe.substeps:
        shifted = samplers.with_keeping(shifted, Keeping(teacher=recipe.teacher))
        guidance = Guidance(text_scale=recipe.text_scale)  # scales come with each evaluation
    guider = guiders.guider(shifted, *conds, guidance, Span())
    said = cost(shifted, latent, recipe)
    log.info("%s", said)
    beside = [said] if long_run is None else long_run.lines
    progress = profiling.Progress(shifted.load_device, node_id, lambda: "\n".join(dict.fromkeys([said, *beside])))
    sampler = comfy.samplers.sampler_object("euler")
    if recipe.substeps:
        audio_values = samplers.audio_schedule(shifted, samplers.EXACT, steps, *shifts, 1.0)
        sampler = fast_euler(recipe, audio_values, weights, progress.phase)
    sampler = sampler if long_run is None else long_run.around(sampler)
    return samplers.sample(guider, latent, seed=seed, sampler=sampler, values=values, watchers=[progress])


def shifts_of(model: MovaPatcher, recipe: Recipe, shape: VideoShape) -> tuple[float, float]:
    """The model's own, but for the picture of a distilled model, where nobody has set another."""
    video, audio = samplers.shifts_of(model, 0, 0, None if recipe.substeps else shape)
    own = model.model.model_config.sampling_settings["shift"]
    return (DISTILLED_SHIFT if recipe.substeps and video == own else video), audio


def cost(model: MovaPatcher, latent: Latent, recipe: Recipe) -> str:
    """What a run will take on this machine, in a line."""
    base, options = model.model, model.model_options.get("transformer_options", {})
    shape = joint_latents.video_shape(latent)
    load = Workload(video=video_tokens(shape), audio=joint_latents.streams(latent)[1].shape[-1], batch=shape.batch)
    rows = run_options(options).chunks or FULL
    kept = memory.kept_bytes(model, load, options)
    parts = [f"{recipe.evaluations} forwards"]
    if recipe.teacher is not None:
        parts.append(f"{recipe.steps} of the teacher from layer {recipe.teacher}")
    if recipe.substeps:
        parts.append(f"{recipe.steps * recipe.substeps} steps of the sound")
    attended = sparse.attended(run_options(options).sparse, latent_frames(shape.frames))
    done = recipe_work(base.sizes, load, recipe, attended)
    speed: Throughput = measured_speed(model, load.video)
    seconds = speed.matrix * done.matrix + speed.attention * done.attention
    parts.append(f"about {format_duration(seconds)} of computing")
    if sparse.is_comfys(options):
        parts[-1] += ", if 'Model Sparse Attention' left nothing out"
    needed = base.required(load, sparse.whole_queries(rows, options)) / GIB
    parts.append(f"{needed:.1f} GiB of VRAM with weights streamed")
    if kept:
        parts.append(f"{kept / GIB:.1f} GiB more for the sound, there or in host memory")
    return ", ".join(parts)


def check_negative(recipe: Recipe, negative: Conditions | None) -> None:
    """Raises ConfigError where the sound is to be guided by a negative that is more than one prompt."""
    if recipe.audio_scale != 1 and guiders.one_prompt(negative) is None:
        raise ConfigError(
            "the sound is guided by one negative prompt for the whole clip and run; connect a negative without areas, "
            "time ranges or combined prompts"
        )


def fast_euler(
    recipe: Recipe, audio_sigmas: Tensor, weights: tuple[PassWeights, PassWeights] | None, phase: Phase
) -> comfy.samplers.KSAMPLER:
    """A SAMPLER: Euler steps of the picture, and in each `recipe.substeps` of the sound.

    `weights`: what the model wears, and its teacher; None where there is no teacher.
    """
    own, taught = weights or (None, None)
    fine = audio_steps_between(audio_sigmas, recipe.substeps).tolist()

    def sample(
        model: Evaluated,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callback = None,
        disable: object = 0,
        at_steps: AtSteps = NOBODY,
    ) -> Tensor:
        guider = model.inner_model
        check_negative(recipe, guider.conds.get("negative"))
        only = frozenset(cond["uuid"] for cond in guider.conds["positive"])
        pairs = torch.stack((sigmas.cpu(), audio_sigmas)).T.tolist()  # (video, audio) of each step
        cache = cache_of(extra_args["model_options"], only)
        with AVSteps(model, extra_args, cache) as run:
            first, x = at_steps.begin(run.start(x, *pairs[0]))
            for step in comfy.utils.model_trange(first, recipe.steps, disable=disable):
                at_steps.keep(step, x)
                here, there = pairs[step], pairs[step + 1]
                phase(step, "picture")
                denoised = run.denoised(x, *here, text_scale=recipe.text_scale_at(step), audio_scale=None, weights=own)
                told(callback, x, step, sigmas, denoised)
                if recipe.teacher is not None:
                    phase(step, "teacher")
                    run.denoised(x, *here, forward="teacher", text_scale=1.0, weights=taught)
                sound, group = x, fine[step * recipe.substeps : (step + 1) * recipe.substeps + 1]
                for count, (begin, end) in enumerate(pairwise(group), 1):
                    phase(step, f"sound {count} of {recipe.substeps}")
                    asked = {"text_scale": 1.0, "audio_scale": recipe.audio_scale, "weights": own}
                    sound = run.audio_step(sound, here[0], begin, end, **asked)
                x = run.joined(run.step(x, denoised, here, there), sound)
        return x

    return comfy.samplers.KSAMPLER(sample)
