"""The workflows for GitHub run commands that are here, on the ComfyUI that the pack asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.demo import options

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def project(key: str) -> str:
    found = re.search(rf'^{key} = "(.+)"$', PROJECT, re.MULTILINE)
    assert found
    return found[1]


def test_commands_are_files_of_the_repository() -> None:
    named = re.findall(r"python (\S+\.py)", "\n".join(WORKFLOWS.values()))
    assert {"tools/check.py", "tools/demo.py"} == set(named)
    assert all((ROOT / name).is_file() for name in named)


def test_the_demo_takes_the_options_it_is_given() -> None:
    given = re.findall(r"run: python tools/demo\.py(.*)", WORKFLOWS["test"])
    assert sorted(given) == ["", " --core"]
    assert [options(line.split()).core for line in sorted(given)] == [False, True]


def test_tests_run_on_three_systems_with_the_oldest_comfyui_that_is_promised() -> None:
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in WORKFLOWS["test"]
    (checked_out,) = re.findall(r"ref: v(\S+)", WORKFLOWS["test"])
    assert project("requires-comfyui") == f">={checked_out}"


def test_a_tag_that_is_not_the_version_is_not_published() -> None:
    (line,) = re.findall(r'grep -qx "(.+)" pyproject\.toml', WORKFLOWS["publish"])
    wanted = line.replace('\\"', '"').replace("${GITHUB_REF_NAME#v}", project("version"))
    assert wanted in PROJECT.splitlines()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read(name: str) -> None:
    assert "\npermissions:\n  contents: read\n" in WORKFLOWS[name]
    assert WORKFLOWS[name].count("actions/checkout@") == WORKFLOWS[name].count("persist-credentials: false")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits(name: str) -> None:
    used = re.findall(r"uses: (.+)$", WORKFLOWS[name], re.MULTILINE)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # \S+", line)] == []
