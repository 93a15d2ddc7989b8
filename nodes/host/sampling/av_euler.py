"""A ComfyUI sampler for streams that start at different noise levels: Euler steps on a schedule for each.

ComfyUI's samplers know one sigma for the whole latent. A shift of its own is scaled onto that (see `av_schedule.py`), another
start is not, so here the audio's sigma goes to the model beside the video's, and the audio stays as it is.
The core's `sampling.sampler.denoise` does the same without a host.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import comfy.samplers
import comfy.utils
import torch
from comfy.samplers import KSamplerX0Inpaint
from torch import Tensor

from ..keys import Options, asking
from ..model.bridge_cache import BridgeCache, cache_of


class AtSteps:
    """Who looks in at the beginning of each step, where the latent is all that a run needs to go on; may begin it later."""

    def begin(self, x: Tensor) -> tuple[int, Tensor]:
        """The step to begin with, and the latent there; `x` is that of the first."""
        return 0, x

    def keep(self, step: int, x: Tensor) -> None:
        """The latent with which `step` begins."""


NOBODY = AtSteps()
Callback: TypeAlias = Callable[[Options], None] | None


def told(callback: Callback, x: Tensor, step: int, sigmas: Tensor, denoised: Tensor) -> None:
    """What ComfyUI's samplers tell of a step."""
    if callback is not None:
        callback({"x": x, "i": step, "sigma": sigmas[step], "sigma_hat": sigmas[step], "denoised": denoised})


def av_euler(audio_sigmas: Tensor, substeps: int = 1) -> comfy.samplers.KSAMPLER:
    """A SAMPLER that walks the video down the sigmas it is given and the audio down these.

    The audio has `substeps` times as many steps. The first of each group is the full evaluation's; in the others the audio
    tower runs alone and hears the video as it did in that.
    """

    def sample(
        model: KSamplerX0Inpaint,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callback = None,
        disable: bool | None = None,
        at_steps: AtSteps = NOBODY,
    ) -> Tensor:
        pairs = torch.stack((sigmas.cpu(), audio_sigmas[::substeps])).T.tolist()  # (video, audio) of each step
        fine = audio_sigmas.tolist()
        cache = cache_of(extra_args["model_options"]) if substeps > 1 else None
        with AVSteps(model, extra_args, cache) as run:
            first, x = at_steps.begin(run.start(x, *pairs[0]))
            for step in comfy.utils.model_trange(first, len(pairs) - 1, disable=disable):
                at_steps.keep(step, x)
                here, there = pairs[step], pairs[step + 1]
                denoised = run.denoised(x, *here)
                told(callback, x, step, sigmas, denoised)
                group = fine[step * substeps : (step + 1) * substeps + 1]
                x = run.step(x, denoised, here, [there[0], group[1]])
                for begin, end in pairwise(group[1:]):
                    x = run.audio_step(x, here[0], begin, end)
        return x

    return comfy.samplers.KSAMPLER(sample)


class AVSteps:
    """The packed latent of one run, seen as two streams at noise levels of their own.

    After the run, what the sound's steps have left on the device is given back.
    """

    def __init__(self, model: KSamplerX0Inpaint, extra_args: Options, cache: BridgeCache | None) -> None:
        """`model` is the KSamplerX0Inpaint that ComfyUI gives its sampler functions."""
        self.cache = cache
        self.guider, self.noise, self.latent = model.inner_model, model.noise, model.latent_image
        self.mova, self.sigmas = model.inner_model.inner_model, model.sigmas
        self.options, self.seed = extra_args["model_options"], extra_args.get("seed")
        self.mask: Tensor | None = extra_args.get("denoise_mask")

    def __enter__(self) -> "AVSteps":
        return self

    def __exit__(self, *_: object) -> None:
        if self.cache is not None:
            self.cache.weights.release()

    def start(self, x: Tensor, sigma: float, audio_sigma: float) -> Tensor:
        """ComfyUI has noised both streams to the video's level."""
        audio = self.mova.model_sampling.noise_scaling(torch.tensor(audio_sigma).to(x), self.noise, self.latent)
        return self.joined(x, audio)

    def denoised(self, x: Tensor, sigma: float, audio_sigma: float, **asked: object) -> Tensor:
        """The guided clean estimate; where the mask keeps the latent, the latent. `asked`: more `RunOptions`."""
        levels = [x.new_full((x.shape[0],), level) for level in (sigma, audio_sigma)]
        keep = None if self.mask is None else 1.0 - self._mask(levels[0], self.mask)
        if keep is not None:
            given = {"x": x, "noise": self.noise, "latent_image": self.latent, "denoise_mask": 1.0 - keep}
            noised = self.joined(*(self.mova.scale_latent_inpaint(sigma=level, **given) for level in levels))
            x = x + keep * (noised - x)
        more = {"audio_sigma": audio_sigma, "bridge_cache": self.cache, **asked}
        options = {**self.options, "transformer_options": asking(self.options.get("transformer_options", {}), **more)}
        full = asked.get("forward", "full") == "full"
        predict = self.guider if full else self.guider.predict_noise  # past wrappers that would take it for a step
        out: Tensor = predict(x, levels[0], options, self.seed)
        return out if keep is None else out + keep * (self.latent - out)

    def step(self, x: Tensor, denoised: Tensor, here: list[float], there: list[float]) -> Tensor:
        """x + velocity * (next sigma - sigma), each stream by its own."""
        video, audio = (x + (x - denoised) * (end / begin - 1.0) for begin, end in zip(here, there))
        return self.joined(video, audio)

    def audio_step(self, x: Tensor, sigma: float, begin: float, end: float, **asked: object) -> Tensor:
        """The audio alone from `begin` to `end`, the video and what is heard of it as at `sigma`."""
        denoised = self.denoised(x, sigma, begin, forward="audio", **asked)
        return self.joined(x, x + (x - denoised) * (end / begin - 1.0))

    def _mask(self, sigma: Tensor, mask: Tensor) -> Tensor:
        function = self.options.get("denoise_mask_function")
        if function is None:
            return mask
        return function(sigma, mask, extra_options={"model": self.guider, "sigmas": self.sigmas})

    def joined(self, of_video: Tensor, of_audio: Tensor) -> Tensor:
        """The video stream of one packed latent with the audio stream of another."""
        shapes = self.mova.latent_shapes
        video, _ = comfy.utils.unpack_latents(of_video, shapes)
        _, audio = comfy.utils.unpack_latents(of_audio, shapes)
        return comfy.utils.pack_latents([video, audio])[0]
