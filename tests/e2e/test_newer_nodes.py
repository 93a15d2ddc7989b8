"""ComfyUI's newer nodes (Nodes 2.0, drawn by Vue) show the workflows as well: nothing on top of another, and folded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.page import Page, store_settings, touch
from tools.comfy.server import ComfyServer

from .graphs import CLIPS, read

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [needs_comfy, needs_browser]

GRAPHS = [name for name in CLIPS if not name.endswith(".app")]
BOXES = """
[...document.querySelectorAll('[data-node-id]')].map((node) => {
  const all = [node, ...node.querySelectorAll('*')].map((each) => each.getBoundingClientRect());
  const edges = all.filter((box) => box.width > 2 && box.height > 2);
  const [left, top] = [Math.min(...edges.map((box) => box.left)), Math.min(...edges.map((box) => box.top))];
  const {width} = node.getBoundingClientRect();  // long words in a list stand over, cut off
  const bottom = Math.max(...edges.map((box) => box.bottom));
  return [node.innerText.split('\\n')[0], [left, top, width, bottom - top]];
})"""
# Nodes that are drawn beyond their group, which is drawn on the canvas below them.
OUTSIDE = """
(() => {
  const {scale, offset} = app.canvas.ds, {left, top} = app.canvas.canvas.getBoundingClientRect();
  const groups = app.graph._groups.map(({pos, size}) => [
    left + (pos[0] + offset[0]) * scale, top + (pos[1] + offset[1]) * scale, size[0] * scale, size[1] * scale]);
  return [...document.querySelectorAll('[data-node-id]')].filter((node) => {
    const box = node.getBoundingClientRect(), slack = 2;
    const inside = groups.some(([x, y, w, h]) => box.left >= x - slack && box.right <= x + w + slack
      && box.top >= y - slack && box.bottom <= y + h + slack);
    return !inside && app.graph.getNodeById(Number(node.dataset.nodeId)).type !== 'MarkdownNote';
  }).map((node) => node.innerText.split('\\n')[0]);
})()"""
SAMPLER = "[...document.querySelectorAll('[data-node-id]')].find((node) => node.innerText.startsWith('MOVA Sampler'))"


@pytest.fixture(scope="module")
def newer(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    with Page.open(browser, server.url, settings={"Comfy.VueNodes.Enabled": True}) as opened:
        yield opened
    store_settings(server.url, {"Comfy.VueNodes.Enabled": False})


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_lies_on_anything(newer: Page, name: str) -> None:
    report = newer.load(read(name), name)
    assert report.intact, report
    newer.wait_for(f"document.querySelectorAll('[data-node-id]').length === {report.nodes}", timeout=30)
    newer.settle()
    boxes = newer.evaluate(BOXES)
    lying = [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[i + 1 :] if touch(box, other)]
    assert lying == []
    assert newer.evaluate(OUTSIDE) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("mova_image_to_video_audio", False), ("mova_text_to_video_audio", True)],
    ids=["folded", "unfolded"],
)
def test_what_few_people_change_is_folded_where_it_is_not_changed(newer: Page, name: str, shown: bool) -> None:
    newer.load(read(name), name)
    newer.wait_for(f"!!{SAMPLER}", timeout=30)
    newer.settle()
    words = newer.evaluate(f"{SAMPLER}.innerText").splitlines()
    assert "steps" in words
    assert ("audio_substeps" in words) is shown
    assert ("Show advanced inputs" in words) is not shown
