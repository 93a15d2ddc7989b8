"""ComfyUI's page in a headless browser: load workflows, see what the user would see, make workflow files.

    with ComfyServer(base, pack=pack) as server, chromium() as browser, Page.open(browser, server.url) as page:
        report = page.load(workflow)            # UI format
        assert report.fine, report
        assert page.run().status == "success"
        page.screenshot(Path("workflow.png"))

`page.to_workflow(api_graph, layout)` turns an API-format graph into a UI-format workflow with the page's own code.
Written for frontend 1.49; what is read from the page's private stores is optional and reported as empty elsewhere.
"""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.comfy.browser import BrowserError
from tools.comfy.page_scripts import (
    ADD_GROUPS,
    CLOSE_DIALOGS,
    CLOSE_OTHER_TABS,
    NODE_BOXES,
    PLACE,
    READY,
    REPORT,
    WATCH,
)
from tools.comfy.prompts import Graph

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage
    from playwright.sync_api import Page as Tab

Workflow = dict[str, Any]  # UI format

# The page of someone who installed this version and has been here before: no tour, no template picker, no news.
PAGE_SETTINGS: Mapping[str, Any] = {
    "Comfy.TutorialCompleted": True,
    "Comfy.OnboardingCoachmarks.Seen": ["appMode", "firstRun"],
    "Comfy.InstalledVersion": "1.49.6",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.Persist": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Locale": "en",
}
PAGE_SIZE = (1600, 1000)  # of the page, in pixels
GROUP_PADDING, GROUP_TITLE = 20, 50


@dataclass(frozen=True)
class Note:
    """A Markdown note on the canvas."""

    text: str
    position: tuple[float, float]
    size: tuple[float, float] = (400, 240)
    title: str = "Note"


@dataclass(frozen=True)
class Group:
    """A titled box drawn around nodes, given by their ids."""

    title: str
    nodes: Sequence[str]
    color: str = "#3f789e"


@dataclass(frozen=True)
class Layout:
    """Where a workflow's nodes stand and what surrounds them; ids are those of the API graph.

    Attributes:
        positions: top left corner of each node; nodes not named are arranged by the page.
        sizes: width and height; the page's own minimum otherwise.
        titles: titles instead of the nodes' display names.
        colors: (title bar, body) colours, e.g. ("#232", "#353").
        properties: entries for a node's properties, e.g. {"models": [{"name", "url", "directory"}]}.
        after_generate: what seeds do after a run: "fixed", "randomize", "increment".
        unfolded: nodes that show their advanced widgets.
        labels: what widgets are called instead of their names, by node.
    """

    positions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    colors: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Sequence[Group] = ()
    notes: Sequence[Note] = ()
    after_generate: str = "fixed"
    unfolded: Sequence[str] = ()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class PageReport:
    """What the page says about the workflow it shows; every list is empty when all is well."""

    nodes: int
    missing_types: Sequence[str] = ()
    red_nodes: Sequence[str] = ()
    broken_links: Sequence[str] = ()
    missing_models: Sequence[str] = ()
    missing_media: Sequence[str] = ()
    node_errors: Mapping[str, Any] = field(default_factory=dict)
    prompt_error: Mapping[str, Any] | None = None
    dialogs: Sequence[str] = ()
    toasts: Sequence[str] = ()
    overlay: str = ""

    @property
    def intact(self) -> bool:
        """Every node is known and every link arrives; model and media files may still be absent (and colour it red)."""
        return not (self.missing_types or self.broken_links or self.dialogs)

    @property
    def fine(self) -> bool:
        """`intact`, no error shown, and no file missing."""
        files = self.missing_models or self.missing_media
        return self.intact and not (self.red_nodes or files or self.node_errors or self.prompt_error or self.overlay)


@dataclass(frozen=True)
class Run:
    """How a run started from the page ended: "success", "error", "interrupted" or "refused"."""

    status: str
    message: str
    node: str | None
    previews: int
    prompt_id: str | None


