"""A node that says what a bug report should say."""

from typing import Any

from comfy_api.latest import io, ui

from .base import MovaNode
from .host import messages
from .host.machine import bug_report as facts


class MovaBugReport(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVABugReport",
            display_name="MOVA Bug Report",
            category="MOVA/tools",
            description="Versions, flags, devices, memory and, of a connected MODEL, its parts, patches and files: ready to "
            "paste under a bug report. No prompt, no path, no name of yours is in it.",
            search_aliases=["diagnostics", "system info", "versions", "debug", "help"],
            inputs=[
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="MOVA as it goes into the sampler, with its LoRAs and patches. Its files are marked by size, "
                    "header and three samples, which takes a moment and not the reading of 70 GB.",
                )
            ],
            outputs=[io.String.Output(display_name="report", tooltip="Markdown.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Made anew each time, since nothing equals nan: memory changes, and no input says so."""
        return float("nan")

    @classmethod
    def run(cls, model: Any = None) -> io.NodeOutput:
        report = facts.report(model)
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
