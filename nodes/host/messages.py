"""Text shown on a node in the page."""

from server import PromptServer


def show(text: str, node_id: str | None) -> None:
    """Write `text` under the node that is running; does nothing where no server runs."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
