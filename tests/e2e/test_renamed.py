"""A renamed node in an old workflow: the page says what replaces it, replaces it, and the workflow runs as before.

No node of the pack has been renamed yet, so the bench's pack declares that MOVA Decode was once another.
"""

from __future__ import annotations

from tests.comfy import needs_browser, needs_comfy
from tools.comfy.page import Page, differences

from .graphs import Workflow, api_graph, node_of, read

pytestmark = [needs_comfy, needs_browser]

OLD, FIRST = "MOVAOldDecode", "mova_image_to_video_audio"
OLD_NAMES = {"latent": "samples", "tile_size": "tile", "overlap": "seam"}
ERRORS = "document.querySelector('[data-testid=error-overlay-see-errors]')"
REPLACE = "[...document.querySelectorAll('button')].find((button) => button.innerText.trim() === 'Replace Node')"


def old_workflow() -> Workflow:
    """The image-to-video workflow as it would have been saved under the old name and the old names of inputs."""
    workflow = read(FIRST)
    (node,) = (node for node in workflow["nodes"] if node["type"] == "MOVADecode")
    node["type"] = node["properties"]["Node name for S&R"] = OLD
    node["widgets_values"] = [256, 32]
    del node["widgets_values_named"]
    for slot in node["inputs"]:
        slot["name"] = OLD_NAMES.get(slot["name"], slot["name"])
        if "widget" in slot:
            slot["widget"]["name"] = slot["name"]
    return workflow


def test_the_page_migrates_an_old_workflow_to_the_node_of_today(page: Page) -> None:
    report = page.load(old_workflow(), "old")
    assert OLD in report.missing_types
    page.evaluate(f"{ERRORS}.click(); true")
    page.wait_for(f"!!{REPLACE}", timeout=30)
    assert "MOVADecode" in page.evaluate("document.body.innerText")
    page.evaluate(f"{REPLACE}.click(); true")
    page.settle()
    after = page.report()
    assert after.intact, after
    wanted = api_graph(read(FIRST))
    wanted[node_of(wanted, "MOVADecode")]["inputs"] |= {"tile_size": 256, "overlap": 32}
    assert differences(wanted, page.api_graph()) == []
