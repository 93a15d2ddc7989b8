"""The running ComfyUI gives its page the help pages and translations, where the page asks for them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.page import Page, store_settings
from tools.comfy.server import ComfyServer
from tools.docs import node_docs, node_pictures

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_comfy
INFO = "[data-testid=info-button]"
PICTURE = "document.querySelector('.node-help-content img')"
SELECT = """app.canvas.selectItems([app.graph.nodes[0]]);
    app.canvas.onSelectionChange?.(app.canvas.selected_nodes); true"""


def got(server: ComfyServer, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(server.url + path, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        return error.code, ""


def pack_name(server: ComfyServer) -> str:
    """The folder under custom_nodes, by which the page builds its addresses."""
    module: str = server.object_info("MOVALoader")["MOVALoader"]["python_module"]
    return module.removeprefix("custom_nodes.")


def test_the_page_gets_chinese_help_and_english_where_it_asks_for_another(server: ComfyServer) -> None:
    base = f"/extensions/{pack_name(server)}/docs"
    for node_id in ("MOVALoader", "MOVABugReport"):
        assert got(server, f"{base}/{node_id}/zh.md") == (200, node_docs.page(node_id, "zh").read_text("utf-8"))
        assert got(server, f"{base}/{node_id}/fr.md")[0] == 404
        assert got(server, f"{base}/{node_id}.md") == (200, node_docs.page(node_id, "en").read_text("utf-8"))


def test_the_page_gets_the_translations(server: ComfyServer) -> None:
    read = server._get("/i18n")
    assert read["zh"]["nodeDefs"]["MOVALoader"] == node_docs.locale("zh")["MOVALoader"]
    assert read["en"]["nodeDefs"]["MOVALoader"] == node_docs.locale("en")["MOVALoader"]


def test_a_bug_report_runs_without_a_model(server: ComfyServer) -> None:
    result = server.run({"1": {"class_type": "MOVABugReport", "inputs": {}}})
    (text,) = result.text("1")
    assert "ComfyUI 0." in text
    assert str(server.base) not in text
    assert "--base-directory (set)" in text


@needs_browser
def test_the_help_panel_shows_the_picture_of_the_node(page: Page) -> None:
    page.load_api({"1": {"class_type": "MOVAMask", "inputs": {}}})
    page.evaluate(SELECT)
    page.wait_for(f"!!document.querySelector('{INFO}')", timeout=30)
    page.evaluate(f"document.querySelector('{INFO}').click(); true")
    page.wait_for("document.body.innerText.includes('Common mistakes')", timeout=30)
    assert picture_width(page) == Image.open(node_pictures.picture("en", "MOVAMask")).width


@pytest.fixture(scope="module")
def chinese(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    with Page.open(browser, server.url, settings={"Comfy.Locale": "zh"}) as opened:
        yield opened
    store_settings(server.url, {"Comfy.Locale": "en"})


@needs_browser
def test_a_chinese_page_names_the_nodes_in_chinese(chinese: Page) -> None:
    titles = chinese.evaluate("Object.entries(LiteGraph.registered_node_types).map(([id, node]) => [id, node.title])")
    words = node_docs.locale("zh")
    named = {node_id: title for node_id, title in titles if node_id in words}
    assert named == {node_id: told["display_name"] for node_id, told in words.items()}


@needs_browser
def test_the_help_panel_shows_the_chinese_page(chinese: Page) -> None:
    chinese.load_api({"1": {"class_type": "MOVADecode", "inputs": {}}})
    chinese.evaluate(SELECT)
    chinese.wait_for(f"!!document.querySelector('{INFO}')", timeout=30)
    chinese.evaluate(f"document.querySelector('{INFO}').click(); true")
    chinese.wait_for("document.body.innerText.includes('\u5e38\u89c1\u9519\u8bef')", timeout=30)
    shown = chinese.evaluate("document.body.innerText")
    assert node_docs.locale("zh")["MOVADecode"]["inputs"]["tile_size"]["tooltip"] in shown
    assert "tools/docs/node_docs.py" not in shown
    assert picture_width(chinese) == Image.open(node_pictures.picture("zh", "MOVADecode")).width


def picture_width(page: Page) -> int:
    """Pixels of the picture in the help panel, once it is there; an absent file has none."""
    page.wait_for(f"{PICTURE}?.complete", timeout=30)
    width: int = page.evaluate(f"{PICTURE}.naturalWidth")
    return width
