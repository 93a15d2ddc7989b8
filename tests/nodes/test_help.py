"""Every node explains itself in English and Chinese, on the canvas and in the help panel, and up to date.

After a change of a node: `python -m tools.docs.node_docs`, which writes the English and the tables, and says what is
left.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from tests.comfy import PACK, needs_comfy
from tests.in_process import Pack
from tools.docs import node_docs
from tools.docs.node_pictures import LANGUAGES, SHOWN, picture

pytestmark = needs_comfy

TODO = "; run python -m tools.docs.node_docs and write what it asks for"
TODO_PICTURES = "run python -m tools.docs.node_pictures"
OF_CORE = {"conditioning", "guidance", "loaders", "sampling"}  # categories that ComfyUI itself translates
MISTAKES = {"en": "## Common mistakes", "zh": "## \u5e38\u89c1\u9519\u8bef"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def test_every_node_has_a_page_in_both_languages_and_no_page_lacks_its_node(pack: Pack) -> None:
    wanted = {node_docs.page(node_id, language) for node_id in pack.nodes for language in ("en", "zh")}
    found = set(node_docs.PAGES.rglob("*.md"))
    assert {str(path.relative_to(PACK)) for path in wanted ^ found} == set(), TODO


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_begin_with_the_name_and_end_with_mistakes(pack: Pack, language: str) -> None:
    words = node_docs.locale(language)
    for node_id in pack.nodes:
        text = node_docs.page(node_id, language).read_text(encoding="utf-8")
        assert text.startswith(f"# {words[node_id]['display_name']}\n"), node_id
        told, mistakes = text.split(MISTAKES[language])
        assert len(told.split(node_docs.TABLES_BEGIN)[0].splitlines()) > 4, f"{node_id}: no words before the tables"
        assert re.search(r"^- \S", mistakes, re.MULTILINE), f"{node_id}: no mistake is named"
        shown = f"![{words[node_id]['display_name']}]({node_id}/{language}.png)\n"  # from web/docs, as the page has it
        assert text.splitlines(keepends=True)[2] == shown, f"{node_id}: no picture under the title"
        rest = text.replace(shown, "")
        assert not re.search(r"<(?!!--)|\]\(", rest), f"{node_id}: the help panel would look for a link or a tag"


def test_every_page_has_a_picture_small_enough_for_the_panel(pack: Pack) -> None:
    pictures = {picture(language, node_id) for node_id in pack.nodes for language in LANGUAGES}
    assert pictures == set(node_docs.PAGES.rglob("*.png")), TODO_PICTURES
    sizes = {path: Image.open(path).size for path in pictures}
    assert {path: size for path, size in sizes.items() if not 300 < size[0] < 700 or size[1] > 900} == {}
    assert sum(path.stat().st_size for path in pictures) < 6_000 * len(pictures)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_picture_shows_the_node_as_it_is_named_today(pack: Pack, language: str) -> None:
    words = node_docs.locale(language)
    for node_id, node in pack.nodes.items():
        title, inputs, outputs = json.loads(Image.open(picture(language, node_id)).text[SHOWN])
        told, schema = words[node_id], node.GET_SCHEMA()
        assert title == told["display_name"]
        assert dict(inputs) == {entry.id: told["inputs"][entry.id]["name"] for entry in schema.inputs}, TODO_PICTURES
        assert [label for _, label in outputs] == [told["outputs"][str(i)]["name"] for i in range(len(schema.outputs))]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_tables_are_what_the_nodes_say(pack: Pack, language: str) -> None:
    words = node_docs.english(pack.nodes) if language == "en" else node_docs.locale("zh")
    for node_id, node in pack.nodes.items():
        text = node_docs.page(node_id, language).read_text(encoding="utf-8")
        written = node_docs.tables(node.GET_SCHEMA(), words[node_id], language)
        assert text == node_docs.with_tables(text, written), f"{node_id} {language}{TODO}"


def test_the_english_texts_are_what_the_nodes_say(pack: Pack) -> None:
    assert node_docs.locale("en") == node_docs.english(pack.nodes), TODO


def test_every_text_has_its_chinese_and_no_chinese_lacks_its_text(pack: Pack) -> None:
    english, chinese = (node_docs.texts(node_docs.locale(language)) for language in ("en", "zh"))
    assert english.keys() ^ chinese.keys() == set(), TODO
    names = {"MOVA\u3002", "VAE", "CLIP", "cfg"}  # what is the same in Chinese
    same = {place: text for place, text in chinese.items() if not CHINESE.search(text) and text not in names}
    assert same == {}


def test_numbers_and_names_of_the_english_are_in_the_chinese(pack: Pack) -> None:
    english, chinese = (node_docs.texts(node_docs.locale(language)) for language in ("en", "zh"))
    facts = re.compile(r"\d+(?:\.\d+)?(?= GB| GiB| kHz|x\d)|(?<=x)\d+|\w+_\w+|0\.\d+", re.ASCII)
    told = {place: text for place, text in english.items() if not place.endswith(".name")}
    lost = {place: [fact for fact in facts.findall(text) if fact not in chinese[place]] for place, text in told.items()}
    assert {place: missing for place, missing in lost.items() if missing} == {}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_holds_what_the_pages_message_format_would_read(language: str) -> None:
    texts = node_docs.texts(node_docs.locale(language))
    assert {place: text for place, text in texts.items() if re.search(r"[{}@|]", text)} == {}


def test_categories_are_translated(pack: Pack) -> None:
    parts = {part for node in pack.nodes.values() for part in node.GET_SCHEMA().category.split("/")}
    for language in ("en", "zh"):
        main = json.loads((node_docs.LOCALES / language / "main.json").read_text(encoding="utf-8"))
        assert set(main["nodeCategories"]) == parts - OF_CORE


def test_comfyui_reads_the_translations_itself(
    comfy_nodes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    (tmp_path / "mova").symlink_to(PACK, target_is_directory=True)
    monkeypatch.setattr(
        folder_paths, "get_folder_paths", lambda name: [str(tmp_path)] if name == "custom_nodes" else []
    )
    read: dict[str, Any] = CustomNodeManager().build_translations()
    for language in ("en", "zh"):
        assert read[language]["nodeDefs"] == node_docs.locale(language)
        assert read[language]["nodeCategories"]["MOVA"] == "MOVA"


def test_a_changed_tooltip_changes_the_table(pack: Pack) -> None:
    schema = pack.nodes["MOVADecode"].GET_SCHEMA()
    words = node_docs.english(pack.nodes)["MOVADecode"]
    other = {**words, "inputs": {**words["inputs"], "vae": {"name": "vae", "tooltip": "Other | words."}}}
    was, now = (node_docs.tables(schema, told, "en") for told in (words, other))
    changed = set(now.splitlines()) - set(was.splitlines())
    assert changed == {r"| `vae` | Other \| words. *VAE* |"}


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        node_docs.with_tables("# A page", "table")
