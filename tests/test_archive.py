"""What the registry would ship: small, complete, and free of what it refuses."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tools.templates.library import TEMPLATES

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 2**20
REFUSED = (
    r"(?<![\w.])(eval|exec|compile|__import__)\(",
    r"\bexec_module\b",
    r"^\s*(import|from)\s+(subprocess|urllib|requests|socket|http|pickle|marshal|ctypes|pip)\b",
    r"\bos\.(system|popen|exec\w+|spawn\w+|environ)\b",
    r"\b(subprocess|pickle|socket)\.",
    r"\bsys\.path\b",
    r"\bprint\(",
)

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="the archive is made from a git checkout"
)


def listed(*options: str) -> set[str]:
    """Tracked files, or those of them that options choose."""
    done = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True)
    return set(filter(None, done.stdout.decode().split("\0")))


@cache
def archive() -> list[Path]:
    """Tracked files without those that .comfyignore names, as the registry's publisher picks them."""
    names = listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")
    return [path for path in (ROOT / name for name in sorted(names)) if path.is_file()]


def test_the_archive_holds_what_runs_and_nothing_else() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in archive()}
    assert {"__init__.py", "mova_core", "nodes", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"} <= top
    assert not top & {"tests", "tools", "benchmarks", ".ci", ".github"}


def test_names_are_plain_so_that_the_publisher_finds_every_file() -> None:
    """Git quotes other names in the list that the publisher reads, which then finds no such file."""
    done = subprocess.run(["git", "-c", "core.quotepath=on", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    as_published = set(done.stdout.decode("ascii").splitlines())
    assert as_published == listed()
    assert [name for name in as_published if not re.fullmatch(r"[\w ./()-]+", name, re.ASCII)] == []


def test_every_workflow_and_its_picture_is_in_the_archive() -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in archive()}
    wanted = {f"workflows/{found.file}{kind}" for found in TEMPLATES.values() for kind in (".json", ".jpg")}
    assert wanted == {name for name in shipped if name.startswith("workflows/")}


def test_what_the_official_code_computed_comes_with_the_repository_and_not_with_the_archive() -> None:
    sizes = {path: path.stat().st_size for path in (ROOT / "tests" / "golden").rglob("*") if path.suffix != ".pyc"}
    assert sum(sizes.values()) < 5_000_000
    assert max(sizes.values()) < 1_000_000
    assert not [path for path in archive() if path.suffix == ".safetensors" or "tests" in path.relative_to(ROOT).parts]


def test_the_archive_is_small() -> None:
    sizes = {path: path.stat().st_size for path in archive()}
    assert {path: size for path, size in sizes.items() if size > MEGABYTE} == {}
    assert sum(sizes.values()) < 8 * MEGABYTE


@pytest.mark.parametrize("pattern", REFUSED)
def test_no_shipped_file_does_what_the_registry_refuses(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in archive()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


def test_shipped_files_are_of_kinds_that_can_be_read() -> None:
    kinds = {path.suffix for path in archive()}
    assert kinds <= {".py", ".json", ".md", ".toml", ".txt", ".jpg", ".png", ".gif", ".svg", ".js", ""}


NAMED = re.compile(
    r"(?<![\w./<-])((?:tools|docs|tests|benchmarks|workflows|subgraphs|mova_core|nodes|web|locales)/[\w./-]*\w\.\w+)"
)
COMMAND = re.compile(r"python -m ((?:tools|tests|benchmarks|mova_core|nodes)[\w.]*)|python ((?:tools|benchmarks)/\S+)")
LINK = re.compile(r"\]\((<[^>]+>|[^)\s#]+)")


def told(path: Path) -> Iterator[str]:
    """What a user may read of a shipped file: strings but docstrings, help without its marks, scripts."""
    text = path.read_text(encoding="utf-8") if path.suffix in (".py", ".json", ".md", ".js") else ""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            for part in ast.iter_child_nodes(node):  # a docstring stands alone in its statement
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and not isinstance(node, ast.Expr):
                    yield part.value
    elif path.suffix == ".json":
        yield json.dumps(json.loads(text), ensure_ascii=False)
    else:
        yield re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def lost(text: str, shipped: set[str], *, paths: bool) -> set[str]:
    """Files and modules that a text sends the reader to, and that the archive lacks."""
    modules = {module.replace(".", "/") for module, _ in COMMAND.findall(text) if module}
    files = {name for _, name in COMMAND.findall(text) if name} | (set(NAMED.findall(text)) if paths else set())
    return files - shipped | {m for m in modules if f"{m}.py" not in shipped and f"{m}/__main__.py" not in shipped}


def test_no_message_note_or_help_page_names_a_file_that_the_archive_lacks() -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in archive()}
    shown = [path for path in archive() if path.relative_to(ROOT).parts[0] not in ("docs", "CHANGELOG.md", "README.md")]
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in shown
        for text in told(path)
        for name in lost(text, shipped, paths=True)
    }
    assert found == set()


def test_pages_link_and_give_commands_within_the_archive_or_say_that_a_checkout_is_wanted() -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in archive()}
    found = set()
    for page in [path for path in archive() if path.parent == ROOT / "docs" or path.name == "README.md"]:
        said = False
        for paragraph in re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL).split("\n\n"):
            code = paragraph.startswith("```")  # is of what was said before
            said = "checkout" in paragraph or (code and said)
            linked = {
                (page.parent / link.strip("<>")).resolve() for link in LINK.findall(paragraph) if "://" not in link
            }
            inside = {path.relative_to(ROOT).as_posix() for path in linked}
            wanted = lost(paragraph, shipped, paths=False) | (inside - shipped)
            found |= set() if said else {(page.name, name) for name in wanted}
    assert found == set()


@pytest.mark.parametrize(
    "text",
    ["see docs/decisions.md", "`python tools/convert.py X`", "python -m tools.demo", "in tests/e2e/test_app.py."],
)
def test_a_text_that_names_a_file_of_the_repository_alone_is_noticed(text: str) -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in archive()}
    assert lost(text, shipped, paths=True)
    assert not lost("docs/files.md, python -m mova_core.checkpoint.convert", shipped, paths=True)


def test_requirements_never_touch_the_users_torch() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["ftfy", "pyloudnorm"]
