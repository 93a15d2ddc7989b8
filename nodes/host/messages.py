"""Text shown on a node in the page, and which shot of a film it is about."""

import logging
import re

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

log = logging.getLogger("mova")
SHOT = re.compile(r"\.shot(\d+)of(\d+)\.")  # in the ids of nodes that a film expands into


def show(text: str, node_id: str | None) -> None:
    """Write `text` under the node that is running, or the one that it was expanded from; does nothing where no server
    runs."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        shown = get_progress_state().dynprompt.get_display_node_id(node_id)
        server.send_progress_text(about_shot(text, node_id), shown)


def warn(text: str) -> None:
    """Say `text` in the log and under the node that is running."""
    log.warning("%s", text)
    context = get_executing_context()
    show(text, None if context is None else context.node_id)


def about_shot(text: str, node_id: str | None = None) -> str:
    """`text` with the shot of a film before it, where a node of one is running."""
    if node_id is None:
        context = get_executing_context()
        node_id = context.node_id if context else ""
    shot = SHOT.search(str(node_id))
    return f"shot {shot[1]} of {shot[2]}: {text}" if shot else text
