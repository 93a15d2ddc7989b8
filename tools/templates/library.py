"""The templates, read from graphs/<key>.yaml: each says what it changes of the graph that its `base` names.

    base: clip                                     # clip.yaml, image to video; another key; none
    nodes:
      picture: null                                # taken away
      sampler: {inputs: {steps: 25}}               # what differs from the node of the base
      again: {like: sampler, links: {conditions: hold}, inputs: {seed: 43}}   # as another node, links moved
      windows: {type: WanContextWindowsManual, inputs: {model: [loader, 0]}}  # [name, index] links to an output
    columns:
      - Model: [loader, windows]                   # from left to right; areas, and their nodes or stacks of nodes

A file with a `file` is a template: its name, its Chinese title and text, its card, its note. In a note `{word}` stands
for a paragraph of words.yaml, `(url:NAME)` for the address of a published file, and lines of a paragraph are joined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mova_core.text import NEGATIVE_PROMPT
from tools.templates.published import PUBLISHED, address
from tools.templates.template import Area, Card, Node, Template

GRAPHS = Path(__file__).with_name("graphs")
WORDS = Path(__file__).with_name("words.yaml")
STANDS_FOR = {"{negative}": NEGATIVE_PROMPT}  # whole values of inputs
DRAWN = ("title", "width", "height", "room", "stretch", "labels")
TOLD = ("file", "chinese", "about", "note_height", "results")
FOLDED: Mapping[str, Mapping[str, Any]] = {  # advanced inputs and their defaults
    "MOVASampler": {
        "shift": 0.0,
        "audio_shift": 0.0,
        "audio_cfg": 0.0,
        "audio_denoise": 0.0,
        "collapse_guard": "off",
        "listen_every": 0,
        "audio_substeps": 1,
    },
    "MOVAFastSampler": {"bridge_cfg": 1.0},
}

Said = Mapping[str, Any]  # a file, or a node in it


def graph(key: str) -> Template:
    """The graph of graphs/<key>.yaml."""
    said = _read(GRAPHS / f"{key}.yaml")
    return changed(graph(said["base"]) if "base" in said else Template({}, (), ""), said)


def changed(before: Template, said: Said) -> Template:
    """A template with what is said of it, as the files say it."""
    nodes = dict(before.nodes)
    for name, node in said.get("nodes", {}).items():
        if node is None:
            del nodes[name]
        else:
            nodes[name] = _node(node, nodes.get(name), nodes)
    fields: dict[str, Any] = {name: said[name] for name in TOLD if name in said}
    if "columns" in said:
        fields["columns"] = [[_area(*area) for area in column.items()] for column in said["columns"]]
    if "note" in said:
        fields |= {"note": _note(said["note"]), "card": Card(**said["card"])}
    return replace(before, nodes=nodes, app=[tuple(shown) for shown in said.get("app", ())], **fields)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _node(said: Said, before: Node | None, others: Mapping[str, Node]) -> Node:
    if "type" in said:
        before = Node(said["type"])
    elif "like" in said:
        pattern = others.get(said["like"]) or graph("clip").nodes[said["like"]]
        before = _relinked(pattern, said.get("links", {}))
    if before is None:
        raise ValueError(f"neither the type of a node nor another that it is like: {said}")
    inputs = {**before.inputs, **{name: _value(value) for name, value in said.get("inputs", {}).items()}}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    models = [_model(value) for value in inputs.values() if isinstance(value, str) and value in PUBLISHED]
    return replace(
        before,
        inputs=inputs,
        properties={"models": models} if models else {},
        unfolded=any(inputs.get(name, value) != value for name, value in FOLDED.get(before.type, {}).items()),
        **{name: said[name] for name in DRAWN if name in said},
    )


def _relinked(node: Node, links: Mapping[str, str]) -> Node:
    def moved(value: Any) -> Any:
        return (links.get(value[0], value[0]), value[1]) if isinstance(value, tuple) else value

    return replace(node, inputs={name: moved(value) for name, value in node.inputs.items()})


def _value(said: Any) -> Any:
    if isinstance(said, list):
        return tuple(said)
    return STANDS_FOR.get(said, said) if isinstance(said, str) else said


def _model(name: str) -> dict[str, str]:
    """What tells the page where a missing file is to be had."""
    return {"name": name, "url": address(name), "directory": PUBLISHED[name].directory}


def _area(title: str, stacks: list[Any]) -> Area:
    return Area(title, stacks if isinstance(stacks[0], list) else [stacks])


def _note(text: str) -> str:
    paragraphs = (" ".join(lines.splitlines()) for lines in text.strip().split("\n\n"))
    words = "\n\n".join(paragraphs).format_map(_read(WORDS))
    return re.sub(r"\(url:([^)]+)\)", lambda found: f"({address(found[1])})", words)


def _templates() -> dict[str, Template]:
    keys = [path.stem for path in GRAPHS.glob("*.yaml")]
    found = {key: template for key in keys if (template := graph(key)).file}
    return dict(sorted(found.items(), key=lambda entry: entry[1].file))


TEMPLATES: Mapping[str, Template] = _templates()
