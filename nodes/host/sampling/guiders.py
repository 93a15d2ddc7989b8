"""Guidance and bridge strength on a MODEL, in ComfyUI's terms.

Equation 6 of the paper is an affine combination of predictions with weights that add up to 1, so it holds alike for
velocities, for denoised latents (x - sigma * velocity), and for an audio stream scaled onto the video's schedule.
Written as text guidance plus s_B - 1 times (negative with the bridge - negative without), its first part is
ComfyUI's own: what other nodes put into text guidance keeps working, and the bridge's part is added to it.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace

import comfy.samplers
import comfy.utils
from torch import Tensor

from ....mova_core.sampling.bridge_strength import ALL_STEPS, BridgeStrength
from ....mova_core.sampling.guidance import Guidance, rescale_guidance
from ....mova_core.sampling.schedule import Span
from ..keys import AUDIO_NEGATIVE, Options, RunOptions, asking, run_options
from ..model.base_model import check_model
from ..patching.patcher import MovaPatcher
from ..types import Conditioning, Conditions, Values

PARTIAL = {"timestep_start", "timestep_end", "area", "mask", "hooks", "control"}  # of a condition
NO_CROSS_ATTENTION = {"a2v_cross_attn": False, "v2a_cross_attn": False}


def with_bridge_strength(model: MovaPatcher, strength: BridgeStrength) -> MovaPatcher:
    """A clone of `model` whose bridge works at `strength`, on top of what was set before.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options |= asking(options, bridge=(*run_options(options).bridge, strength))
    return patched


def guider(
    model: MovaPatcher,
    positive: Conditioning,
    negative: Conditioning,
    guidance: Guidance,
    span: Span = ALL_STEPS,
    text_span: Span = ALL_STEPS,
) -> "MovaGuidance":
    """A GUIDER; outside `span` the bridge is not guided by, outside `text_span` the prompt.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    made = MovaGuidance(model)
    made.set_conds(positive, negative)
    made.set_guidance(guidance, span, text_span)
    return made


class MovaGuidance(comfy.samplers.CFGGuider):
    """One, two or three evaluations a step, as the scales need; with text guidance alone it is ComfyUI's CFGGuider."""

    def set_guidance(self, guidance: Guidance, span: Span, text_span: Span = ALL_STEPS) -> None:
        self.guidance, self.span, self.text_span = guidance, span, text_span
        self.set_cfg(guidance.text_scale)  # what nodes that ask for the scale are told

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        guidance = self._guidance_at(float(timestep[0]), run_options(options.get("transformer_options", {})))
        scale, plain = guidance.text_scale, guidance.bridge_scale == 1 and not guidance.rescale
        if guidance.bridge_scale == 1 and guidance.audio == scale and (scale == 1 or not guidance.rescale):
            return self._text_guided(x, timestep, options, seed, scale)
        if plain and scale == 1 and (two := self._with_second_stream(options, guidance.audio)) is not None:
            return self._text_guided(x, timestep, two[1], seed, 1.0, two[0])
        step = _Step(self.inner_model, guidance, options)
        own = {
            "sampler_calc_cond_batch_function": step.evaluate,
            "sampler_cfg_function": step.combine,
            "disable_cfg1_optimization": True,  # scale 1 for one stream needs the negative for the other
        }
        return self._text_guided(x, timestep, options | own, seed, scale)

    def _text_guided(
        self,
        x: Tensor,
        timestep: Tensor,
        options: Options,
        seed: int | None,
        scale: float,
        positive: Conditions | None = None,
    ) -> Tensor:
        """ComfyUI's own guidance, at the scale of this step."""
        conds = self.conds.get("negative"), self.conds.get("positive") if positive is None else positive
        guided: Tensor = comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, scale, model_options=options, seed=seed
        )
        return guided

    def _with_second_stream(self, options: Options, scale: float) -> tuple[Conditions, Options] | None:
        """The positive, and options, for guidance of the sound within its own evaluations; None where it cannot be."""
        negative = one_prompt(self.conds.get("negative"))
        if negative is None:
            return None
        text = negative["model_conds"].get("audio_context", negative["model_conds"]["c_crossattn"])
        positive = [
            {**cond, "model_conds": {**cond["model_conds"], AUDIO_NEGATIVE: text}} for cond in self.conds["positive"]
        ]
        inner = asking(options.get("transformer_options", {}), audio_scale=scale)
        return positive, {**options, "transformer_options": inner}

    def _guidance_at(self, sigma: float, asked: RunOptions) -> Guidance:
        shift, guidance = self.inner_model.shifts()[0], self.guidance
        if guidance.bridge_scale != 1 and not self.span.covers(sigma, shift):
            guidance = replace(guidance, bridge_scale=1.0)
        if not self.text_span.covers(sigma, shift):
            guidance = replace(guidance, text_scale=1.0)
        if asked.text_scale is not None:
            guidance = replace(guidance, text_scale=asked.text_scale)
        return guidance if asked.audio_scale is None else replace(guidance, audio_text_scale=asked.audio_scale)


