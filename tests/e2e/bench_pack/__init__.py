"""A pack for testing the bench: one node that counts with previews, can be cancelled, and fails on request.

It also says that MOVA Decode was once called MOVAOldDecode, for the page to be seen migrating a workflow.
"""

import time

import comfy.utils
from comfy_api.latest import ComfyAPI, ComfyExtension, io
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


RENAMED = io.NodeReplace(
    old_node_id="MOVAOldDecode",
    new_node_id="MOVADecode",
    old_widget_ids=["tile", "seam"],
    input_mapping=[
        {"old_id": "samples", "new_id": "latent"},
        {"old_id": "vae", "new_id": "vae"},
        {"old_id": "audio_vae", "new_id": "audio_vae"},
        {"old_id": "tile", "new_id": "tile_size"},
        {"old_id": "seam", "new_id": "overlap"},
    ],
    output_mapping=[{"old_idx": index, "new_idx": index} for index in range(3)],
)


class BenchExtension(ComfyExtension):
    async def on_load(self) -> None:
        await ComfyAPI().node_replacement.register(RENAMED)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BenchSteps]


async def comfy_entrypoint() -> BenchExtension:
    return BenchExtension()
