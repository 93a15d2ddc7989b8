"""Kept runs whose files or folder vanish while they are read or written: another process has finished the same run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from mova_core.checkpoint.whole_file import listed, sweep, write_whole
from mova_core.errors import CheckpointError
from mova_core.kept import runs
from mova_core.kept.latents import JointLatent, write_latent
from mova_core.kept.runs import RunState
from tests.fixtures.vanishing import at_every_look

NOISE, SHAPE = "n", (1, 4)
LATENT = JointLatent(video=torch.zeros(1, 16, 2, 2, 2), audio=torch.zeros(1, 128, 4), fps=24.0)


def state(step: int = 2) -> RunState:
    return RunState(
        way="log", step=step, steps=8, seed=1, noise=NOISE, device="cpu", parts={"a": "1"}, x=torch.ones(SHAPE)
    )


def keep(folder: Path) -> None:
    for number in range(2):
        runs.write_answer(folder, number, torch.ones(SHAPE), NOISE)
    runs.write_state(folder, state())
    write_latent(folder / runs.RESULT_FILE, LATENT, {"seed": "1"})


def nothing_or(read: object, *given: object) -> object:
    """What is read, or None where it is refused in words of ours."""
    try:
        return read(*given)  # type: ignore[operator]
    except CheckpointError:
        return None


@pytest.mark.parametrize("gone", ["its folder", "the folder of all"])
def test_a_run_that_vanishes_while_it_is_read_is_not_kept(tmp_path: Path, gone: str) -> None:
    root = tmp_path / "all"
    folder = root / ("a" * 32)

    def read() -> tuple[object, ...]:
        return (
            nothing_or(runs.read_state, folder),
            nothing_or(runs.read_answer, folder, 1),
            nothing_or(runs.read_result, folder),
            runs.count_answers(folder, NOISE, SHAPE),
            [kept.step for kept in runs.states(root)],
        )

    moments = 0
    for _, found in at_every_look(folder if gone == "its folder" else root, lambda: keep(folder), read):
        kept, answer, result, count, others = found
        assert count in (0, 1, 2), "answers are counted as far as they are there"
        assert others in ([], [2])
        assert (kept is None) <= (answer is None) <= (result is None), "what is gone stays gone"
        moments += 1
    assert moments > 20


@pytest.mark.parametrize("gone", ["its folder", "the folder of all"])
def test_a_run_is_written_though_its_folder_vanishes_meanwhile(tmp_path: Path, gone: str) -> None:
    root = tmp_path / "all"
    folder = root / ("a" * 32)

    def write() -> bool:
        runs.write_state(folder, state(3))
        return nothing_or(runs.read_state, folder) is not None

    written = [
        found for _, found in at_every_look(folder if gone == "its folder" else root, lambda: keep(folder), write)
    ]
    assert len(written) > 5
    assert written.count(True) >= 3, "it is made anew where the folder went before the file had its name"


def test_room_is_made_and_a_run_is_forgotten_though_all_vanishes_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "all"
    folders = [root / (digit * 32) for digit in "abc"]

    def make() -> None:
        for folder in folders:
            keep(folder)
            for path in folder.iterdir():
                os.utime(path, (1000, 1000))

    def tidy() -> None:
        runs.make_room(root, 10, folders[0], most_runs=2)
        runs.forget(folders[0])
        runs.is_kept(folders[0])
        sweep(folders[1] / runs.STATE_FILE)

    for place in (root, folders[0], folders[1], folders[1] / runs.STATE_FILE):
        assert len(list(at_every_look(place, make, tidy))) > 1


def test_a_folder_that_was_just_made_is_not_the_oldest(tmp_path: Path) -> None:
    new, old = (tmp_path / (digit * 32) for digit in "ab")
    keep(old)
    for path in old.iterdir():
        os.utime(path, (1000, 1000))
    new.mkdir()
    assert runs.make_room(tmp_path, 10, tmp_path / "none", most_runs=1) == [old.name]
    assert listed(tmp_path) == [new]


def test_an_answer_that_is_not_finite_is_none(tmp_path: Path) -> None:
    runs.write_answer(tmp_path, 0, torch.full(SHAPE, float("nan")), NOISE)
    with pytest.raises(CheckpointError, match="holds NaN"):
        runs.read_answer(tmp_path, 0)


def test_a_folder_whose_place_a_file_takes_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.safetensors", {"a": torch.zeros(1)}, {})
    assert time.monotonic() - begun < 1
