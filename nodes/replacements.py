"""Nodes that were renamed, so that a saved workflow opens with their successors.

One entry a rename, and entries stay for ever:

    io.NodeReplace(
        old_node_id="MOVAOld",
        new_node_id="MOVANew",
        old_widget_ids=["steps", "cfg"],  # widgets of the old node in their order: files store values by place
        input_mapping=[{"old_id": "steps", "new_id": "steps"}, {"new_id": "mode", "set_value": "auto"}],
        output_mapping=[{"old_idx": 0, "new_idx": 0}],
    )
"""

from comfy_api.latest import ComfyAPI, io

REPLACEMENTS: tuple[io.NodeReplace, ...] = ()  # no node has been renamed yet


async def register(replacements: tuple[io.NodeReplace, ...] = REPLACEMENTS) -> None:
    """Tell ComfyUI, which applies them to prompts and offers them in the page."""
    api = ComfyAPI()
    for replacement in replacements:
        await api.node_replacement.register(replacement)
