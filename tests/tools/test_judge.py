"""The judge's command runs through on the tiny checkpoint, goes on where it was, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mova_core.errors import MovaError
from tests.comfy import needs_comfy
from tools import judge

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
    cells = [cell.strip() for cell in judge.table([ROW]).splitlines()[2].split("|")[1:-1]]
    assert cells[:7] == ["speech-en", "full", "11", "1.25", "61", "", "3.0"]
    assert cells[7:] == ["-20.1", "in step (z +2.9)", "0% wrong (0 of 9)", "no faults"]


def test_the_page_shows_a_scene_at_all_levels_side_by_side() -> None:
    page = judge.page([ROW, {**ROW, "level": "max"}], ["max", "full"])
    assert page.index("speech-en-max.mp4") < page.index("speech-en-full.mp4")
    assert "&quot;The boat leaves" in page


def test_what_is_missing_is_said_before_anything_starts(tmp_path: Path) -> None:
    assert "--lora-high" in judge.trouble(judge.options(["--levels", "light"]))
    assert "there is no" in judge.trouble(judge.options(["--model", str(tmp_path / "gone")]))
    assert judge.trouble(judge.options([])) == ""


def test_levels_are_made_one_after_the_other_and_loras_stand_before_the_fast_sampler(tmp_path: Path) -> None:
    given = ["--levels", "light", "full", "--lora-high", str(tmp_path / "a"), "--lora-low", str(tmp_path / "b")]
    chosen = judge.options(given)
    levels = [level for _, level in judge.jobs(chosen)]
    assert levels == ["light"] * len(judge.SCENES) + ["full"] * len(judge.SCENES)
    made = judge.graph(judge.SCENES[0], "light", "mova", chosen, None)
    assert made["sample"]["inputs"]["model"] == ["lora-low", 0]
    assert made["sample"]["inputs"]["teacher"] == ["load", 0]
    assert "first_frame" not in judge.graph(judge.SCENES[-1], "full", "mova", chosen, "")["start"]["inputs"]


@needs_comfy
def test_it_runs_through_on_the_tiny_checkpoint_and_goes_on_where_it_was(tmp_path: Path) -> None:
    given = ["--yes", "--out", str(tmp_path), "--steps", "2", "--scenes", "impacts", "--levels", "full"]
    said: list[str] = []
    judge.run(judge.options(given), said.append)
    assert said[0].startswith("1 clips to make, 2 steps")
    assert (tmp_path / "impacts-full.mp4").stat().st_size > 1000
    assert "LUFS" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "impacts-full.mp4" in (tmp_path / "index.html").read_text(encoding="utf-8")
    judge.run(judge.options(given), said.append)
    assert any(line.startswith("0 clips to make") and "1 are there already" in line for line in said)
    with pytest.raises(MovaError, match="other settings"):
        judge.run(judge.options([*given, "--frames", "29"]), said.append)
