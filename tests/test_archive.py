"""What the registry would ship: small, complete, and free of what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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


def archive() -> list[Path]:
    """Tracked files without those that .comfyignore names, as the registry's publisher picks them."""
    names = listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")
    return [path for path in (ROOT / name for name in sorted(names)) if path.is_file()]


def test_the_archive_holds_what_runs_and_nothing_else() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in archive()}
    assert {"__init__.py", "mova_core", "nodes", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"} <= top
    assert not top & {"tests", "tools", "benchmarks", "docs", ".ci", ".github"}


def test_names_are_plain_so_that_the_publisher_finds_every_file() -> None:
    """Git quotes other names in the list that the publisher reads, which then finds no such file."""
    done = subprocess.run(["git", "-c", "core.quotepath=on", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    as_published = set(done.stdout.decode("ascii").splitlines())
    assert as_published == listed()
    assert [name for name in as_published if not re.fullmatch(r"[\w ./()-]+", name, re.ASCII)] == []


def test_every_workflow_and_its_picture_is_in_the_archive() -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in archive()}
    names = json.loads((ROOT / "tools" / "templates" / "names.json").read_text(encoding="utf-8"))
    wanted = {f"workflows/{name['file']}{kind}" for name in names.values() for kind in (".json", ".jpg")}
    assert wanted == {name for name in shipped if name.startswith("workflows/")}


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
    assert kinds <= {".py", ".json", ".md", ".toml", ".txt", ".jpg", ".png", ".svg", ".js", ""}


def test_requirements_never_touch_the_users_torch() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["ftfy"]
