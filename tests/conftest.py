"""Hooks of the whole suite: tests that need ComfyUI or a browser are skipped where there is none, and counted."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

# Also binds the name `tests` to this folder, before ComfyUI (which has a `tests` of its own) is put on the path.
from tests.comfy import NO_BROWSER, NO_COMFYUI, skip_or_fail

E2E = Path(__file__).parent / "e2e"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_or_fail(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes: those of a file in one, as they share models; those of e2e in one, as they
    share a server and a page, and begun first, as they take longest."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = "e2e" if E2E in item.path.parents else f"{item.path.parent.name}.{item.path.stem}"
        item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: E2E not in item.path.parents)


def pytest_collection_finish() -> None:
    """What has been imported by now stays: the collector need not walk through it each time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    for what, reason in (("ComfyUI", NO_COMFYUI), ("a browser", NO_BROWSER)):
        if count := sum(reason in text for text in skipped):
            terminalreporter.write_line(f"{count} tests skipped for want of {what}: {reason}", yellow=True)