class Page:
    """ComfyUI's page in a tab of its own, with cookies and storage of its own.

    Attributes:
        tab: playwright's page.
        messages: errors and warnings of the page's console, uncaught exceptions.
    """

    def __init__(self, url: str, tab: Tab) -> None:
        self.url, self.tab = url, tab
        self.messages: list[str] = []
        tab.on("console", self._note)
        tab.on("pageerror", lambda error: self.messages.append(f"exception: {error}"))
        tab.on("dialog", lambda dialog: dialog.accept())  # leaving a page with an unsaved workflow

    @classmethod
    def open(cls, browser: Browser, url: str, *, settings: Mapping[str, Any] | None = None) -> Page:
        """A page of the ComfyUI at `url`, past the greetings of a first visit.

        Args:
            settings: ComfyUI settings to store first, e.g. {"Comfy.VueNodes.Enabled": True}; they stay on the server.
        """
        store_settings(url, {**PAGE_SETTINGS, **(settings or {})})
        page = cls(url, browser.new_page(viewport={"width": PAGE_SIZE[0], "height": PAGE_SIZE[1]}))
        try:
            page.reload()
        except BaseException:
            page.close()
            raise
        return page

    def reload(self) -> None:
        """Fetch the page anew: it then knows of new files in the model and input folders, and of changed settings."""
        self.tab.goto(self.url)
        self.wait_for(READY, timeout=120)
        self.settle()
        self.close_dialogs()
        self.messages.clear()  # of the default graph's absent models, and of a fresh user folder

    def close(self) -> None:
        self.tab.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- scripts

    def evaluate(self, script: str, *arguments: Any) -> Any:
        """Value of a JavaScript expression; a promise is awaited. With `arguments` the script is a function of them.

        Raises:
            BrowserError: the script threw; the message is its own.
        """
        from playwright.sync_api import Error

        try:
            return self.tab.evaluate(f"(given) => ({script})(...given)" if arguments else script, list(arguments))
        except Error as error:
            raise BrowserError(error.message) from None

    def wait_for(self, script: str, timeout: float = 60) -> Any:
        """Value of an expression once it is truthy; `timeout` in seconds.

        Raises:
            BrowserError: it did not become so in time.
        """
        from playwright.sync_api import TimeoutError as TooLate

        try:
            return self.tab.wait_for_function(script, timeout=1000 * timeout, polling=100).json_value()
        except TooLate:
            words = f"waited {timeout} s for {script}; the console said: {self.messages[-5:]}"
            raise BrowserError(words) from None

    # -------------------------------------------------------------- workflows

    def load(self, workflow: Mapping[str, Any], name: str = "workflow") -> PageReport:
        """Open a UI-format workflow as if its file had been dropped on the page, as the only tab; the page fits it.

        The page keeps what nodes showed by the name of the workflow: give another workflow another name.
        """
        script = "(workflow, name) => app.loadGraphData(workflow, true, true, name).then(() => true)"
        self.evaluate(script, workflow, name)
        self.evaluate(CLOSE_OTHER_TABS)
        self.evaluate(CLOSE_DIALOGS)
        self.settle()
        return self.report()

    def load_api(self, graph: Graph, name: str = "graph") -> PageReport:
        """Open an API-format graph as if its file had been dropped on the page."""
        self.evaluate("(graph, name) => app.loadApiJson(graph, name).then(() => true)", graph, name)
        self.settle()
        return self.report()

    def report(self) -> PageReport:
        """What the page says about the workflow it shows."""
        return PageReport(**self.evaluate(REPORT))

    def workflow(self) -> Workflow:
        """The workflow on the canvas, UI format."""
        return self.evaluate("app.graph.serialize()")

    def api_graph(self) -> dict[str, Any]:
        """The workflow on the canvas as the page would send it to the server, API format."""
        return self.evaluate("app.graphToPrompt().then((prompt) => prompt.output)")

    def widgets(self, node: str | int) -> dict[str, Any]:
        """Widget values of a node by name."""
        script = """(id) => Object.fromEntries(
            (app.graph.getNodeById(id)?.widgets ?? []).map((widget) => [widget.name, widget.value]))"""
        return self.evaluate(script, node_id(node))

    def set_widget(self, node: str | int, name: str, value: Any) -> None:
        """Change a widget as an edit of the user would."""
        script = """(id, name, value) => {
            const widget = app.graph.getNodeById(id)?.widgets?.find((each) => each.name === name);
            if (!widget) throw new Error(`node ${id} has no widget ${name}`);
            widget.value = value;
            widget.callback?.(value);
        }"""
        self.evaluate(script, node_id(node), name, value)

    def overlaps(self) -> list[tuple[str, str]]:
        """Pairs of nodes ("id type") that lie on one another."""
        boxes = self.evaluate(NODE_BOXES)
        named = [(f"{entry['id']} {entry['type']}", entry["box"]) for entry in boxes]
        return [(a, b) for i, (a, box) in enumerate(named) for b, other in named[i + 1 :] if touch(box, other)]

    def to_workflow(self, graph: Graph, layout: Layout | None = None) -> Workflow:
        """An API-format graph as a UI-format workflow, made by the page itself.

        Raises:
            BrowserError: a node type is unknown, the layout names a node that is not there, or the workflow,
                loaded again, would not run the same graph.
        """
        layout = layout or Layout()
        report = self.load_api(graph)
        if report.missing_types or report.broken_links:
            raise BrowserError(f"unknown nodes {report.missing_types}, broken links {report.broken_links}")
        self.evaluate(PLACE, as_json(layout))
        boxes = {entry["id"]: entry["box"] for entry in self.evaluate(NODE_BOXES)}
        groups = [{"title": g.title, "color": g.color, "box": around(boxes, g.nodes)} for g in layout.groups]
        self.evaluate(ADD_GROUPS, groups)
        self.fit()
        workflow = {**self.workflow(), "id": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(graph, sort_keys=True)))}
        self.load(workflow)
        if difference := differences(graph, self.api_graph()):
            raise BrowserError("the workflow would not run the same graph:\n" + "\n".join(difference))
        return workflow

    # ---------------------------------------------------------------- running

    def start(self) -> None:
        """Press Run."""
        self.evaluate(WATCH)

    def wait(self, timeout: float = 300) -> Run:
        """Wait for the end of what `start` began."""
        self.wait_for("window.__run?.status", timeout)
        self.settle()
        return Run(**self.evaluate("window.__run"))

    def run(self, timeout: float = 300) -> Run:
        """`start` and `wait` in one."""
        self.start()
        return self.wait(timeout)

    # ------------------------------------------------------------------- view

    def fit(self) -> None:
        """Show the whole workflow."""
        self.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView').then(() => true)")
        self.settle()

    def close_dialogs(self) -> None:
        """Close whatever dialog and side panel is open."""
        self.evaluate(CLOSE_DIALOGS)
        self.settle()

    def screenshot(self, path: Path) -> Path:
        """Write a PNG of the page."""
        self.evaluate("app.canvas.setDirty(true, true)")
        self.settle()
        self.tab.screenshot(path=path)
        return path

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        self.tab.set_viewport_size({"width": width, "height": height})
        self.settle(0.3)

    def errors(self) -> list[str]:
        """Uncaught exceptions and console errors so far, without look-ups that a closed network or a new user cause."""
        optional = ("/api/userdata", "Content Security Policy")
        return [m for m in self.messages if not m.startswith("warning") and not any(o in m for o in optional)]

    def settle(self, seconds: float = 0.1) -> None:
        """Let pending drawing and animations finish."""
        time.sleep(seconds)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.messages.append(f"{message.type}: {message.text} {message.location.get('url', '')}")


