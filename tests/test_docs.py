"""What docs/ says of the repository is so: the drawing, the list of workflows, and every link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.layers import LAYERS
from tools.templates.library import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def drawn(text: str) -> list[set[str]]:
    """The parts of mova_core in the drawing, a set a box, in the order of the arrow through them: lowest first."""
    inside = text.split("subgraph core")[1].split("\n    end")[0]
    boxes = {name: set(re.split(r", |<br>", label)) for name, label in re.findall(r'(\w+)\["([^"]+)"\]', inside)}
    arrow = next(line for line in inside.splitlines() if "-->" in line)
    return [boxes[name.strip()] for name in reversed(arrow.split("-->"))]


def heading(text: str) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_drawing_shows_the_layers_that_the_imports_are_held_to() -> None:
    assert drawn((DOCS / "architecture.md").read_text(encoding="utf-8")) == [set(layer) for layer in LAYERS]


def test_a_part_in_another_layer_is_noticed() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert drawn(text.replace("errors --> ", "").replace('errors["errors"]', 'errors["errors, shapes"]')) != list(
        LAYERS
    )


def test_files_that_the_pages_name_are_there() -> None:
    named = set(
        re.findall(r"`((?:mova_core|nodes|tests|tools|web|locales)/[\w./]+)`", (DOCS / "architecture.md").read_text())
    )
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_workflow_is_listed_and_every_one_listed_is_there() -> None:
    text = (DOCS / "workflows.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[([^\]]+)\]\(<\.\./workflows/([^>]+)\.json>\)", text, re.MULTILINE)
    assert all(name == file for name, file in listed)
    assert {name for name, _ in listed} == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert [key for key, found in TEMPLATES.items() if f"| {found.chinese} | `{key}` |" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in heading(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []
