"""The table of nodes in docs/nodes.md, from the nodes' own words: `python -m tools.docs.node_table` writes it.

Names and descriptions are read from the sources, inputs and outputs from tests/nodes/schema.json, so neither ComfyUI
nor torch is needed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from tools.comfy.find import REPOSITORY
from tools.docs.between import between

LIST, SCHEMA = REPOSITORY / "docs" / "nodes.md", REPOSITORY / "tests" / "nodes" / "schema.json"
LIST_BEGIN, LIST_END = "<!-- nodes: tools/docs/node_table.py writes this -->", "<!-- end of nodes -->"


def words(folder: Path = REPOSITORY / "nodes") -> dict[str, dict[str, str]]:
    """Node id -> the literal texts of its `io.Schema(...)`: display_name, category, description."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        for call in schemas(ast.parse(path.read_text(encoding="utf-8"))):
            texts = {k.arg: k.value.value for k in call.keywords if k.arg and isinstance(k.value, ast.Constant)}
            found[texts["node_id"]] = {name: str(text) for name, text in texts.items()}
    return found


def schemas(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Schema":
            yield node


def table() -> str:
    """The table in Markdown, nodes in the order of the menu."""
    schema, texts = json.loads(SCHEMA.read_text(encoding="utf-8")), words()
    rows = ["| node | what it does | gives |", "|---|---|---|"]
    for node_id in sorted(schema, key=lambda n: (texts[n]["category"], n)):
        text = texts[node_id]
        gives = ", ".join(output["name"] for output in schema[node_id]["outputs"])
        rows.append(f"| **{text['display_name']}** (`{node_id}`) | {text['description']} | {gives or 'a file'} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    return between(page, table(), LIST_BEGIN, LIST_END)


if __name__ == "__main__":
    LIST.write_text(with_table(LIST.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