def one_prompt(negative: Conditions | None) -> Values | None:
    """The only entry of a negative CONDITIONING that holds for the whole clip and run; None where it is another kind."""
    if negative is None or len(negative) != 1 or negative[0].keys() & PARTIAL:
        return None
    return negative[0]


class _Step:
    """What differs from ComfyUI's own guidance in one step: which evaluations it takes, and how they are combined."""

    def __init__(self, model: MovaPatcher, guidance: Guidance, options: Options) -> None:
        self.model, self.guidance, self.options = model, guidance, options
        self.bridge_term: Tensor | None = None  # bridged - plain, denoised

    def evaluate(self, args: Options) -> list[Tensor]:
        """The denoised positive, and the negative that text guidance starts from."""
        run: Callable[[Options], list[Tensor]] = self.options.get("sampler_calc_cond_batch_function", _evaluate)
        positive, negative = args["conds"]
        scale = self.guidance.bridge_scale
        if scale == 1:
            return run(args)
        apart = {**args, "conds": [None, _renamed(negative)], "model_options": _apart(args["model_options"])}
        if self.guidance.text_scale == self.guidance.audio == scale:  # equation 6 without its middle term
            return [run({**args, "conds": [positive, None]})[0], run(apart)[1]]
        full, bridged = run(args)
        self.bridge_term = bridged - run(apart)[1]
        return [full, bridged]

    def combine(self, args: Options) -> Tensor:
        """`sampler_cfg_function`: x - guided, from x - predictions."""
        text: Callable[[Options], Tensor] = self.options.get("sampler_cfg_function", _text_guidance)
        guidance = self.guidance
        guided = text({**args, "cond_scale": guidance.text_scale})
        if guidance.audio != guidance.text_scale:
            video, _ = self._streams(guided)
            _, audio = self._streams(text({**args, "cond_scale": guidance.audio}))
            guided = comfy.utils.pack_latents([video, audio])[0]
        if self.bridge_term is not None:
            guided = guided - (guidance.bridge_scale - 1) * self.bridge_term
        return self._rescaled(guided, args) if guidance.rescale else guided

    def _rescaled(self, guided: Tensor, args: Options) -> Tensor:
        """The spread is the velocities'; x - denoised is sigma times them, and for a scaled audio something more."""
        more = self.model.latent_share(args["input"], float(args["timestep"][0]))
        wide, narrow = (self._streams(part - more) for part in (guided, args["cond"]))
        return comfy.utils.pack_latents(list(rescale_guidance(wide, narrow, self.guidance.rescale)))[0] + more

    def _streams(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        video, audio = comfy.utils.unpack_latents(packed, self.model.latent_shapes)
        return video, audio


def _evaluate(args: Options) -> list[Tensor]:
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


def _text_guidance(args: Options) -> Tensor:
    return args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])


def _apart(options: Options) -> Options:
    """Model options under which the towers do not hear each other."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), **NO_CROSS_ATTENTION}}


def _renamed(conds: Conditions) -> Conditions:
    """The same conditions under identities of their own: caches must not take one evaluation for the other."""
    return conds and [{**cond, "uuid": uuid.uuid5(cond["uuid"], "without bridge")} for cond in conds]
