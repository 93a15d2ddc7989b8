"""What training will take, told before anything is loaded."""

from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.shapes import VideoShape
from ..mova_core.training.optim import Rates
from ..mova_core.training.run import Settings
from . import inputs, training_inputs
from .base import MovaNode
from .host import messages
from .host.training import budget, checks


class MovaTrainingBudget(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATrainingBudget",
            display_name="MOVA Training Budget",
            category="MOVA/training",
            description="What training will take on this machine before anything is loaded: VRAM, RAM, disk, seconds a step, "
            "hours, and what would make it fit.",
            search_aliases=["VRAM", "how long", "estimate", "will it fit", "LoRA training"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="MOVA as it would be trained."),
                *inputs.size("Of the largest clips, in pixels."),
                io.Int.Input("frames", default=97, min=5, max=2001, step=4, tooltip="Of the longest clips, 4n + 1."),
                io.Int.Input("clip_count", default=30, min=1, max=100000, tooltip="Clips of the data set."),
                io.Int.Input("steps", default=1000, min=1, max=1000000, tooltip="Optimizer steps."),
                training_inputs.rank(),
                training_inputs.parts(),
                training_inputs.optimizer(),
                io.Int.Input(
                    "accumulate", default=1, min=1, max=256, optional=True, advanced=True, tooltip="Samples a step."
                ),
                io.Boolean.Input(
                    "measure",
                    default=True,
                    optional=True,
                    tooltip="Time one block with random weights on this device, for some seconds. Off, memory alone is told.",
                ),
                training_inputs.CLIPS.Input("clips", optional=True, tooltip="A data set, in place of sizes and count."),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                training_inputs.CLIPS.Output(
                    display_name="clips",
                    tooltip="The data set as it came in, for 'MOVA Train LoRA': so this report comes before training. "
                    "ComfyUI may make it afterwards otherwise.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Made anew each time, since nothing equals nan: memory in use changes."""
        return float("nan")

    @classmethod
    def run(
        cls,
        model: Any,
        width: int,
        height: int,
        frames: int,
        clip_count: int,
        steps: int,
        rank: int,
        parts: str,
        optimizer: str = "adamw",
        accumulate: int = 1,
        measure: bool = True,
        clips: Any = None,
    ) -> io.NodeOutput:
        shape = VideoShape(batch=1, frames=frames, height=height, width=width)
        rates = Rates(high=1e-4, low=1e-4, audio=1e-4, bridge=1e-4)
        settings = Settings(
            parts=training_inputs.PARTS_BY_CHOICE[parts],
            rank=rank,
            alpha=rank,
            steps=steps,
            rates=rates,
            optimizer=optimizer,
            accumulate=accumulate,
        )
        if clips is not None:
            shape, clip_count = checks.largest(clips), len(clips.clips)
        report = budget.report(model, settings, shape, clip_count, measure)
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(report, clips, ui=ui.PreviewText(report))
