"""A prompt as ComfyUI takes it, how it ended, and why it was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.comfy.events import Event, Preview

Graph = Mapping[str, Mapping[str, Any]]  # API format: node id -> {"class_type": ..., "inputs": ...}


class PromptRefused(RuntimeError):  # noqa: N818 - reads as what happened
    """ComfyUI's validation refused a graph; the message names node, input and reason."""


@dataclass(frozen=True)
class Result:
    """How one prompt ended.

    Attributes:
        status: "success", "error" or "interrupted".
        outputs: node id -> what the node showed (`{"images": [{"filename": ...}]}`).
        files: every file named in `outputs`, as paths.
        events: the websocket messages of this prompt, in order.
        previews: the preview frames of this prompt, in order.
        message: the exception's type and text when `status` is "error", else "".
        error: the whole `execution_error` message (node_id, node_type, traceback), or empty.
    """

    prompt_id: str
    status: str
    outputs: Mapping[str, Mapping[str, Any]]
    files: Sequence[Path] = ()
    events: Sequence[Event] = ()
    previews: Sequence[Preview] = ()
    message: str = ""
    error: Mapping[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Data of every event of one kind ("progress", "executed", ...)."""
        return [event.data for event in self.events if event.kind == kind]

    def executed(self) -> list[str]:
        """Ids of the nodes that ran (cached ones did not), in order."""
        return [data["node"] for data in self.of("executing") if data.get("node")]

    def text(self, node: str) -> list[str]:
        """Text that a node showed (a stock PreviewAny, say)."""
        return [str(item) for item in self.outputs.get(node, {}).get("text", [])]


def refusal(answer: Mapping[str, Any], graph: Graph) -> str:
    """ComfyUI's validation answer in words, one line for each complaint."""
    error = answer.get("error") or {}
    head = error if isinstance(error, str) else f"{error.get('message', '')} {error.get('details', '')}".strip()
    lines = [head]
    for node, complaint in (answer.get("node_errors") or {}).items():
        name = graph.get(node, {}).get("class_type", "?")
        lines += [f"  node {node} ({name}): {e['message']}: {e['details']}" for e in complaint.get("errors", ())]
    return "\n".join(lines)
