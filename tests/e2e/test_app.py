"""The workflow that opens as an app: it shows what its file says, and runs from its own Run button."""

from __future__ import annotations

import pytest

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.page import Page
from tools.templates.library import TEMPLATES

from .graphs import NAMES, SMALL, Workflow, api_graph, node_of, read, small

(NAME,) = (key for key, template in TEMPLATES.items() if template.app)
LABELS = """
[...document.querySelectorAll('[data-testid=linear-widgets] [data-testid=builder-widget-label]')]
    .map((label) => label.innerText.trim())"""
PRESS_RUN = """
[...document.querySelectorAll('[data-testid=linear-run-button] button')]
    .find((button) => button.innerText.trim() === 'Run').click()"""
CLIP = "document.querySelector('[data-testid=linear-center-panel] video[controls]')"


def shown(workflow: Workflow) -> list[tuple[str, str]]:
    return [(node, widget) for node, widget in workflow["extra"]["linearData"]["inputs"]]


def labels(workflow: Workflow) -> list[str]:
    """What the file calls the widgets of the app."""
    named = {
        (str(node["id"]), slot["widget"]["name"]): slot.get("label")
        for node in workflow["nodes"]
        for slot in node["inputs"]
        if "widget" in slot
    }
    return [named.get((node, widget)) or widget for node, widget in shown(workflow)]


def test_it_opens_as_an_app_and_shows_widgets_that_are_there() -> None:
    workflow = read(NAME)
    graph = api_graph(workflow)
    assert workflow["extra"]["linearMode"] is True
    assert [(node, widget) for node, widget in shown(workflow) if widget not in graph[node]["inputs"]] == []
    assert [graph[node]["class_type"] for node in workflow["extra"]["linearData"]["outputs"]] == ["SaveVideo"]


def test_no_other_workflow_opens_as_one() -> None:
    assert [name for name in NAMES if "linearMode" in read(name)["extra"]] == [NAME]


@pytest.fixture
def app(page: Page) -> Page:
    """The page with the app."""
    assert page.load(read(NAME), NAME).fine
    return page


@needs_comfy
@needs_browser
def test_the_page_shows_the_app_and_runs_it_to_a_playable_clip(app: Page) -> None:
    assert app.evaluate(LABELS) == labels(read(NAME))
    assert {"width", "height", "quality: full and max need no LoRA files"} <= set(
        labels(read(NAME))
    )  # size and quality
    assert any("Name: words" in label for label in labels(read(NAME)))
    for node, content in small(api_graph(read(NAME))).items():
        for name in content["inputs"].keys() & SMALL.keys() - {"image"}:
            if not isinstance(content["inputs"][name], list):
                app.set_widget(node, name, SMALL[name])
        if "quality" in content["inputs"]:
            app.set_widget(node, "quality", "light")
    app.evaluate(PRESS_RUN)
    app.wait_for(f"{CLIP}?.readyState >= 2", timeout=300)
    assert app.evaluate(f"[{CLIP}.videoWidth, {CLIP}.videoHeight]") == [SMALL["width"], SMALL["height"]]
    assert app.report().fine


@needs_comfy
@needs_browser
def test_a_value_typed_into_the_app_goes_into_the_graph(app: Page) -> None:
    builder = node_of(api_graph(read(NAME)), "MOVAPromptBuilder")
    app.evaluate(
        """(text) => {
            const area = document.querySelectorAll('[data-testid=linear-widgets] textarea')[3];
            area.value = text;
            for (const kind of ['input', 'change']) area.dispatchEvent(new Event(kind, {bubbles: true}));
        }""",
        "Mova: Hello.",
    )
    app.settle()
    assert app.api_graph()[builder]["inputs"]["lines"] == "Mova: Hello."
