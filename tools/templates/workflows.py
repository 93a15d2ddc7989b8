"""The workflow templates of the pack, and the tool that turns them into files.

    python -m tools.templates.workflows                # all of them
    python -m tools.templates.workflows KEY ...        # some, e.g. mova_relay
    python -m tools.templates.workflows --cards        # the thumbnails alone; needs neither ComfyUI nor a browser

Writes workflows/<name>.json (UI format, made by ComfyUI's own page) and the thumbnail workflows/<name>.jpg, and for the
app docs/images/app.png. Needs ComfyUI and Chromium. How to add one is said in CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.fixtures.single_files import write_single_files
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.tiny_companions import write_companions
from tests.fixtures.tiny_lora import write_tiny_lora
from tools.comfy.browser import chromium
from tools.comfy.find import REPOSITORY
from tools.comfy.graph_picture import SMALL_TEXT_DRAWN
from tools.comfy.page import PAGE_SIZE, Page, Workflow
from tools.comfy.page_scripts import NODE_BOXES, VUE_HEIGHTS
from tools.comfy.server import ComfyServer
from tools.docs.palette import IMAGES
from tools.templates.card import write_card
from tools.templates.library import TEMPLATES
from tools.templates.published import FAST_LORAS, FIRST_FRAME, MODEL
from tools.templates.template import WIDE, Template, api_graph, app_mode, layout

WORKFLOWS = REPOSITORY / "workflows"

APP_SIZE = (1280, 1060)
CHINESE_HEIGHT, LARGE_CHINESE_HEIGHT = 90, 160  # pixels of a title and three lines, in either size of letters


def workflow_file(key: str) -> Path:
    return WORKFLOWS / f"{TEMPLATES[key].file}.json"


def thumbnail(key: str) -> Path:
    """The name that ComfyUI's page asks for: that of the template, which may hold a point, and .jpg."""
    return WORKFLOWS / f"{TEMPLATES[key].file}.jpg"


def draw_thumbnail(key: str) -> None:
    template = TEMPLATES[key]
    write_card(template.card, template.file, template.chinese, thumbnail(key))


# --------------------------------------------------------------------------------------------------- from code to files


class Press:
    """ComfyUI's page in both ways of drawing nodes: a template's places fit both.

    Attributes:
        page: the page that shows and saves; the other is asked for heights alone.
    """

    def __init__(self, browser: Browser, server: ComfyServer) -> None:
        self.newer = Page.open(browser, server.url, settings={**SMALL_TEXT_DRAWN, "Comfy.VueNodes.Enabled": True})
        self.page = Page.open(browser, server.url, settings={**SMALL_TEXT_DRAWN, "Comfy.VueNodes.Enabled": False})

    def heights(self, template: Template) -> dict[str, float]:
        """Of every node by id, title bar included: the larger of both ways."""
        graph = api_graph(template)
        self.page.reload()  # else inputs that the template does not name have the values of the graph before
        self.page.load_api(graph)
        self.newer.load_api(graph)
        self.newer.wait_for(f"document.querySelectorAll('[data-node-id]').length === {len(graph)}", timeout=30)
        self.newer.settle(0.5)
        seen = self.newer.evaluate(VUE_HEIGHTS)
        return {box["id"]: max(box["box"][3], seen.get(box["id"], 0)) for box in self.page.evaluate(NODE_BOXES)}


def to_workflow(press: Press, template: Template) -> Workflow:
    """The template as a UI-format workflow, left open in the page.

    Raises:
        BrowserError: a node or link is unknown to ComfyUI.
        ValueError: the page would show it with something red, missing, or on top of another.
    """
    page = press.page
    workflow = page.to_workflow(api_graph(template), layout(template, press.heights(template)))
    report = page.load(workflow)
    if not report.fine or (lying := page.overlaps()):
        raise ValueError(f"this workflow is not fit to be seen: {report if not report.fine else lying}")
    return workflow


def in_both_languages(template: Template) -> Template:
    """With the note in Chinese after the English, and room for it."""
    note = f"{template.note}\n\n# {template.chinese}\n\n{template.about}"
    more = LARGE_CHINESE_HEIGHT if len(template.columns) >= WIDE else CHINESE_HEIGHT
    return replace(template, note=note, note_height=template.note_height + more)


def write_template(press: Press, key: str) -> None:
    """The file of a template and its thumbnail."""
    template = in_both_languages(TEMPLATES[key])
    workflow = to_workflow(press, template)
    workflow["extra"] |= app_mode(template)
    content = json.dumps(workflow, ensure_ascii=False, indent=1)
    workflow_file(key).write_text(content + "\n", encoding="utf-8", newline="\n")
    draw_thumbnail(key)


def write_app_picture(page: Page, name: str) -> None:
    """docs/images/app.png: the page with a workflow that opens as an app."""
    page.load(json.loads(workflow_file(name).read_text(encoding="utf-8")), name)
    page.resize(*APP_SIZE)
    page.screenshot(IMAGES / "app.png")
    Image.open(IMAGES / "app.png").convert("RGB").quantize(256).save(IMAGES / "app.png", optimize=True)
    page.resize(*PAGE_SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the workflow templates, their thumbnails and the docs' pictures."
    )
    parser.add_argument("keys", nargs="*", metavar="KEY", help=f"all by default: {', '.join(TEMPLATES)}")
    parser.add_argument("--cards", action="store_true", help="the thumbnails alone")
    options = parser.parse_args()
    keys = options.keys or list(TEMPLATES)
    if unknown := set(keys) - set(TEMPLATES):
        parser.error(f"no workflow is called {', '.join(sorted(unknown))}; there are {', '.join(TEMPLATES)}")
    if options.cards:
        for key in keys:
            draw_thumbnail(key)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_models(base / "models")
        with chromium() as browser, ComfyServer(base, pack=REPOSITORY) as server:
            shutil.copy(server.comfyui / "input" / FIRST_FRAME, server.input)
            press = Press(browser, server)
            for key in keys:
                write_template(press, key)
                print(workflow_file(key))
            for key in (key for key in keys if TEMPLATES[key].app):
                write_app_picture(press.page, key)


def write_models(models: Path) -> None:
    """Tiny files by all names that templates ask for."""
    write_tiny_checkpoint(models / "diffusers" / MODEL)
    write_single_files(models)
    for name in FAST_LORAS:
        write_tiny_lora(models / "loras" / name)
    write_companions(models)


if __name__ == "__main__":
    main()
