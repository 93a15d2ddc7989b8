"""Runs in one real ComfyUI that change everything, one interrupted, two out of memory. Longer: benchmarks/soak.py."""

import sys

import pytest

from benchmarks.soak import Report, resident, soak
from tests.comfy import needs_comfy
from tools.comfy.server import ComfyServer

pytestmark = [needs_comfy, pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")]


def test_runs_of_every_kind_leave_the_next_one_whole(server: ComfyServer) -> None:
    report = soak(server, 4)
    after = resident(server)
    assert report.problems == []
    assert after < report.resident[0] + 300 * 2**20  # of a process that holds some 900 MiB


def test_growth_is_told_after_warming_up_and_leaks_are_seen() -> None:
    steady = Report(resident=[100, 200, 300, 310, 320, *[330, 332, 331] * 5])
    assert abs(steady.growth) <= 2
    leaking = Report(resident=[100 + 10 * run for run in range(20)])
    assert leaking.growth == 100
    assert Report(resident=[1, 2, 3]).growth == 0
