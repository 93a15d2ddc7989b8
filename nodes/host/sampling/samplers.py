"""ComfyUI's samplers on joint latents: shifts, schedules of both streams, and one run."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import comfy.model_base
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from torch import Tensor

from ....mova_core.errors import ConfigError, ShapeError
from ....mova_core.sampling.schedule import reshift, sigmas
from ....mova_core.shapes import VideoShape
from ..joint_latents import device, joint, streams
from ..keys import asking, run_options
from ..model.base_model import check_model
from ..model.bridge_cache import Keeping
from ..patching.patcher import MovaPatcher
from ..types import Latent
from .av_euler import av_euler

log = logging.getLogger("mova")
EXACT = "mova"
SAMPLERS = list(comfy.samplers.KSampler.SAMPLERS)
SCHEDULERS = [EXACT, *comfy.samplers.KSampler.SCHEDULERS]


def with_shifts(model: MovaPatcher, shift: float, audio_shift: float) -> MovaPatcher:
    """A clone of `model` whose video and audio schedules have these shifts.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    sampling = comfy.model_base.model_sampling(model.model.model_config, comfy.model_base.ModelType.FLOW_AV)
    sampling.set_parameters(shift=shift, audio_shift=audio_shift, multiplier=1000)
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


def shifts_of(
    model: MovaPatcher, shift: float, audio_shift: float, shape: VideoShape | None = None
) -> tuple[float, float]:
    """These shifts of video and audio, each 0 replaced by the model's own; the log says where it is run at others.

    `shape`: of the clip, for a model whose shift depends on it, and where no node has set one.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    own, settings = model.get_model_object("model_sampling"), model.model.model_config.sampling_settings
    usual = own_shift(model, shape), settings["audio_shift"] or settings["shift"]
    own_video = getattr(own, "shift", settings["shift"])
    if own_video == settings["shift"]:
        own_video = usual[0]
    video, audio = shift or own_video, audio_shift or getattr(own, "audio_shift", None) or own_video
    if (video, audio) != usual:
        log.info("shift %g for the picture, %g for the sound; this model is run at %g and %g", video, audio, *usual)
    return video, audio


def own_shift(model: MovaPatcher, shape: VideoShape | None) -> float:
    """The shift of the picture that the model is run with, at the size of a clip where its makers say so."""
    settings, variant = model.model.model_config, model.model.model_config.variant
    stated = settings.scheduler.shift
    if shape is None or stated != variant.scheduler.shift:  # another shift is written into the file
        return stated
    return variant.shift_at(shape.height, shape.width)


def schedule(model: MovaPatcher, scheduler: str, steps: int, shift: float, denoise: float) -> Tensor:
    """Sigmas of `steps` steps, the last of a longer run where `denoise` < 1; "mova" is upstream's schedule, exactly."""
    total = max(steps, int(steps / denoise))
    if scheduler == EXACT:
        values = sigmas(total, shift, model.model.model_config.scheduler.sigma_min)
    else:
        values = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, total)
    return values[-(steps + 1) :]


def audio_schedule(
    model: MovaPatcher, scheduler: str, steps: int, shift: float, audio_shift: float, denoise: float, substeps: int = 1
) -> Tensor:
    """The audio's sigmas at a shift of its own, `substeps` for each step; the last of a longer run where `denoise` < 1."""
    total = substeps * max(steps, int(steps / denoise))
    return reshift(schedule(model, scheduler, total, shift, 1.0), shift, audio_shift)[-(substeps * steps + 1) :]


def with_keeping(model: MovaPatcher, keeping: Keeping) -> MovaPatcher:
    """A clone of `model` whose runs keep what steps of the sound alone ask for."""
    changed = model.clone()
    options = changed.model_options
    given = options.get("transformer_options", {})
    asked = replace(keeping, eight_bits=run_options(given).eight_bits)
    options["transformer_options"] = asking(given, keeping=asked)
    return changed


def sampler_of(name: str, audio_values: Tensor | None = None, substeps: int = 1) -> comfy.samplers.KSAMPLER:
    """ComfyUI's sampler of this name; with `audio_values` one that walks the audio down these sigmas.

    Raises:
        ConfigError: a sampler that cannot walk two schedules.
    """
    if audio_values is None:
        return comfy.samplers.sampler_object(name)
    if name != "euler":
        raise ConfigError(
            f"sampler {name!r} knows one noise level, and with audio_denoise or audio_substeps the sound has another; "
            "choose euler, or audio_denoise 0 and audio_substeps 1"
        )
    return av_euler(audio_values, substeps)


Watcher = Callable[[int, Tensor, int], None]
"""Called as (step, denoised NestedTensor in the model's scale, steps) after each step; stops the run by raising."""


def sample(
    guider: comfy.samplers.CFGGuider,
    latent: Latent,
    *,
    seed: int,
    sampler: comfy.samplers.Sampler,
    values: Tensor,
    watchers: Sequence[Watcher] = (),
) -> Latent:
    """The LATENT after walking `values` (sigmas) with a SAMPLER; progress, preview and cancelling are ComfyUI's own."""
    video, audio = streams(latent)
    model = guider.model_patcher
    if audio.shape[1] != model.model.latent_format.audio_channels:
        raise ShapeError(
            f"the audio latent has {audio.shape[1]} channels, this model {model.model.latent_format.audio_channels}; "
            "make the latent with the VAE of the same 'MOVA Loader'"
        )
    samples = joint(video, audio)
    preview = latent_preview.prepare_callback(model, len(values) - 1)

    def callback(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        preview(step, denoised, x, steps)
        for watch in watchers:
            watch(step, denoised, steps)

    done = guider.sample(
        comfy.sample.prepare_noise(samples, seed, latent.get("batch_index")),
        samples,
        sampler,
        values,
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": done.to(device=device(), dtype=comfy.model_management.intermediate_dtype())}
