"""What leads to an input, read from the prompt alone: nothing is loaded.

Links are told by what they lead to, whatever the ids; a name of a file in one of ComfyUI's folders by what the file holds.
A node that says when it has changed (fingerprint_inputs, IS_CHANGED) is told by what it says, and where it says nothing
that can be compared, the graph is none that is known. So it is where a file of a node that never says was written since it
was first looked at: ComfyUI may still give what the file held before.
"""

import inspect
import math
import os
from functools import cache
from pathlib import Path

import folder_paths
from comfy_execution.graph_utils import is_link

import nodes

from ....mova_core.checkpoint.files import is_file
from ....mova_core.errors import MovaError
from ..types import DynamicPrompt, Link, Values
from .contents import content, rewritten
from .fingerprints import digest

LONGEST = 1000  # characters of a name
OWN = "MOVA"  # our nodes are told by their files: what they say themselves holds times, but for those that have
CONTENT = "TELLS_CONTENT"
UNKNOWN = "unknown"
CHANGED = "is_changed"


class Graph:
    """A prompt, and what was found out about it."""

    def __init__(self, dynprompt: DynamicPrompt) -> None:
        self.dynprompt = dynprompt
        self.known: dict[str, str] = {}
        self.files = cache(_found)  # one look at the disk a name

    def above(self, link: Link) -> str:
        """A hash of all that leads to a link; UNKNOWN where it cannot be compared; of a value, of the value."""
        if not is_link(link):
            try:
                return digest(self._value(link))
            except MovaError:  # a file that cannot be read, or has just gone
                return UNKNOWN
        found = self._node(str(link[0]))
        return UNKNOWN if found == UNKNOWN else digest([found, link[1]])

    def node(self, link: Link) -> Values:
        """The node that a link comes from: class_type and inputs."""
        found: Values = self.dynprompt.get_node(str(link[0]))
        return found

    def told(self, node: Values, leave_out: tuple[str, ...] = ()) -> str:
        """A hash of a node's class and what leads to its inputs."""
        inputs = {name: self.above(value) for name, value in node["inputs"].items() if name not in leave_out}
        if UNKNOWN in inputs.values():
            return UNKNOWN
        return digest([node["class_type"], sorted(inputs.items())])

    def _node(self, node_id: str) -> str:
        if node_id not in self.known:
            node = self.dynprompt.get_node(node_id)
            said = self._says(node)
            told = self.told(node)
            self.known[node_id] = UNKNOWN if UNKNOWN in (said, told) else digest([told, said])
        return self.known[node_id]

    def _value(self, value: object) -> object:
        """Of a text that names files, what they hold."""
        if not isinstance(value, str):
            return repr(value)
        return [content(path) for path in self.files(value)] or value

    def _says(self, node: Values) -> str:
        """What a node says of whether it has changed; "" where it never says and need not."""
        kind = nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])
        if not (hasattr(kind, "IS_CHANGED") or _overrides(kind, "fingerprint_inputs")):
            named = [path for value in node["inputs"].values() if isinstance(value, str) for path in self.files(value)]
            return UNKNOWN if {path for path in named if rewritten(path)} else ""  # all are looked at
        if node["class_type"].startswith(OWN) and not getattr(kind, CONTENT, False):
            return ""
        said = node.get(CHANGED)
        values = said if isinstance(said, list) else [said]
        if any(value is None or (isinstance(value, float) and math.isnan(value)) for value in values):
            return UNKNOWN
        return repr(values)


def _overrides(kind: type, name: str) -> bool:
    """Whether a class of the newer kind has a method of its own."""
    classes = inspect.getmro(kind) if isinstance(kind, type) else ()
    return any(name in vars(each) for each in classes if not each.__module__.startswith("comfy_api"))


def _found(name: str) -> list[Path]:
    """The files that a text names in ComfyUI's folders."""
    if not name or len(name) > LONGEST or "\n" in name:
        return []
    for kind in folder_paths.folder_names_and_paths:
        if kind == "custom_nodes":
            continue
        for root in folder_paths.get_folder_paths(kind):
            place = Path(root) / name
            if is_file(place):
                return [place]
            if kind == "diffusers" and is_file(place / "model_index.json"):
                inside = (Path(at) / each for at, _, names in os.walk(place) for each in names)
                return sorted(path for path in inside if is_file(path))
    try:
        place = Path(folder_paths.get_annotated_filepath(name))
    except (ValueError, OSError):
        return []
    return [place] if is_file(place) else []
