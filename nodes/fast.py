"""Few steps, with the words kept."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.sampling.fast import PLAIN_STEPS, QUALITIES, recipe_of
from . import inputs
from .base import MovaNode
from .host.sampling import fast, long_runs


class MovaFastSampler(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFastSampler",
            display_name="MOVA Fast Sampler",
            category="MOVA/sampling",
            description="Denoise picture and sound in few steps with distillation LoRAs made for Wan 2.2, and give the sound "
            "guided steps of its own, so that words stay words. Schedule, guidance and steps of the sound are chosen for you.",
            search_aliases=["lightx2v", "turbo", "few steps", "distilled", "4 steps", "8 steps", "speed"],
            inputs=[
                inputs.LaterModel(
                    "model",
                    tooltip="MOVA or Prism with the distillation LoRAs on both experts, strength 1. Not asked for where "
                    "max or full have the teacher to sample with.",
                ),
                io.Conditioning.Input("positive", tooltip="From 'MOVA Image to Video+Audio'."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="From 'MOVA Image to Video+Audio': read by the sound in all of its steps, by the picture in the "
                    "first.",
                ),
                io.Latent.Input("latent", tooltip="Joint latent of picture and sound."),
                inputs.seed("Noise of both streams, video drawn first, then audio."),
                io.Int.Input(
                    "steps",
                    default=8,
                    min=1,
                    max=100,
                    tooltip="Steps of the picture; 8 is what the recipe was tried with. Quality max takes 20, full 50, whatever "
                    "stands here.",
                ),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default="light",
                    tooltip="'light': 9 forwards, a tenth of 50 steps. 'standard' and 'high': the sound hears a teacher, for "
                    "half as much time again. 'max': 20 steps at cfg 5 with the plain model, twice the time of high or more. "
                    "'full': 50 of them, the official run.",
                ),
                io.Model.Input(
                    "teacher",
                    optional=True,
                    tooltip="The MODEL as it was before the distillation LoRAs, from the same loader. Standard and high need "
                    "it, max and full sample with it.",
                ),
                *inputs.keeping(),
                inputs.scale(
                    "bridge_cfg",
                    1.0,
                    "Of max and full alone: guidance by what picture and sound hear of each other. 1 is off; the paper "
                    "reports better lips at 3.5, for half as much time again.",
                    optional=True,
                    advanced=True,
                ),
                inputs.keep_minutes(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent, for 'MOVA Decode' or stock nodes."),
                io.Int.Output(display_name="seed", tooltip="The seed it was made with."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def check_lazy_status(cls, quality: Any, model: Any = None, teacher: Any = None, **_: Any) -> list[str]:
        """The distilled model is made only where something samples with it, so that its LoRA files may be absent."""
        return [] if model is not None or (_plain(quality) and teacher is not None) else ["model"]

    @classmethod
    def run(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        seed: int,
        steps: int,
        quality: str,
        teacher: Any = None,
        resume: str = long_runs.AUTO,
        keep_every: int = 1,
        bridge_cfg: float = 1.0,
        keep_minutes: int = 0,
    ) -> io.NodeOutput:
        recipe = recipe_of(quality, steps, bridge_cfg)
        used = teacher if _plain(quality) and teacher is not None else model
        node = long_runs.Node(cls.hidden.unique_id, cls.hidden.dynprompt)
        kept = long_runs.StepKeeping(mode=resume, every=keep_every, minutes=keep_minutes)
        made = fast.sample_fast(used, teacher, (positive, negative), latent, recipe, seed, node, kept)
        return io.NodeOutput(made, seed)


def _plain(quality: Any) -> bool:
    return isinstance(quality, str) and quality in PLAIN_STEPS
