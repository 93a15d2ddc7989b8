"""The workflow files themselves, looked at without a server: they fit the promised schema and are whole."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from tests.comfy import PACK
from tools.templates.library import TEMPLATES
from tools.templates.workflows import WORKFLOWS, thumbnail

from .graphs import NAMES, Workflow, read

SCHEMA = json.loads((PACK / "tests" / "nodes" / "schema.json").read_text(encoding="utf-8"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
FILES = ("lora_name", "unet_name", "model_name", "clip_name", "vae_name")  # widgets that name a file of models/
DECORATION = {"MarkdownNote", "Note"}


@pytest.fixture(params=NAMES)
def workflow(request: pytest.FixtureRequest) -> Workflow:
    return read(request.param)


def ours(workflow: Workflow) -> list[dict]:
    return [node for node in workflow["nodes"] if node["type"] in SCHEMA]


def test_the_three_first_workflows_are_there() -> None:
    assert {"mova_image_to_video_audio", "mova_text_to_video_audio", "mova_two_samplers"} <= set(NAMES)


def test_every_node_of_the_pack_is_promised(workflow: Workflow) -> None:
    assert {node["type"] for node in workflow["nodes"] if node["type"].startswith("MOVA")} <= SCHEMA.keys()
    assert ours(workflow)


def test_links_name_each_other_from_both_ends(workflow: Workflow) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    seen = []
    for link, origin, slot, target, place, kind in workflow["links"]:
        output, taken = nodes[origin]["outputs"][slot], nodes[target]["inputs"][place]
        assert link in output["links"]
        assert taken["link"] == link
        assert kind in (output["type"], "*")
        assert set(taken["type"].split(",")) & {kind, "*"}
        seen.append(link)
    slots = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    assert sorted(slots) == sorted(seen)


def test_inputs_and_outputs_are_the_promised_ones_in_order(workflow: Workflow) -> None:
    for node in ours(workflow):
        promised = SCHEMA[node["type"]]
        kinds = {entry["id"]: entry["type"] for entry in promised["inputs"]}
        assert {slot["name"]: slot["type"] for slot in node["inputs"]}.items() <= kinds.items()
        outputs = [(slot["name"], slot["type"]) for slot in node["outputs"]]
        assert outputs == [(o["name"], o["type"]) for o in promised["outputs"]][: len(outputs)]
        required = {entry["id"] for entry in promised["inputs"] if not entry["optional"]}
        linked = {slot["name"] for slot in node["inputs"] if slot["link"] is not None}
        assert required <= linked | node.get("widgets_values_named", {}).keys()


def test_widget_values_stand_where_the_promised_order_wants_them(workflow: Workflow) -> None:
    for node in ours(workflow):
        promised = [entry["id"] for entry in SCHEMA[node["type"]]["inputs"] if entry["type"] in WIDGETS]
        saved = node.get("widgets_values_named", {})
        names = [name for name in saved if name != "control_after_generate"]
        assert names == promised[: len(names)]
        assert node.get("widgets_values", []) == list(saved.values())


def test_nothing_lies_on_anything_and_groups_hold_their_nodes(workflow: Workflow) -> None:
    boxes = [(node["pos"][0], node["pos"][1] - 30, *node["size"]) for node in workflow["nodes"]]
    for i, (x, y, width, height) in enumerate(boxes):
        for left, top, w, h in boxes[i + 1 :]:
            assert x >= left + w or left >= x + width or y >= top + h + 30 or top >= y + height + 30
    assert workflow["groups"]
    assert all(group["title"] for group in workflow["groups"])
    decorated = [node for node in workflow["nodes"] if node["type"] in DECORATION]
    grouped = [
        node
        for node in workflow["nodes"]
        for x, y, width, height in (group["bounding"] for group in workflow["groups"])
        if x <= node["pos"][0] <= x + width and y <= node["pos"][1] <= y + height
    ]
    assert len(grouped) == len(workflow["nodes"]) - len(decorated)


def test_one_note_says_what_it_does_and_where_the_model_comes_from(workflow: Workflow) -> None:
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    (text,) = note["widgets_values"]
    for needed in ("https://huggingface.co/OpenMOSS-Team/MOVA-360p", "models/diffusers", "640 x 352", "**Try**"):
        assert needed in text


@pytest.mark.parametrize("name", NAMES)
def test_the_note_ends_in_chinese(name: str) -> None:
    (note,) = (node for node in read(name)["nodes"] if node["type"] == "MarkdownNote")
    title, about = TEMPLATES[name].chinese, TEMPLATES[name].about
    assert about
    assert note["widgets_values"][0].rstrip().endswith(about)
    assert f"# {title}" in note["widgets_values"][0]


def test_loaders_carry_the_address_of_their_model(workflow: Workflow) -> None:
    loaders = [node for node in workflow["nodes"] if node["type"] == "MOVALoader"]
    for node in loaders:
        (model,) = node["properties"]["models"]
        assert model["name"] == node["widgets_values_named"]["folder"]
        assert model["url"].endswith(model["name"])
        assert model["directory"] == "diffusers"


def test_every_file_to_be_downloaded_has_its_address(workflow: Workflow) -> None:
    for node in workflow["nodes"]:
        named = node.get("widgets_values_named", {})
        files = [named[widget] for widget in FILES if widget in named]
        models = {model["name"]: model for model in node["properties"].get("models", ())}
        assert [name for name in files if name not in models] == []
        assert all(model["url"].endswith(f"/{name}") and model["directory"] for name, model in models.items())


def test_nothing_of_the_machine_it_was_made_on_is_in_it(workflow: Workflow) -> None:
    text = json.dumps(workflow)
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "C:\\\\", "127.0.0.1"))


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_small_thumbnail(name: str) -> None:
    path = thumbnail(name)
    assert path.stat().st_size < 60_000
    assert Image.open(path).size == (480, 480)


def test_no_two_thumbnails_are_alike() -> None:
    small = {name: Image.open(thumbnail(name)).convert("L").resize((60, 60)).tobytes() for name in NAMES}
    alike = [
        (a, b)
        for a, one in small.items()
        for b, other in small.items()
        if a < b and sum(abs(x - y) > 40 for x, y in zip(one, other)) < 20
    ]
    assert alike == []


def test_files_are_named_for_people_and_begin_here_is_first() -> None:
    names = sorted(name.file for name in TEMPLATES.values())
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == names
    assert names[0] == "01 Begin here"
    assert len({name[:2] for name in names}) == len(names)
    for name in TEMPLATES.values():
        number, _, words = name.file.removesuffix(".app").partition(" ")
        assert number.isdigit()
        assert re.fullmatch(r"[A-Za-z0-9 ]+", words)
        assert any("\u4e00" <= letter <= "\u9fff" for letter in name.chinese)


def test_seeds_are_fixed(workflow: Workflow) -> None:
    after = [node.get("widgets_values_named", {}).get("control_after_generate") for node in workflow["nodes"]]
    assert set(after) <= {None, "fixed"}


def test_no_wire_goes_through_the_title_of_a_group(workflow: Workflow) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    titles = [(*group["bounding"][:2], 15 * len(group["title"]), 36) for group in workflow["groups"]]
    covered = [(node["pos"][0], node["pos"][1] - 30, node["size"][0], node["size"][1] + 30) for node in nodes.values()]
    for _, origin, slot, target, place, _ in workflow["links"]:
        for point in wire(nodes[origin], slot, nodes[target], place):
            hidden = any(within(point, box) for box in covered)
            assert hidden or not any(within(point, title) for title in titles), (origin, target)


def wire(origin: dict, slot: int, target: dict, place: int) -> list[tuple[float, float]]:
    """Points of the curve that the canvas draws from an output to an input."""
    x0, y0 = origin["pos"][0] + origin["size"][0], origin["pos"][1] + 14 + 20 * slot
    x3, y3 = target["pos"][0], target["pos"][1] + 14 + 20 * place
    reach = ((x3 - x0) ** 2 + (y3 - y0) ** 2) ** 0.5 / 4
    points = []
    for step in range(101):
        t = step / 100
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        points.append((a * x0 + b * (x0 + reach) + c * (x3 - reach) + d * x3, (a + b) * y0 + (c + d) * y3))
    return points


def within(point: tuple[float, float], box: tuple[float, ...]) -> bool:
    return box[0] <= point[0] <= box[0] + box[2] and box[1] <= point[1] <= box[1] + box[3]
