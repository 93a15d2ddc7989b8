"""Training at full size in real ComfyUI on a GPU: a folder of clips to a LoRA, on a card of 24 GiB.

    python -m benchmarks.gpu_comfy BASE train-97 train-49

Clips with sound are made, encoded by 'MOVA Training Clips' with encoders of the published sizes, and learned from by
'MOVA Train LoRA' at rank 32: a few steps of each expert, so that both are loaded and change places.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.fixtures.clips import HUM, write_clip
from tools.comfy.prompts import Result

from .gpu_comfy import Case, Gauge, spans, steps
from .soak import node

FOLDER = "bench_clips"
HEADING = (
    "| case | card, GiB | s/step, median without the first of an expert (each) | s: load / clips "
    "| peak GiB of the card: clips / training | host GiB: own / mapped | LoRA |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Training(Case):
    """A LoRA of one clip. `steps` are taken half by half by both experts."""

    rank: int = 32
    table: ClassVar[str] = HEADING

    @property
    def shown(self) -> tuple[str, ...]:
        return ("budget", "train")

    def prepare(self, base: Path) -> None:
        folder = base / "input" / FOLDER / str(self.frames)
        folder.mkdir(parents=True, exist_ok=True)
        write_clip(folder / "clip.mp4", frames=self.frames, size=(self.height, self.width), sound=HUM)
        (folder / "clip.txt").write_text("A ball crosses a wall. The audio shows a humming tone.")

    def graph(self) -> dict[str, Any]:
        """The run as an API graph; its node "train" learns."""
        coders = {"clip": ["load", 1], "vae": ["load", 2], "audio_vae": ["load", 3]}
        size = {"width": self.width, "height": self.height, "frames": self.frames}
        asked = {"parts": "both experts, sound and bridge", "rank": self.rank}
        rates = {"learning_rate": 1e-4, "high_noise_rate": 5e-5, "draw_seed": 0}
        often = {"save_every": 0, "preview_every": 0, "evaluate_every": 0, "begin_anew": True}
        turns = {"steps": self.steps, "alternate": self.steps // 2}
        clips = {"folder": f"{FOLDER}/{self.frames}", "sizes": "crop", "cut": "start", "preview_clips": 0}
        return {
            "load": node("MOVALoader", folder="bench", weight_dtype=self.weights),
            "clips": node("MOVATrainingClips", **coders, **size, **clips),
            "budget": node("MOVATrainingBudget", model=["load", 0], clip_count=1, **size, **asked, steps=self.steps),
            "train": node(
                "MOVATrainLora",
                model=["load", 0],
                clips=["clips", 0],
                name=self.name,
                **asked,
                **rates,
                **often,
                **turns,
            ),
        }

    def row(self, result: Result, gauge: Gauge, base: Path) -> str:
        when, taken = spans(result), steps(result, "train")
        seconds = {name: end - begin for name, (begin, end) in when.items()}
        later = [value for index, value in enumerate(taken) if index % (self.steps // 2)]
        each = ", ".join(f"{value:.2f}" for value in taken)
        others = " / ".join(f"{seconds[name]:.1f}" for name in ("load", "clips"))
        peaks = " / ".join(f"{gauge.peak(*when[name]):.2f}" for name in ("clips", "train"))
        size = (base / "models" / "loras" / f"{self.name}.safetensors").stat().st_size / 1e6
        row = (self.name, self.cap or "all", f"{statistics.median(later):.2f} ({each})", others, peaks, gauge.host())
        return f"| {' | '.join(map(str, row))} | {size:.0f} MB |"


TRAINING = (
    Training(name="train-97", cap=24, frames=97, steps=6),
    Training(name="train-97-all", cap=0, frames=97, steps=6),
    Training(name="train-49", cap=24, frames=49, steps=6),
    Training(name="train-193", cap=24, frames=193, steps=4),
    Training(name="train-49-legacy", cap=24, frames=49, steps=6, flags=("--disable-dynamic-vram",)),
    Training(name="train-49-int8", cap=24, frames=49, steps=6, weights="int8"),
)
