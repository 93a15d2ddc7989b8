"""Where a template's note stands: above its first column, or before it where the graph would be too high to be read."""

from __future__ import annotations

from tools.comfy.page import Layout
from tools.templates.template import CANVAS, NOTE_WIDTH, READABLE, Area, Node, Template, layout


def laid_out(height: float, columns: int = 3, note: str = "Read.") -> Layout:
    """Of one node of that height a column."""
    names = [f"node{n}" for n in range(columns)]
    areas = [[Area(name, ((name,),))] for name in names]
    template = Template(dict.fromkeys(names, Node("Kind")), areas, note)
    return layout(template, {str(n): height for n in range(1, columns + 1)})


def test_a_note_stands_above_the_first_column_of_a_low_graph() -> None:
    told = laid_out(300)
    assert told.notes[0].position[0] == told.positions["1"][0] - 20  # the area's padding
    assert told.positions["1"][1] > told.notes[0].size[1]
    assert told.positions["2"][1] < told.positions["1"][1]


def test_a_note_stands_before_the_first_column_of_a_high_graph() -> None:
    told = laid_out(0.9 * CANVAS[1] / READABLE)
    assert told.positions["1"][0] > NOTE_WIDTH
    assert told.positions["1"][1] == told.positions["2"][1]


def test_a_graph_that_is_too_wide_either_way_keeps_its_note_above() -> None:
    told = laid_out(300, columns=12)
    assert told.positions["1"][0] < NOTE_WIDTH


def test_a_graph_without_a_note_begins_at_the_left() -> None:
    assert laid_out(2000, note="").positions["1"][0] < NOTE_WIDTH
