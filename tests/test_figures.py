"""What is measured of the source: how long functions and files are, no circle of imports, one meaning a name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
PACK = [path for part in ("nodes", "mova_core") for path in sorted((ROOT / part).rglob("*.py"))]
LONGEST_FUNCTION, LONGEST_FILE = 45, 400
MOST_ANY = 30  # lines of nodes/host: what ComfyUI lets anybody fill with anything
SCHEMAS = ("define_schema",)
LAYERS = ("nodes", "mova_core", "tools")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Every function, with its lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def imported(path: Path) -> set[str]:
    """Modules of the pack that a module imports when it is imported itself, as paths from the root."""
    found: set[Path] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found |= {base / alias.name for alias in node.names} | {base}
    files = {candidate for module in found for candidate in (module.with_suffix(".py"), module / "__init__.py")}
    return {name_of(file) for file in files if file.is_file() and file != path}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other round in a circle; empty if there are none."""
    rest = dict(edges)
    while leaves := [name for name, needs in rest.items() if not needs & rest.keys()]:
        for name in leaves:
            del rest[name]
    return sorted(rest)


def meant(source: str) -> set[str]:
    """Public constants, types and classes that a module defines. Functions are read with their module's name."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inside = [name for target in targets if not isinstance(target, ast.Subscript) for name in ast.walk(target)]
            found |= {name.id for name in inside if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_") and not name.islower()}


def meaning_two(modules: dict[str, str]) -> dict[str, list[str]]:
    """Names that several of these modules (path -> source) define, with the modules."""
    homes: dict[str, list[str]] = {}
    for path, source in modules.items():
        for name in meant(source):
            homes.setdefault(name, []).append(path)
    return {name: paths for name, paths in homes.items() if len(paths) > 1}


@pytest.mark.parametrize("path", [*PACK, *TOOLS], ids=name_of)
def test_functions_and_files_can_be_read_at_once(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert [(name, n) for name, n in functions(source) if n > LONGEST_FUNCTION and name not in SCHEMAS] == []
    assert len(source.splitlines()) <= LONGEST_FILE


def test_imports_go_round_in_no_circle() -> None:
    packages = {"nodes/__init__.py"}  # the list of nodes, which the host never imports
    edges = {name_of(path): imported(path) - packages for path in PACK if name_of(path) not in packages}
    assert sum(map(len, edges.values())) > 200
    assert circle(edges) == []


def unchecked(settings: str) -> list[str]:
    """Modules whose errors of type a pyproject.toml ignores."""
    overrides = settings.split("[[tool.mypy.overrides]]")[1:]
    return [name for each in overrides if "ignore_errors = true" in each for name in re.findall(r'"([\w.*]+)"', each)]


def test_types_are_checked_in_all_modules() -> None:
    assert unchecked((ROOT / "pyproject.toml").read_text(encoding="utf-8")) == []


def test_a_module_whose_types_are_not_checked_is_found() -> None:
    clean = '[tool.mypy]\nstrict = true\n[[tool.mypy.overrides]]\nmodule = ["a"]\nignore_missing_imports = true\n'
    assert unchecked(clean) == []
    left_out = '[[tool.mypy.overrides]] # not clean\nmodule = ["mova_pack.nodes.x"]\nignore_errors = true\n'
    assert unchecked(clean + left_out) == ["mova_pack.nodes.x"]


def with_any(source: str) -> int:
    """Lines that have the word `Any`."""
    return sum(bool(re.search(r"\bAny\b", line)) for line in source.splitlines())


def test_few_types_of_the_host_are_any() -> None:
    sources = [path.read_text(encoding="utf-8") for path in PACK if path.is_relative_to(ROOT / "nodes" / "host")]
    assert len(sources) > 80
    assert sum(map(with_any, sources)) <= MOST_ANY


def test_any_is_counted_once_a_line_and_as_a_word() -> None:
    assert with_any("from typing import Any\n\ndef f(x: Any, y: Any) -> Any:\n    return Anything\n") == 2


def test_a_long_function_and_a_circle_are_found() -> None:
    assert dict(functions("def f():\n" + "    x = 1\n" * 50))["f"] == 51
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert circle({"a": {"b"}, "b": set()}) == []


@pytest.mark.parametrize("layer", LAYERS)
def test_a_public_name_means_one_thing_in_its_layer(layer: str) -> None:
    """Made in one module and imported by the others, or called otherwise: `MARK` of what?"""
    modules = {name_of(path): path.read_text(encoding="utf-8") for path in sorted((ROOT / layer).rglob("*.py"))}
    assert len(modules) > 20
    assert meaning_two(modules) == {}


def test_a_name_of_two_meanings_is_found() -> None:
    one, other = "MARK, SIZE = 1, 2\n_OWN = 1\n\ndef of(): ...\n", "class SIZE: ...\n_OWN = 2\n\ndef of(): ...\n"
    assert meaning_two({"one": one, "other": other}) == {"SIZE": ["one", "other"]}
    assert meaning_two({"one": "PARTS: dict = {}\nPARTS['x'] = 1", "other": "from .one import PARTS"}) == {}
