"""A node that says what a run will take before it is run."""

from typing import Any

from comfy_api.latest import io, ui

from .base import MovaNode
from .host import messages
from .host.machine import preflight as facts
from .host.sampling import long_runs


class MovaPreflight(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAPreflight",
            display_name="MOVA Preflight",
            category="MOVA/tools",
            description="What a run will take on this machine, before it is run: memory, seconds a step, time to finish, the "
            "longest and largest clip that fits, and what would make it faster.",
            search_aliases=["estimate", "VRAM", "how long", "benchmark", "memory", "will it fit"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA as it goes into the sampler."),
                io.Latent.Input("latent", tooltip="Joint latent of the clip, as it goes into the sampler."),
                io.Vae.Input("vae", optional=True, tooltip="Video VAE, to say whether the clip can be decoded whole."),
                io.Int.Input("steps", default=50, min=1, max=1000, optional=True, tooltip="Steps of the run."),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="Guidance of the run: at 1 a step takes one evaluation of the model, else two.",
                ),
                io.Boolean.Input(
                    "measure",
                    default=True,
                    optional=True,
                    tooltip="Time one block with random weights on this device, for some seconds, to tell how long the run "
                    "takes. Off, memory alone is told.",
                ),
            ],
            outputs=[io.String.Output(display_name="report")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Made anew each time, since nothing equals nan: memory in use changes."""
        return float("nan")

    @classmethod
    def run(
        cls, model: Any, latent: Any, vae: Any = None, steps: int = 50, cfg: float = 5.0, measure: bool = True
    ) -> io.NodeOutput:
        report = facts.preflight(model, latent, vae, steps, cfg, measure, long_runs.disk(latent))
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
