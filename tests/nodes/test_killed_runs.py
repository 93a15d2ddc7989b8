"""A process that is killed at any moment of a run, and another that goes on: the same latents, nothing half written."""

from __future__ import annotations

import os
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.comfy import needs_comfy
from tests.nodes.graph import Run, Scene, equal
from tests.nodes.long_runs import Counted, masked, sampled
from tests.nodes.processes import ended, forked, killed, needs_fork

pytestmark = [needs_comfy, needs_fork]

WAYS: dict[str, tuple[dict[str, Any], int]] = {  # widgets, and evaluations that are made again at most
    "euler": ({}, 0),
    "masked euler": ({"steps": 4}, 0),
    "dpmpp_2m": ({"sampler": "dpmpp_2m"}, 0),
    "two schedules": ({"audio_denoise": 0.6, "audio_substeps": 2, "steps": 4}, 1),  # of a step, if it was within one
}


def check_whole(folder: Path) -> None:
    """Every file is whole, or has a name under which nobody reads it."""
    for path in folder.rglob("*.safetensors"):
        load_file(path)


@pytest.mark.parametrize("way", WAYS)
def test_killed_before_any_evaluation_another_process_goes_on_to_the_bit(
    run: Run, scene: Scene, folder: Path, evaluations: Counted, way: str
) -> None:
    widgets, again = WAYS[way]
    given = masked(run, scene) if way.startswith("masked") else scene
    whole = sampled(run, given, **widgets, resume="off")
    count = evaluations.count

    def die(number: int) -> None:
        evaluations.until(number, killed)
        sampled(run, given, **widgets)

    def go_on(number: int) -> None:
        evaluations.until()
        assert equal(sampled(run, given, **widgets), whole)
        assert count - number <= evaluations.count <= count - number + again

    for number in range(count):
        assert ended(forked(partial(die, number))) == -signal.SIGKILL
        check_whole(folder)
        assert ended(forked(partial(go_on, number))) == 0, f"stopped before evaluation {number}"
        assert not list(folder.iterdir())


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_killed_within_any_write_another_process_goes_on_to_the_bit(
    run: Run, scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    whole = sampled(run, scene, sampler=sampler, resume="off")
    same = partial(_same, run, scene, sampler, whole)
    sync = os.fsync

    def die(number: int) -> None:
        writes = iter(range(number + 1))
        monkeypatch.setattr("os.fsync", lambda file: sync(file) if next(writes) < number else killed())
        sampled(run, scene, sampler=sampler)

    for number in range(0, 7, 2):
        assert ended(forked(partial(die, number))) == -signal.SIGKILL
        assert list(folder.rglob("*.part"))
        check_whole(folder)
        assert ended(forked(same)) == 0, f"killed in write {number}"
        assert not list(folder.iterdir())


def _same(run: Run, scene: Scene, sampler: str, whole: dict[str, Any]) -> None:
    assert equal(sampled(run, scene, sampler=sampler), whole)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_two_processes_on_one_run_make_the_same_and_leave_nothing(
    run: Run, scene: Scene, folder: Path, evaluations: Counted, sampler: str
) -> None:
    """And a third, killed on the way, takes nothing from them."""
    whole = sampled(run, scene, sampler=sampler, resume="off")
    same = partial(_same, run, scene, sampler, whole)

    def die() -> None:
        evaluations.until(3, killed)
        sampled(run, scene, sampler=sampler)

    for _ in range(2):
        children = [forked(same) for _ in range(2)]
        third = forked(die)
        assert [ended(child) for child in children] == [0, 0]
        assert ended(third) == -signal.SIGKILL
        check_whole(folder)
        assert ended(forked(same)) == 0
        assert not list(folder.iterdir())


def test_a_folder_that_may_not_be_written_or_read_costs_no_run(
    run: Run, scene: Scene, evaluations: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its rights, for a user who is not root."""
    whole = sampled(run, scene, resume="off")
    with tempfile.TemporaryDirectory() as base:
        for mode in (0o555, 0o000):
            output = Path(base) / f"{mode:o}"
            (output / "mova_runs").mkdir(parents=True)
            monkeypatch.setattr("folder_paths.get_output_directory", lambda output=output: str(output))
            Path(base).chmod(0o755)
            for where in ("mova_runs", ""):
                (output / where).chmod(mode)
                assert ended(forked(partial(_as_nobody, run, scene, whole))) == 0, (mode, where)
            output.chmod(0o755)
            assert [path.name for path in output.rglob("*")] == ["mova_runs"]


def _as_nobody(run: Run, scene: Scene, whole: dict[str, Any]) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    for sampler, made in (("euler", whole), ("dpmpp_2m", None)):
        latent = sampled(run, scene, sampler=sampler)
        assert made is None or equal(latent, made)
