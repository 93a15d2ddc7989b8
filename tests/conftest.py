"""Hooks of the whole suite: tests that need ComfyUI or a browser are skipped where there is none, and counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

# Also binds the name `tests` to this folder, before ComfyUI (which has a `tests` of its own) is put on the path.
from tests.comfy import NO_BROWSER, NO_COMFYUI, skip_or_fail


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Convolutions and products of float32 in float32 on a GPU."""
    import torch

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_or_fail(item)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes, the longest come first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name not in ("e2e", "tools"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Those of a file run in one process, as they share models; those of e2e in one, as they share server and page."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "e2e" if nodeid.startswith("tests/e2e/") else nodeid.split("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What has been imported by now stays: the collector need not walk through it each time."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    for what, reason in (("ComfyUI", NO_COMFYUI), ("a browser", NO_BROWSER)):
        if count := sum(reason in text for text in skipped):
            terminalreporter.write_line(f"{count} tests skipped for want of {what}: {reason}", yellow=True)
