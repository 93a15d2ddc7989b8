"""Pictures of the nodes for their help pages, as ComfyUI's own page draws them in each language.

    python -m tools.docs.node_pictures           # all of them
    python -m tools.docs.node_pictures NODE ...  # some, by id

Writes web/docs/<NodeId>/<language>.png, to which the help pages link. Run it after a change of a node's inputs. Needs
ComfyUI and Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tools.comfy.browser import chromium
from tools.comfy.find import REPOSITORY
from tools.comfy.graph_picture import AROUND, SMALL_TEXT_DRAWN, graph_picture
from tools.comfy.page import Page
from tools.comfy.server import ComfyServer
from tools.docs.node_docs import PAGES
from tools.docs.node_table import SCHEMA
from tools.templates.published import FIRST_FRAME
from tools.templates.workflows import write_models

SHOWN = "shown"  # text kept in a picture: title, inputs and outputs, for a test to see that they are those of today
LANGUAGES = ("en", "zh")
WIDTH, NODE_COLORS = 380, 128  # of a node without its surroundings, in pixels; of a picture

ALONE = """
(type, id, width) => {
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  node.id = id;  // the page keeps values by id and name: an id of another node would bring its values along
  app.graph.add(node);
  node.pos = [0, 0];
  node.setSize([Math.max(width, node.computeSize()[0]), node.computeSize()[1]]);
  app.canvas.draw(true, true);  // which measures it
  const labels = (slots) => slots.map((slot) => [slot.name, slot.label ?? slot.localized_name ?? slot.name]);
  return {width: node.size[0], shown: [node.title, labels(node.inputs), labels(node.outputs)]};
}"""


def picture(language: str, node_id: str) -> Path:
    return PAGES / node_id / f"{language}.png"


def write_picture(page: Page, language: str, node_id: str) -> Path:
    """The node alone on the canvas, new, at the page's own scale."""
    alone = page.evaluate(ALONE, node_id, zlib.crc32(node_id.encode()), WIDTH)
    path = picture(language, node_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = graph_picture(page, round(alone["width"]) + 2 * AROUND)
    words = PngInfo()
    words.add_itxt(SHOWN, json.dumps(alone["shown"], ensure_ascii=False))
    drawn.quantize(NODE_COLORS, dither=Image.Dither.NONE).save(path, optimize=True, pnginfo=words)
    return path


def write_pictures(nodes: Sequence[str], folder: Path) -> None:
    write_models(folder / "models")
    with chromium() as browser, ComfyServer(folder, pack=REPOSITORY) as server:
        shutil.copy(server.comfyui / "input" / FIRST_FRAME, server.input)
        for language in LANGUAGES:
            settings = {**SMALL_TEXT_DRAWN, "Comfy.Locale": language, "Comfy.NodeBadge.NodeSourceBadgeMode": "None"}
            with Page.open(browser, server.url, settings=settings) as page:
                for node_id in nodes:
                    print(write_picture(page, language, node_id).relative_to(REPOSITORY))


def main() -> None:
    known = list(json.loads(SCHEMA.read_text(encoding="utf-8")))
    parser = argparse.ArgumentParser(description="Write the pictures of the help pages.")
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="all by default")
    options = parser.parse_args()
    if unknown := set(options.nodes) - set(known):
        parser.error(f"no node has the id {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(options.nodes or known, Path(folder))


if __name__ == "__main__":
    main()
