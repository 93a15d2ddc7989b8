"""Nodes that steer: how strongly the towers hear each other, and how far beyond the prediction to go."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.sampling.bridge_strength import BridgeStrength
from ..mova_core.sampling.schedule import Span
from .host import guiders


def percent_input(name: str, default: float, tooltip: str) -> io.Float.Input:
    """A share of the steps."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, advanced=True, tooltip=tooltip)


class MovaBridgeStrength(io.ComfyNode):
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
                percent_input("start_percent", 0.0, "Share of the steps done when it begins: 0 is the first step."),
                percent_input(
                    "end_percent",
                    1.0,
                    "Share of the steps done when it ends: 1 is after the last step. Outside the range the bridge works as "
                    "trained.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def execute(
        cls, model: Any, audio_to_video: float, video_to_audio: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        span = Span(start_percent, end_percent)
        strength = BridgeStrength(audio_to_video=audio_to_video, video_to_audio=video_to_audio, span=span)
        return io.NodeOutput(guiders.with_bridge_strength(model, strength))
