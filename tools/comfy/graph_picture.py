"""Pictures of a whole graph, cut out of ComfyUI's page: no side bars, no empty canvas."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from tools.comfy.page import PAGE_SIZE, Page

# Text is drawn at any zoom; by default small text becomes bars.
SMALL_TEXT_DRAWN = {"LiteGraph.Canvas.MinFontSizeForLOD": 0}
AROUND = 24  # pixels of canvas kept on every side
PAGE_BARS = 160  # more than the page's side, top and bottom bars take

BOUNDS = """
(() => {
  const boxes = [...app.graph._nodes.map((node) => node.getBounding()), ...app.graph._groups.map((g) => g._bounding)];
  const low = (axis) => Math.min(...boxes.map((box) => box[axis]));
  const high = (axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2]));
  return [low(0), low(1), high(0), high(1)];
})()"""
SHOW = """
(left, top, scale, margin) => {
  app.canvas.deselectAll();
  const view = app.canvas.ds;
  view.scale = scale;
  view.offset[0] = margin / scale - left;
  view.offset[1] = margin / scale - top;
  app.canvas.setDirty(true, true);
  const box = app.canvas.canvas.getBoundingClientRect();
  return [box.left, box.top];
}"""


def graph_picture(page: Page, width: int) -> Image.Image:
    """The graph that the page shows, `width` pixels wide; the page's size is put back."""
    left, top, right, bottom = page.evaluate(BOUNDS)
    scale = (width - 2 * AROUND) / (right - left)
    height = round((bottom - top) * scale) + 2 * AROUND
    page.resize(width + 2 * PAGE_BARS, height + 2 * PAGE_BARS)
    try:
        x, y = page.evaluate(SHOW, left, top, scale, PAGE_BARS + AROUND)
        with tempfile.TemporaryDirectory() as folder:
            whole = Image.open(io.BytesIO(page.screenshot(Path(folder) / "page.png").read_bytes())).convert("RGB")
    finally:
        page.resize(*PAGE_SIZE)
    left, top = round(x) + PAGE_BARS, round(y) + PAGE_BARS
    return whole.crop((left, top, left + width, top + height))
