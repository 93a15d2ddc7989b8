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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.fixtures.single_files import write_single_files
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.tiny_companions import write_companions
from tests.fixtures.tiny_lora import write_tiny_lora
from tools.comfy.browser import chromium
from tools.comfy.graph_picture import SETTINGS
from tools.comfy.page import SIZE, Page, Workflow
from tools.comfy.page_scripts import NODE_BOXES, VUE_HEIGHTS
from tools.comfy.server import ComfyServer
from tools.templates.apps import APP_TEMPLATES
from tools.templates.basics import BASIC_TEMPLATES, LORAS
from tools.templates.card import write_card
from tools.templates.chains import CHAIN_TEMPLATES
from tools.templates.fast import FAST_LORAS, FAST_TEMPLATES
from tools.templates.files import FILE_TEMPLATES
from tools.templates.film import FILM_TEMPLATES
from tools.templates.parts import FIRST_FRAME, MODEL
from tools.templates.streams import STREAM_TEMPLATES
from tools.templates.template import WIDE, Template, api_graph, app_mode, layout
from tools.templates.training import TRAINING_TEMPLATES

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
IMAGES = ROOT / "docs" / "images"

APP_SIZE = (1280, 1060)
CHINESE_HEIGHT, LARGE_CHINESE_HEIGHT = 90, 160  # pixels of a title and three lines, in either size of letters

TEMPLATES: Mapping[str, Callable[[], Template]] = {
    **BASIC_TEMPLATES,
    **APP_TEMPLATES,
    **FILE_TEMPLATES,
    **FAST_TEMPLATES,
    **STREAM_TEMPLATES,
    **CHAIN_TEMPLATES,
    **FILM_TEMPLATES,
    **TRAINING_TEMPLATES,
}


@dataclass(frozen=True)
class Name:
    """What people call a template.

    Attributes:
        file: of its file, which is all that ComfyUI shows: a number for the order, and ASCII, since the registry's
            publisher leaves out files whose names git quotes.
        chinese: its title, drawn into the thumbnail.
        about: the note in short, in Chinese, which stands under the title at the end of the English one.
    """

    file: str
    chinese: str
    about: str = ""


NAMES: Mapping[str, Name] = {
    key: Name(**name)
    for key, name in json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8")).items()
}


def workflow_file(key: str) -> Path:
    return WORKFLOWS / f"{NAMES[key].file}.json"


def thumbnail(key: str) -> Path:
    """The name that ComfyUI's page asks for: that of the template, which may hold a point, and .jpg."""
    return WORKFLOWS / f"{NAMES[key].file}.jpg"


def draw_thumbnail(key: str) -> None:
    write_card(TEMPLATES[key]().card, NAMES[key].file, NAMES[key].chinese, thumbnail(key))


# --------------------------------------------------------------------------------------------------- from code to files


class Press:
    """ComfyUI's page in both ways of drawing nodes: a template's places fit both.

    Attributes:
        page: the page that shows and saves; the other is asked for heights alone.
    """

    def __init__(self, browser: Browser, server: ComfyServer) -> None:
        self.newer = Page.open(browser, server.url, settings={**SETTINGS, "Comfy.VueNodes.Enabled": True})
        self.page = Page.open(browser, server.url, settings={**SETTINGS, "Comfy.VueNodes.Enabled": False})

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


def in_both_languages(template: Template, name: Name) -> Template:
    """With the note in Chinese after the English, and room for it."""
    if not name.about:
        return template
    note = f"{template.note}\n\n# {name.chinese}\n\n{name.about}"
    more = LARGE_CHINESE_HEIGHT if len(template.columns) >= WIDE else CHINESE_HEIGHT
    return replace(template, note=note, note_height=template.note_height + more)


def write_template(press: Press, key: str) -> None:
    """The file of a template and its thumbnail."""
    template = in_both_languages(TEMPLATES[key](), NAMES[key])
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
    page.resize(*SIZE)


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
        with chromium() as browser, ComfyServer(base, pack=ROOT) as server:
            shutil.copy(server.comfyui / "input" / FIRST_FRAME, server.input)
            press = Press(browser, server)
            for key in keys:
                write_template(press, key)
                print(workflow_file(key))
            for key in APP_TEMPLATES.keys() & set(keys):
                write_app_picture(press.page, key)


def write_models(models: Path) -> None:
    """Tiny files by all names that templates ask for."""
    write_tiny_checkpoint(models / "diffusers" / MODEL)
    write_single_files(models)
    for name in (*LORAS.values(), *FAST_LORAS.values()):
        write_tiny_lora(models / "loras" / name)
    write_companions(models)


if __name__ == "__main__":
    main()
