"""What the README says of cards and commands is so, and the list of nodes is what the nodes say."""

from __future__ import annotations

import re
from pathlib import Path

from tools.demo import options
from tools.docs import cards, node_table

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SCREEN = 45  # lines, about


def test_the_node_table_is_what_the_nodes_say() -> None:
    page = node_table.LIST.read_text(encoding="utf-8")
    assert node_table.with_table(page) == page, "run python -m tools.docs.node_table"


def test_the_tables_of_cards_are_what_the_estimates_say() -> None:
    assert cards.with_table(TEXT) == TEXT, "run python -m tools.docs.cards"


def test_a_card_too_small_is_told_what_fits_it() -> None:
    assert cards.memory("1280x720", 8).startswith("6.5 s (157 frames); 8 s need")
    assert cards.memory("1280x720", 24).startswith("8 s,")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_the_first_screens_show_it_and_say_the_licence_and_the_two_commands() -> None:
    first, second = "\n".join(TEXT.splitlines()[:SCREEN]), "\n".join(TEXT.splitlines()[: 2 * SCREEN])
    assert "docs/images/tour.gif" in first
    assert "Apache-2.0" in first
    assert all(f"python tools/{name}.py" in second for name in ("demo", "check"))


def test_every_page_of_docs_is_reached_from_it() -> None:
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - set(re.findall(r"\]\(([^)#]+)", TEXT)) == set()


def test_its_pictures_are_small() -> None:
    assert [p.name for p in (ROOT / "docs" / "images").iterdir() if p.stat().st_size > 1_000_000] == []


def test_its_links_and_commands_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    commands = re.findall(r"^python (\S+\.py)", TEXT, re.MULTILINE)
    modules = [f"{name.replace('.', '/')}" for name in re.findall(r"python -m ((?!pip)[\w.]+)", TEXT)]
    found = [any((ROOT / f"{name}{end}").exists() for end in (".py", "/__main__.py")) for name in modules]
    assert {"tools/demo.py", "tools/check.py"} <= set(commands)
    assert [name for name in [*links, *commands] if not (ROOT / name).exists()] == []
    assert all(found)


def test_the_demo_takes_the_options_it_names() -> None:
    given = options(["--model", "m", "--image", "i", "--prompt", "p", "--seed", "3", "--out", "o"])
    assert (given.prompt, given.seed, given.width, given.steps) == ("p", 3, 640, 50)
