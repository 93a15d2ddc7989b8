"""A workflow template as data: nodes by name, areas in columns; and its API graph and layout.

A node's inputs are values, or pairs (name, index) that link to an output of another node. Places are computed: columns
from left to right, areas from top to bottom in a column, and in an area stacks of nodes side by side. The note stands
at the top of the first column, or before it where the whole graph would be shown too small to be read otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.comfy.page import GROUP_PADDING, GROUP_TITLE, Group, Layout, Note

NODE_TITLE = 30  # height of a node's title bar, which a node's position leaves out
NODE_GAP, STACK_GAP, AREA_GAP = 40, 50, 30
NOTE_WIDTH, NOTE_TITLE = 380, "Read me first"
CANVAS = (1430, 709)  # pixels that a graph is fitted into by a page of 1920x950
READABLE = 0.572  # of full size; smaller, and the page draws letters of nodes as bars (8 of 14 pixels)
WIDE = 6  # columns, from which on a graph is shown so small that its note needs the largest letters


@dataclass(frozen=True)
class Node:
    """One node; an input that is a pair (name, index) is a link to that output of the node so named.

    Attributes:
        title: instead of the display name.
        width, height: in pixels, without the title bar; never lower than the page's own height.
        room: pixels more than that height, for a preview.
        stretch: takes what its column lacks to the height of the tallest.
        properties: e.g. {"models": [{"name", "url", "directory"}]}.
        unfolded: shows its advanced inputs, because some have other values than their defaults.
        labels: what the page calls widgets instead of their names.
    """

    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    width: float = 340
    height: float = 0
    room: float = 0
    stretch: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)
    unfolded: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Area:
    """A titled box around nodes: stacks of names side by side."""

    title: str
    stacks: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Card:
    """What the thumbnail of a template shows: what goes in, and what comes out, in the glyphs of `card.py`.

    Attributes:
        label: a few letters on what comes out, e.g. "16 s".
    """

    given: Sequence[str]
    made: str = "clip"
    label: str = ""


@dataclass(frozen=True)
class Template:
    """A workflow: its nodes by name, its areas in columns from left to right, and the note before them.

    Attributes:
        file: name of its file, which is all that ComfyUI shows: a number for the order, and ASCII, since the registry's
            publisher leaves out files whose names git quotes. Empty for a graph that is no template.
        chinese: its title, drawn into the thumbnail.
        about: the note in short, in Chinese, which stands under the title at the end of the English one.
        card: what its thumbnail shows.
        note: Markdown; paragraphs and list items become headings, which can be read when the whole graph is shown.
        app: (node, widget) of what an app shows, from top to bottom; with any, the workflow opens as an app.
        results: nodes whose results the app shows.
    """

    nodes: Mapping[str, Node]
    columns: Sequence[Sequence[Area]]
    note: str
    file: str = ""
    chinese: str = ""
    about: str = ""
    card: Card = Card(("words",))
    note_height: float = 500
    after_generate: str = "fixed"
    app: Sequence[tuple[str, str]] = ()
    results: Sequence[str] = ()


def ids(template: Template) -> dict[str, str]:
    """Node ids by name: "1", "2", ... in the order of `nodes`."""
    return {name: str(number) for number, name in enumerate(template.nodes, 1)}


def api_graph(template: Template) -> dict[str, dict[str, Any]]:
    """The template in ComfyUI's API format."""
    number = ids(template)

    def value(given: Any) -> Any:
        return [number[given[0]], given[1]] if isinstance(given, tuple) else given

    return {
        number[name]: {"class_type": node.type, "inputs": {key: value(given) for key, given in node.inputs.items()}}
        for name, node in template.nodes.items()
    }


def app_mode(template: Template) -> dict[str, Any]:
    """What a workflow's `extra` says of its app, as the page's own app builder writes it; empty for one without."""
    number = ids(template)
    shown = {
        "inputs": [[number[node], widget] for node, widget in template.app],
        "outputs": [number[node] for node in template.results],
    }
    return {"linearData": shown, "linearMode": True} if template.app else {}


