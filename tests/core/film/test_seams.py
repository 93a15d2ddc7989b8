"""Takes put together: clocks, sound level and colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.film.seams import MATCHING, colours, joined_sound, matched_colours, references
from mova_core.film.takes import END, Take, end_digest
from mova_core.shapes import FPS_RANGE
from mova_core.waveform import clip_samples

RATE = 8000
PLAIN = Take(
    shot="a",
    number=1,
    frames=13,
    held=0,
    height=16,
    width=16,
    fps=24.0,
    sample_rate=RATE,
    end="",
    content={},
    mean=(100.0, 100.0, 100.0),
    spread=(20.0, 20.0, 20.0),
)


def take(folder: Path, number: int, sound: torch.Tensor, fps: float = 24.0) -> Take:
    folder = folder / str(number)
    folder.mkdir(exist_ok=True)
    pictures = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    save_file({"sound": sound, "pictures": pictures}, folder / END)
    return replace(PLAIN, folder=folder, fps=fps, end=end_digest(pictures, sound))


def same_rate(sound: torch.Tensor, rate: int, to: int) -> torch.Tensor:
    assert rate == to
    return sound


def tone(level: float, fps: float = 24.0) -> torch.Tensor:
    return level * torch.sin(torch.arange(clip_samples(13, fps, RATE)) * 0.3)[None]


@pytest.mark.parametrize("fps", [24.0, 23.976, 25.0, 29.97, 12.5, FPS_RANGE[1]])
@pytest.mark.parametrize("matching", MATCHING)
@pytest.mark.parametrize("kind", ["cuts", "goes on", "both"])
def test_both_clocks_are_equal_to_a_sample_over_thirty_shots(
    tmp_path: Path, fps: float, matching: str, kind: str
) -> None:
    parts = [take(tmp_path, n, tone(0.1, fps), fps) for n in range(30)]
    held = [0 if n == 0 or kind == "cuts" or (kind == "both" and n % 2) else 5 for n in range(30)]
    sound = joined_sound(parts, held, matching, RATE, same_rate)
    assert sound.shape[-1] == clip_samples(13 * 30 - sum(held), fps, RATE)


def level(sound: torch.Tensor) -> float:
    return float(sound.square().mean().sqrt())


def test_each_shot_is_made_as_loud_as_the_first_and_drift_does_not_add_up(tmp_path: Path) -> None:
    parts = [take(tmp_path, n, tone(0.1 * 0.8**n)) for n in range(6)]
    held = [0, 5, 5, 0, 5, 5]
    seconds = {matching: joined_sound(parts, held, matching, RATE, same_rate)[..., -2000:] for matching in MATCHING}
    first = level(tone(0.1))
    assert level(seconds["all shots"]) == pytest.approx(first, rel=0.03)
    assert level(seconds["shots that go on"]) == pytest.approx(first * 0.8**3, rel=0.03)


def test_a_silent_shot_stays_silent(tmp_path: Path) -> None:
    parts = [take(tmp_path, n, tone(level)) for n, level in enumerate((0.1, 0.0))]
    assert float(joined_sound(parts, [0, 0], "all shots", RATE, same_rate)[..., -2000:].abs().max()) == 0.0


@pytest.mark.parametrize(
    ("matching", "firsts"), [("no", [0, 1, 2, 3, 4]), ("all shots", [0] * 5), ("shots that go on", [0, 0, 2, 2, 2])]
)
def test_what_a_shot_is_matched_to(matching: str, firsts: list[int]) -> None:
    assert references([0, 5, 0, 5, 5], matching) == firsts


def test_colours_that_drifted_come_back_and_others_are_held_within_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = (torch.randn(5, 16, 16, 3, generator=generator) * 20 + 100).clamp(0, 255).to(torch.uint8)
    drifted = ((pictures.float() - 100) * 0.9 + 115).clamp(0, 255).to(torch.uint8)
    first, later = (replace(PLAIN, mean=m, spread=s, folder=Path(n)) for n, (m, s) in
                    (("a", colours(pictures)), ("b", colours(drifted))))  # fmt: skip
    back = matched_colours(drifted, later, first)
    assert (back.float() - pictures.float()).abs().mean() < 1.5
    far = matched_colours(pictures, replace(first, folder=Path("c")), replace(later, mean=(250.0,) * 3))
    assert float((far.float() - pictures.float()).mean()) <= 48.5
    assert torch.equal(matched_colours(pictures, first, first), pictures)
