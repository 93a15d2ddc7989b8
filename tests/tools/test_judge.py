"""The judge's command runs through on the tiny checkpoint, goes on where it was, and says what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mova_core.config import MOVA
from mova_core.errors import MovaError
from mova_core.estimate import Workload, work
from mova_core.shapes import VideoShape
from tests.comfy import needs_comfy
from tests.fixtures.tiny_checkpoint import TINY, write_tiny_checkpoint
from tests.fixtures.tiny_lora import write_tiny_lora
from tools.judge import command, cost, graphs, parity, results, scenes

EXPERTS = ("high", "low")
ROW = {
    "scene": "speech-en",
    "level": "full",
    "seed": 11,
    "card": 0,
    "ram": 3 << 30,
    "seconds": 61.0,
    "step": 1.25,
    "reading": "score +2.90: no faults; lips: in step (z +2.9); words: 0% wrong (0 of 9); "
    "loudness -20.1 LUFS, true peak -3.0 dBTP; peak -3.1 dB",
}


def test_the_table_holds_what_was_measured_and_nothing_else() -> None:
    cells = [cell.strip() for cell in results.table([ROW]).splitlines()[2].split("|")[1:-1]]
    assert cells[:7] == ["speech-en", "full", "11", "1.25", "61", "", "3.0"]
    assert cells[7:] == ["-20.1", "in step (z +2.9)", "0% wrong (0 of 9)", "", "no faults"]


def test_the_page_shows_a_scene_at_all_levels_side_by_side() -> None:
    page = results.page([ROW, {**ROW, "level": "max"}], ["max", "full"])
    assert page.index("speech-en-max.mp4") < page.index("speech-en-full.mp4")
    assert "&quot;The boat leaves" in page


def test_what_is_missing_is_said_before_anything_starts(tmp_path: Path) -> None:
    assert "--lora-high" in command.trouble(command.options(["--levels", "light"]))
    assert "there is no" in command.trouble(command.options(["--model", str(tmp_path / "gone")]))
    assert command.trouble(command.options([])) == ""


def test_levels_are_made_one_after_the_other_and_loras_stand_before_the_fast_sampler(tmp_path: Path) -> None:
    given = ["--levels", "light", "full", "--lora-high", str(tmp_path / "a"), "--lora-low", str(tmp_path / "b")]
    chosen = command.options(given)
    levels = [level for _, level in command.jobs(chosen)]
    assert levels == ["light"] * len(scenes.SCENES) + ["full"] * len(scenes.SCENES)
    made = graphs.graph(scenes.SCENES[0], "light", "mova", chosen, None)
    assert made["sample"]["inputs"]["model"] == ["lora-low", 0]
    assert made["sample"]["inputs"]["teacher"] == ["load", 0]
    assert "first_frame" not in graphs.graph(scenes.SCENES[-1], "full", "mova", chosen, "")["start"]["inputs"]


def test_what_it_takes_is_said_before_it_starts(tmp_path: Path) -> None:
    model, chosen = write_tiny_checkpoint(tmp_path / "mova"), command.options(["--out", str(tmp_path)])
    left = list(command.jobs(chosen))
    said = cost.forecast(model, chosen, left)
    assert [line.split(":")[0] for line in said] == ["time", "card", "RAM", "disk"]
    assert "at least" in said[0]
    assert "whole" in said[1]
    by_level = {level: cost.operations(MOVA, command.options(["--model", "m"]), level) for level in scenes.LEVELS}
    assert by_level["full"] > by_level["max"] > by_level["high"] > by_level["standard"] > by_level["light"]
    assert (
        by_level["full"] == 100 * work(MOVA, Workload.of(VideoShape(batch=1, frames=193, height=352, width=640))).total
    )


def test_what_is_left_follows_the_clips_that_were_made() -> None:
    chosen = command.options(["--levels", "full", "--scenes", "impacts", "music", "ambience"])
    clock = cost.Clock(TINY.mova, chosen, list(command.jobs(chosen)))
    assert clock.made(60.0) == "2 min"
    assert clock.made(20.0) == "40 s"


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    chosen = command.options(["--out", str(tmp_path)])
    with pytest.raises(MovaError, match="make room"):
        cost.forecast(write_tiny_checkpoint(tmp_path / "mova"), chosen, list(command.jobs(chosen)))


def answering(code: int, said: str, complaint: str = "") -> tuple[list[list[str]], Callable[..., SimpleNamespace]]:
    """Stands for the official code's process: what it was asked, and its answer."""
    asked: list[list[str]] = []

    def run(given: list[str], **_: object) -> SimpleNamespace:
        asked.append(given)
        return SimpleNamespace(returncode=code, stdout=said, stderr=complaint)

    return asked, run


