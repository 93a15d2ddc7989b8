"""Help pages and translations of the nodes, from their own words, brought up to date: `python -m tools.docs.node_docs`.

ComfyUI shows `web/docs/<NodeId>/<language>.md`, else `web/docs/<NodeId>.md`, in its help panel, and reads the texts of
`locales/<language>/nodeDefs.json`. Between two marks a page holds tables of inputs and outputs, which are written here;
the rest of it is written by hand. The Chinese of `locales/zh` is written by hand too, and this says where the English
that it translates has changed. Needs ComfyUI, for the nodes' schemas.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.comfy.find import REPOSITORY
from tools.docs.between import between

PAGES, LOCALES = REPOSITORY / "web" / "docs", REPOSITORY / "locales"
TABLES_BEGIN, TABLES_END = "<!-- tables: tools/docs/node_docs.py writes this -->", "<!-- end of tables -->"
FILES = ("folder", "file", "high_noise", "low_noise", "lora_name", "shared", "bridge", "vae_file")
FROM_HOST = {*FILES, "sampler", "scheduler"}  # lists of the user's files and of ComfyUI's version: no two hosts agree
LONGEST = 24  # characters of a text default that are shown
AFTER = "control_after_generate"
TITLES = {
    "en": ("Inputs", "| input | what it does |", "Outputs", "| output | what it is |"),
    "zh": ("\u8f93\u5165", "| \u8f93\u5165 | \u8bf4\u660e |", "\u8f93\u51fa", "| \u8f93\u51fa | \u8bf4\u660e |"),
}
OPTIONAL = {"en": "optional", "zh": "\u53ef\u9009"}
RANGE = {"en": "{} to {}", "zh": "{} \u5230 {}"}

Words = Mapping[str, Any]  # one node of a nodeDefs.json


def english(nodes: Mapping[str, Any]) -> dict[str, Words]:
    """nodeDefs.json of what the nodes say themselves."""
    return {node_id: _english(node.GET_SCHEMA()) for node_id, node in sorted(nodes.items())}


def _english(schema: Any) -> Words:
    inputs = {entry.id: {"name": entry.id, "tooltip": entry.tooltip} for entry in schema.inputs}
    if any(getattr(entry, AFTER, None) for entry in schema.inputs):
        inputs[AFTER] = {"name": "control after generate", "tooltip": "What becomes of the seed after a run."}
    outputs = {}
    for place, entry in enumerate(schema.outputs):
        tooltip = {"tooltip": entry.tooltip} if entry.tooltip else {}
        outputs[str(place)] = {"name": entry.display_name or entry.io_type, **tooltip}
    words = {"display_name": schema.display_name, "description": schema.description}
    return {**words, "inputs": inputs, "outputs": outputs}


def tables(schema: Any, words: Words, language: str) -> str:
    """The tables of inputs and of outputs of one page; two columns, for the help panel is narrow."""
    inputs, head, outputs, other_head = TITLES[language]
    lines = [f"## {inputs}", "", head, "|---|---|"] if schema.inputs else []
    for entry in schema.inputs:
        told = words["inputs"][entry.id]
        name = f"`{entry.id}`" if told["name"] == entry.id else f"{told['name']} `{entry.id}`"
        optional = OPTIONAL[language] if entry.optional else ""
        facts = ", ".join(filter(None, (entry.io_type, optional, _default(entry, language))))
        lines.append(_row(name, f"{told['tooltip']} *{facts}*"))
    if schema.outputs:
        lines += ["", f"## {outputs}", "", other_head, "|---|---|"]
    for place, entry in enumerate(schema.outputs):
        told = words["outputs"][str(place)]
        lines.append(_row(told["name"], f"{told.get('tooltip', '')} *{entry.io_type}*".strip()))
    return "\n".join(lines).strip()


def _row(*cells: str) -> str:
    safe = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(safe)} |"


def _default(entry: Any, language: str) -> str:
    """Default, and choices or range, of a widget; nothing of a socket."""
    default, options = getattr(entry, "default", None), getattr(entry, "options", None)
    if options:
        if entry.id in FROM_HOST:
            return ""
        return ", ".join(f"**{option}**" if option == default else str(option) for option in options)
    if default is None:
        return ""
    if isinstance(default, str):
        return f"{default[:LONGEST]} ..." if len(default) > LONGEST else default
    low, high = getattr(entry, "min", None), getattr(entry, "max", None)
    between = "" if low is None or high is None or high > 2**32 else f" ({RANGE[language].format(low, high)})"
    return f"{default}{between}"


def page(node_id: str, language: str) -> Path:
    return PAGES / f"{node_id}.md" if language == "en" else PAGES / node_id / f"{language}.md"


def with_tables(text: str, written: str) -> str:
    return between(text, f"\n{written}\n", TABLES_BEGIN, TABLES_END)


def texts(words: Mapping[str, Any]) -> dict[str, str]:
    """Every text of a nodeDefs.json by its place, such as `MOVALoader.inputs.folder.tooltip`."""
    found: dict[str, str] = {}
    for key, value in words.items():
        deeper = texts(value) if isinstance(value, Mapping) else {"": value}
        found |= {f"{key}.{rest}".rstrip("."): text for rest, text in deeper.items()}
    return found


def locale(language: str) -> dict[str, Words]:
    path = LOCALES / language / "nodeDefs.json"
    found: dict[str, Words] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def as_json(words: Mapping[str, Any]) -> str:
    return json.dumps(words, indent=2, ensure_ascii=False) + "\n"


def update(nodes: Mapping[str, Any]) -> Iterable[str]:
    """Write the English texts and the tables of all pages; say what is left for a person."""
    before, now, chinese = texts(locale("en")), english(nodes), locale("zh")
    path = LOCALES / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(now), encoding="utf-8")
    after = texts(now)
    yield from (f"the English changed, look at the Chinese: {k}" for k in after if before.get(k, after[k]) != after[k])
    yield from (f"no Chinese: {place}" for place in after.keys() - texts(chinese).keys())
    for node_id, node in nodes.items():
        for language, words in (("en", now), ("zh", chinese)):
            file = page(node_id, language)
            if not file.is_file():
                yield f"no page: {file.relative_to(REPOSITORY)}"
            elif node_id in words:
                written = tables(node.GET_SCHEMA(), words[node_id], language)
                file.write_text(with_tables(file.read_text(encoding="utf-8"), written), encoding="utf-8")


def main() -> None:
    sys.path.insert(0, str(REPOSITORY))
    from tests.in_process import load_pack, prepare_comfyui

    with tempfile.TemporaryDirectory() as base:
        nodes = load_pack(prepare_comfyui(Path(base))).nodes
        for line in update(nodes):
            print(line)


if __name__ == "__main__":
    main()