def layout(template: Template, heights: Mapping[str, float]) -> Layout:
    """Places for all nodes.

    Args:
        heights: of every node by id, the larger of both ways of drawing it, title bar included.
    """
    number, nodes = ids(template), template.nodes
    tall = {name: max(heights[number[name]] + node.room, NODE_TITLE + node.height) for name, node in nodes.items()}
    beside = _note_beside(template, tall)
    above = NODE_TITLE + template.note_height + AREA_GAP if template.note and not beside else 0.0  # the first column
    heads = [above, *[0.0] * (len(template.columns) - 1)]
    lowest = max(head + _column_height(column, tall) for head, column in zip(heads, template.columns))
    places: dict[str, Place] = {}
    left = NOTE_WIDTH + AREA_GAP if beside else 0.0
    for head, column in zip(heads, template.columns):
        _stretch(column, nodes, tall, lowest - head)
        top, width = head, max(NOTE_WIDTH if head else 0.0, *_widths(column, nodes))
        for area in column:
            places |= _area_places(area, nodes, tall, left, top, width)
            top += _area_height(area, tall) + AREA_GAP
        left += width + AREA_GAP
    areas = [area for column in template.columns for area in column]
    return Layout(
        positions={number[name]: (x, y) for name, (x, y, _, _) in places.items()},
        sizes={number[name]: (width, height) for name, (_, _, width, height) in places.items()},
        titles={number[name]: node.title for name, node in nodes.items() if node.title},
        properties={number[name]: node.properties for name, node in nodes.items() if node.properties},
        groups=[Group(a.title, [number[name] for stack in a.stacks for name in stack]) for a in areas],
        notes=[_note(template, NOTE_WIDTH if beside else max(NOTE_WIDTH, *_widths(template.columns[0], nodes)))]
        if template.note
        else [],
        after_generate=template.after_generate,
        unfolded=[number[name] for name, node in nodes.items() if node.unfolded],
        labels={number[name]: node.labels for name, node in nodes.items() if node.labels},
    )


def _note_beside(template: Template, tall: Mapping[str, float]) -> bool:
    """Whether the note stands before the first column: above it the graph would be too high to be read."""
    if not template.note:
        return False
    heights = [_column_height(column, tall) for column in template.columns]
    widths = [max(_widths(column, template.nodes)) for column in template.columns]
    width, note = sum(widths) + AREA_GAP * (len(widths) - 1), NODE_TITLE + template.note_height
    above = _zoom(width, max(note + AREA_GAP + heights[0], *heights))
    return above < READABLE and above < _zoom(width + NOTE_WIDTH + AREA_GAP, max(note, *heights))


def _zoom(width: float, height: float) -> float:
    """How large the page shows what it fits into its canvas, of full size."""
    return min(CANVAS[0] / width, CANVAS[1] / height)


def _widths(column: Sequence[Area], nodes: Mapping[str, Node]) -> list[float]:
    return [_area_width(area, nodes) for area in column]


def _note(template: Template, width: float) -> Note:
    large = "#" if len(template.columns) >= WIDE else "##"
    return Note(in_headings(template.note, large), (0, NODE_TITLE), (width, template.note_height), title=NOTE_TITLE)


def in_headings(note: str, mark: str = "##") -> str:
    """The note with every paragraph and list item as a heading, since the page shows all else in 10 pixels."""
    lines = []
    for line in note.splitlines():
        text = line.strip()
        bullet = "- " if text.startswith("- ") else ""
        plain = text.removeprefix("- ")
        lines.append(f"{bullet}{mark} {plain}" if plain and not plain.startswith("#") else line)
    return "\n".join(lines)


Place = tuple[float, float, float, float]  # left and top of the body, its width and height


def _stack_height(stack: Sequence[str], tall: Mapping[str, float]) -> float:
    return sum(tall[name] for name in stack) + NODE_GAP * (len(stack) - 1)


def _area_height(area: Area, tall: Mapping[str, float]) -> float:
    return GROUP_TITLE + max(_stack_height(stack, tall) for stack in area.stacks) + GROUP_PADDING


def _column_height(column: Sequence[Area], tall: Mapping[str, float]) -> float:
    return sum(_area_height(area, tall) for area in column) + AREA_GAP * (len(column) - 1)


def _area_width(area: Area, nodes: Mapping[str, Node]) -> float:
    widths = [max(nodes[name].width for name in stack) for stack in area.stacks]
    return sum(widths) + STACK_GAP * (len(widths) - 1) + 2 * GROUP_PADDING


def _stretch(column: Sequence[Area], nodes: Mapping[str, Node], tall: dict[str, float], lowest: float) -> None:
    """Let nodes that may grow fill a column down to `lowest`, in the last area that has any; edits `tall`."""
    lack = lowest - _column_height(column, tall)
    growing = [area for area in column if any(nodes[name].stretch for stack in area.stacks for name in stack)]
    for area in growing[-1:]:
        target = _area_height(area, tall) - GROUP_TITLE - GROUP_PADDING + lack
        for stack in area.stacks:
            for name in [name for name in stack if nodes[name].stretch][-1:]:
                tall[name] += target - _stack_height(stack, tall)


def _area_places(
    area: Area, nodes: Mapping[str, Node], tall: Mapping[str, float], left: float, top: float, width: float
) -> dict[str, Place]:
    """Places of an area's nodes; those of a single stack take the width of their column."""
    places: dict[str, Place] = {}
    x = left + GROUP_PADDING
    wide = width - 2 * GROUP_PADDING if len(area.stacks) == 1 else 0.0
    for stack in area.stacks:
        y = top + GROUP_TITLE
        for name in stack:
            places[name] = (x, y + NODE_TITLE, max(wide, nodes[name].width), tall[name] - NODE_TITLE)
            y += tall[name] + NODE_GAP
        x += max(nodes[name].width for name in stack) + STACK_GAP
    return places