def test_an_official_code_that_does_not_run_is_told_and_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, row = command.options(["--official", str(tmp_path)]), dict(ROW)
    assert "is no checkout" in command.trouble(chosen)
    monkeypatch.setattr(
        parity.subprocess, "run", answering(1, "", "ModuleNotFoundError: No module named 'diffusers'")[1]
    )
    note = parity.first_steps(chosen, tmp_path, [row], lambda _: None)
    assert "did not run" in note
    assert "diffusers" in note
    assert "parity" not in row
    assert parity.first_steps(command.options([]), tmp_path, [row], lambda _: None) == ""


def test_the_figure_of_a_seed_stands_in_the_row_of_its_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "First step of both codes.\nseed 11: velocities differ by 2.8e-07\nseed 99: velocities differ by 1.0e-01\n"
    asked, run = answering(0, said)
    monkeypatch.setattr(parity.subprocess, "run", run)
    rows = [dict(ROW), {**ROW, "level": "max"}, {**ROW, "seed": 12}]
    note = parity.first_steps(command.options(["--official", str(tmp_path)]), tmp_path, rows, lambda _: None)
    assert note.strip() == "First step of both codes."
    assert [row.get("parity") for row in rows] == ["2.8e-07", None, None]
    assert asked[0][-3:] == ["--seeds", "11", "12"]
    assert "| 2.8e-07 | no faults |" in results.table(rows)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"rows": 1}', '{"rows": [1]}', '{"rows": [{"scene": "a"}]}'])
def test_damaged_results_are_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    chosen = command.options(["--out", str(tmp_path)])
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(MovaError, match=r"rows.json"):
        results.kept(chosen)


def test_results_that_cannot_be_written_leave_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = command.options(["--out", str(tmp_path)])
    results.write(chosen, [ROW])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        results.write(chosen, [ROW, ROW])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@needs_comfy
def test_it_runs_through_on_the_tiny_checkpoint_and_goes_on_where_it_was(tmp_path: Path) -> None:
    loras = [str(write_tiny_lora(tmp_path / f"{expert}.safetensors", seed)) for seed, expert in enumerate(EXPERTS)]
    levels = ["light", "standard", "high", "full"]
    given = ["--yes", "--out", str(tmp_path / "out"), "--steps", "2", "--scenes", "impacts"]
    given += ["--lora-high", loras[0], "--lora-low", loras[1]]
    said: list[str] = []
    chosen = command.options([*given, "--levels", *levels])
    command.run(chosen, said.append)
    out = tmp_path / "out"
    assert said[0].startswith("4 clips to make, 8 steps")
    assert [said.index(line) for line in said if line.startswith(("time:", "1 of 4"))] == [1, 5]
    for level in levels:
        assert (out / f"impacts-{level}.mp4").stat().st_size > 1000
    shown = results.table(json.loads((out / "rows.json").read_text(encoding="utf-8"))["rows"])
    assert (out / "table.md").read_text(encoding="utf-8") == shown
    for row in shown.splitlines()[2:]:
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert float(cells[3]) > 0  # seconds a step
        assert float(cells[6]) > 0.1  # GiB of RAM
    assert "impacts-full.mp4" in (out / "index.html").read_text(encoding="utf-8")
    results.write(chosen, results.kept(chosen), "Compared.")
    command.run(chosen, said.append)
    assert (out / "table.md").read_text(encoding="utf-8") == shown + "Compared."
    assert any(line.startswith("0 clips to make") and "4 are there already" in line for line in said)
    with pytest.raises(MovaError, match="other settings"):
        command.run(command.options([*given, "--frames", "29"]), said.append)
