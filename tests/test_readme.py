"""What the README says of the nodes and of the two commands is so."""

from __future__ import annotations

import re
from pathlib import Path

from tools.demo import options
from tools.docs.node_table import README, with_table

ROOT = Path(__file__).resolve().parents[1]
TEXT = README.read_text(encoding="utf-8")


def test_the_node_table_is_what_the_nodes_say() -> None:
    assert with_table(TEXT) == TEXT, "run python -m tools.docs.node_table"


def test_it_is_short() -> None:
    """Beside the table, which has a line a node."""
    table = [line for line in TEXT.splitlines() if line.startswith("| **MOVA ")]
    assert len(TEXT.splitlines()) - len(table) < 115


def test_its_links_and_commands_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    commands = re.findall(r"`python (\S+\.py)`", TEXT)
    assert {"tools/demo.py", "tools/check.py"} <= set(commands)
    assert [name for name in [*links, *commands, ".ci/run"] if not (ROOT / name).exists()] == []


def test_the_demo_takes_the_options_it_names() -> None:
    given = options(["--model", "m", "--image", "i", "--prompt", "p", "--seed", "3", "--out", "o"])
    assert (given.prompt, given.seed, given.width, given.steps) == ("p", 3, 640, 50)
