"""Nodes that steer: how strongly the towers hear each other, and how far beyond the prediction to go."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.sampling.bridge_strength import BridgeStrength
from ..mova_core.sampling.guidance import Guidance
from ..mova_core.sampling.schedule import Span
from . import inputs
from .base import MovaNode
from .host.sampling import guiders


class MovaBridgeStrength(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVABridgeStrength",
            display_name="MOVA Bridge Strength",
            category="MOVA/guidance",
            description="How strongly picture and sound hear each other while they are denoised. 1 is as trained; 0 in both "
            "directions makes a silent-film picture and a radio sound that know nothing of each other. Several of these "
            "nodes multiply.",
            search_aliases=["lip sync", "audio video coupling", "a2v", "v2a", "bridge scale"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA."),
                io.Float.Input(
                    "audio_to_video",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor on what the picture takes from the sound. 1 as trained, 0 not at all; other values are "
                    "untrained.",
                ),
                io.Float.Input(
                    "video_to_audio",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Factor on what the sound takes from the picture. 1 as trained, 0 not at all; other values are "
                    "untrained.",
                ),
                inputs.percent("start_percent", 0.0, "Share of the steps done when it begins: 0 is the first step."),
                inputs.percent(
                    "end_percent",
                    1.0,
                    "Share of the steps done when it ends: 1 is after the last step. Outside the range the bridge works as "
                    "trained.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def run(
        cls, model: Any, audio_to_video: float, video_to_audio: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        span = Span(start_percent, end_percent)
        strength = BridgeStrength(audio_to_video=audio_to_video, video_to_audio=video_to_audio, span=span)
        return io.NodeOutput(guiders.with_bridge_strength(model, strength))


class MovaGuider(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAGuider",
            display_name="MOVA Guider",
            category="MOVA/guidance",
            description="Dual guidance, for 'SamplerCustomAdvanced': towards the prompt, and towards picture and sound that "
            "hear each other. The lip sync of MOVA's paper was made so (bridge_cfg 3.5). Three evaluations a step; two where "
            "bridge_cfg is 1 or equal to both text scales.",
            search_aliases=["dual CFG", "lip sync", "bridge guidance", "guider", "s_B"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA, with any LoRAs and patches."),
                *inputs.prompts("From 'MOVA Image to Video+Audio'."),
                inputs.scale("text_cfg", 5.0, "Guidance towards the prompt. Trained and released at 5."),
                inputs.scale(
                    "audio_text_cfg",
                    0.0,
                    "Guidance of the sound towards the prompt, where it is to differ from the picture's. 0 is the same as "
                    "text_cfg; lower it where the sound gets loud or harsh.",
                ),
                inputs.scale(
                    "bridge_cfg",
                    3.5,
                    "Guidance towards picture and sound that hear each other. 1 is none and costs nothing; the paper tried "
                    "up to 4 and reports 3.5: better lip sync and timing, less clear words.",
                ),
                inputs.percent(
                    "bridge_start",
                    0.0,
                    "Share of the steps done when guidance by the bridge begins: 0 is the first step.",
                ),
                inputs.percent(
                    "bridge_end",
                    1.0,
                    "Share of the steps done when it ends: 0.5 saves half of its cost. Outside the range it is as with "
                    "bridge_cfg 1. The published numbers are of the whole range.",
                ),
                io.Float.Input(
                    "rescale",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Bring the spread of the guided prediction back towards the unguided one's, for picture and "
                    "sound each: against burnt pictures and loud sound. 0 is none, 1 is full.",
                ),
                inputs.percent(
                    "text_start",
                    0.0,
                    "Share of the steps done when guidance by text_cfg begins: 0 is the first step.",
                    optional=True,
                ),
                inputs.percent(
                    "text_end",
                    1.0,
                    "Share of the steps done when it ends: 0.125 guides the first of 8 steps alone. Outside the range it is as "
                    "with text_cfg 1, and an audio_text_cfg of its own goes on.",
                    optional=True,
                ),
            ],
            outputs=[io.Guider.Output(display_name="GUIDER")],
        )

    @classmethod
    def run(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        text_cfg: float,
        audio_text_cfg: float,
        bridge_cfg: float,
        bridge_start: float,
        bridge_end: float,
        rescale: float,
        text_start: float = 0.0,
        text_end: float = 1.0,
    ) -> io.NodeOutput:
        guidance = Guidance(
            text_scale=text_cfg, audio_text_scale=audio_text_cfg or None, bridge_scale=bridge_cfg, rescale=rescale
        )
        spans = Span(bridge_start, bridge_end), Span(text_start, text_end)
        return io.NodeOutput(guiders.guider(model, positive, negative, guidance, *spans))
