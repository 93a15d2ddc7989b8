"""A node for the soak test alone: a MODEL that runs out of memory at a step."""

from typing import Any

import comfy.patcher_extension
import torch
from comfy_api.latest import ComfyExtension, io


class SoakOutOfMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SoakOutOfMemory",
            category="soak",
            inputs=[io.Model.Input("model"), io.Int.Input("call", default=3, min=0, max=1000)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, call: int) -> io.NodeOutput:
        """Forward number `call` raises what torch raises; where there is a CPU only, by hand."""
        calls: list[int] = []

        def forward(executor: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                raise torch.OutOfMemoryError("Allocation on device would exceed allowed memory. (soak)")
            return executor(*args, **kwargs)

        failing = model.clone()
        failing.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "soak", forward)
        return io.NodeOutput(failing)


class Soak(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SoakOutOfMemory]


async def comfy_entrypoint() -> Soak:
    return Soak()