def store_settings(url: str, settings: Mapping[str, Any]) -> None:
    """Store settings of the page on the server."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/settings", json.dumps(settings).encode(), headers, method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).read()


def node_id(node: str | int) -> str | int:
    """A node id as the page's graph keeps it: a number where it looks like one."""
    return int(node) if str(node).isdigit() else node


def as_json(layout: Layout) -> dict[str, Any]:
    """A layout as the page's script takes it."""
    content = {name: value for name, value in vars(layout).items() if name != "groups"}
    return {**content, "notes": [vars(note) for note in layout.notes]}


def around(boxes: Mapping[str, Sequence[float]], nodes: Sequence[str]) -> list[float]:
    """Box [x, y, width, height] of a group around some nodes.

    Raises:
        BrowserError: a node is not there.
    """
    if unknown := [node for node in nodes if node not in boxes]:
        raise BrowserError(f"a group names nodes {unknown}, which the graph does not have")
    left, top = (min(boxes[node][axis] for node in nodes) for axis in (0, 1))
    right, bottom = (max(boxes[node][axis] + boxes[node][axis + 2] for node in nodes) for axis in (0, 1))
    x, y = left - GROUP_PADDING, top - GROUP_TITLE
    return [x, y, right + GROUP_PADDING - x, bottom + GROUP_PADDING - y]


def touch(a: Sequence[float], b: Sequence[float]) -> bool:
    """Do two boxes [x, y, width, height] overlap?"""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def differences(wanted: Graph, got: Graph) -> list[str]:
    """Where two API graphs differ in node types and in the inputs that `wanted` names."""
    lines = [f"node {node} is missing" for node in wanted if node not in got]
    for node in (node for node in wanted if node in got):
        if wanted[node]["class_type"] != got[node]["class_type"]:
            lines.append(f"node {node} is {got[node]['class_type']}, not {wanted[node]['class_type']}")
        for name, value in wanted[node].get("inputs", {}).items():
            if (now := got[node]["inputs"].get(name)) != value:
                lines.append(f"node {node} ({wanted[node]['class_type']}) {name}: {now!r}, not {value!r}")
    return lines + [f"node {node} is new" for node in got if node not in wanted]
