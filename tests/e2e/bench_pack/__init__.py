"""A pack for testing the bench: one node that counts with previews, can be cancelled, and fails on request."""

import time

import comfy.utils
from comfy_api.latest import ComfyExtension, io
from PIL import Image


class BenchSteps(io.ComfyNode):
    """Counts `steps`, showing a preview for each; raises after the last one if told to."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchSteps",
            category="bench",
            inputs=[io.Int.Input("steps"), io.Float.Input("seconds"), io.Boolean.Input("fail")],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, steps: int, seconds: float, fail: bool) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(steps)
        for step in range(steps):
            time.sleep(seconds)
            bar.update_absolute(step + 1, steps, ("JPEG", Image.new("RGB", (32, 24), (step, 90, 30)), None))
        if fail:
            raise ValueError("told to fail")
        return io.NodeOutput(steps)


class BenchExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BenchSteps]


async def comfy_entrypoint() -> BenchExtension:
    return BenchExtension()
