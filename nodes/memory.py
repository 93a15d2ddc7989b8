"""Which path a run takes for memory."""

from typing import Any

from comfy_api.latest import io

from .base import MovaNode
from .host.model import memory


class MovaMemory(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAMemory",
            display_name="MOVA Memory",
            category="MOVA/loaders",
            description="Choose how much memory sampling may take. Without this node it is 'auto'.",
            search_aliases=["low vram", "out of memory", "OOM", "chunks"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA."),
                io.Combo.Input(
                    "mode",
                    options=list(memory.MEMORY_MODES),
                    default="auto",
                    tooltip="'normal': 2.1 GiB of activations for 8 s of 352x640, 8.7 GiB of 720x1280. 'low': 1.6 and 5.6 "
                    "GiB, queries in chunks, about the same speed. 'auto': 'normal' where it fits beside the layers being "
                    "streamed, else 'low'. Results differ by rounding only. Weights come on top as far as memory allows.",
                ),
                io.Combo.Input(
                    "kept_precision",
                    options=list(memory.KEPT_PRECISIONS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="How 'MOVA Fast Sampler' and audio_substeps keep what the sound asks of the picture. 'fp8': eight "
                    "bits, one scale a tensor, 3.7 GiB for 8 s of 352x640. 'model': as the model computes, 7.4 GiB in 16 "
                    "bits. 'auto': fp8 for a model of 16 bits, as it is for one of 32.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def run(cls, model: Any, mode: str, kept_precision: str = "auto") -> io.NodeOutput:
        return io.NodeOutput(memory.with_mode(model, mode, kept_precision))
