"""docs/troubleshooting.md quotes messages that the code can still say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
VARIES = "..."


def said(source: str) -> list[str]:
    """Every text of a source; what is filled in stands as `...`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        if isinstance(node, ast.JoinedStr):
            parts = (str(p.value) if isinstance(p, ast.Constant) else VARIES for p in node.values)
            found.append("".join(parts))
    return found


def sources() -> list[str]:
    paths = [ROOT / "__init__.py", *(p for part in ("nodes", "mova_core") for p in (ROOT / part).rglob("*.py"))]
    return [text for path in paths for text in said(path.read_text(encoding="utf-8"))]


def matches(message: str, text: str) -> bool:
    pieces = [re.escape(piece.strip()) for piece in message.split(VARIES) if piece.strip()]
    return re.search(".*".join(pieces), text, re.DOTALL) is not None


def quoted(page: str) -> list[str]:
    """Messages in the first column of tables, and any that hold `...` elsewhere."""
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    first = [cells[0].strip() for cells in rows]
    others = [m for cells in rows for m in re.findall(r"`([^`]*\.\.\.[^`]*)`", "".join(cells[1:]))]
    return [cell.strip("`") for cell in first if cell.startswith("`")] + others


MESSAGES = quoted(PAGE.read_text(encoding="utf-8"))
TEXTS = sources()


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_can_say_it(message: str) -> None:
    assert [text for text in TEXTS if matches(message, text)]


def test_the_page_quotes_many_messages_and_its_links_lead_somewhere() -> None:
    assert len(MESSAGES) > 40
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert not [text for text in TEXTS if matches("a clip cannot have ... wheels", text)]
    assert [text for text in said('f"a {x} b" "c"') if matches("a ... b", text)]
