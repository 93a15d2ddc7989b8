"""Clips of a fixed list of prompts and seeds, measured, to look and listen to side by side: `python -m tools.judge`.

    python -m tools.judge --model FOLDER --out RESULTS [--levels max full] [--lora-high FILE --lora-low FILE]

Runs each prompt on each level in a ComfyUI of its own, keeps the MP4s, and writes RESULTS/index.html and
RESULTS/table.md, whose text can be pasted as a public result. It says first what it will make and what that takes. What
is there already is not made again: start it again after an interruption. light, standard and high need distillation
LoRAs of both experts. With --official PATH (a checkout of OpenMOSS/MOVA) the first step of each clip of level full is
taken by the official code too, on the same weights, for the parity column: see benchmarks/official_step.py. Words are
judged where --words names a JSON file {"clip's name": "what was recognised"}, from any speech recognition; without it
the column is empty.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mova_core.checkpoint.source import from_folder
from mova_core.errors import MovaError
from tools.comfy.find import REPOSITORY, find_comfyui
from tools.comfy.server import ComfyServer
from tools.judge.cost import Clock, WantedClips, forecast
from tools.judge.graphs import graph, steps_of
from tools.judge.parity import PIPELINE, first_steps
from tools.judge.results import kept, noted, table, write
from tools.judge.scenes import DISTILLED, LEVELS, SCENES, Scene
from tools.judge.watch import Memory, seconds_a_step
from tools.routes.comfyui import DAY, has_accelerator

Say = Callable[[str], None]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a downloaded MOVA folder; without it a tiny one of random weights")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "out" / "judge", help="folder of clips, page and table"
    )
    parser.add_argument(
        "--image", type=Path, help="a portrait, the first frame of speech; ComfyUI's example by default"
    )
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=["max", "full"])
    parser.add_argument("--scenes", nargs="+", choices=[scene.name for scene in SCENES], help="all by default")
    parser.add_argument("--lora-high", type=Path, help="distillation LoRA of the high-noise expert")
    parser.add_argument("--lora-low", type=Path, help="of the low-noise expert")
    parser.add_argument("--words", type=Path, help="JSON of what was recognised in each clip")
    parser.add_argument("--official", type=Path, help="a checkout of OpenMOSS/MOVA")
    for name in ("width", "height", "frames", "steps"):
        parser.add_argument(f"--{name}", type=int, help="in place of the level's own")
    parser.add_argument("--yes", action="store_true", help="begin without asking")
    return parser.parse_args(arguments)


def trouble(chosen: argparse.Namespace) -> str:
    """What is missing, before anything is started; empty where nothing is."""
    paths = (chosen.model, chosen.image, chosen.lora_high, chosen.lora_low, chosen.words, chosen.official)
    gone = [str(path) for path in paths if path is not None and not path.exists()]
    if gone:
        return f"there is no {', '.join(gone)}"
    if chosen.official and not (chosen.official / PIPELINE).is_file():
        return f"{chosen.official} is no checkout of OpenMOSS/MOVA: it has no {PIPELINE}"
    needing = sorted(set(DISTILLED) & set(chosen.levels))
    if needing and not (chosen.lora_high and chosen.lora_low):
        return f"{', '.join(needing)}: give the distillation LoRAs with --lora-high and --lora-low, or leave them out"
    return ""


def jobs(chosen: argparse.Namespace) -> Iterator[tuple[Scene, str]]:
    """Every clip that is wanted, level by level: a level's models stay loaded."""
    for level in chosen.levels:
        for scene in SCENES:
            if not chosen.scenes or scene.name in chosen.scenes:
                yield scene, level


def make(server: ComfyServer, scene: Scene, level: str, folder: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One clip, its MP4 in the results; the row of the table."""
    name = f"{scene.name}-{level}"
    words = json.loads(chosen.words.read_text(encoding="utf-8")) if chosen.words else {}
    begun = time.monotonic()
    with Memory(server) as memory:
        result = server.run(graph(scene, level, folder, chosen, words.get(name)), timeout=DAY)
    if result.status != "success":
        raise MovaError(f"{name} ended with {result.status}: {result.message}; the log is {server.log_path}")
    shutil.copyfile(next(file for file in result.files if file.suffix == ".mp4"), chosen.out / f"{name}.mp4")
    told = {"seconds": time.monotonic() - begun, "step": seconds_a_step(result), "reading": result.text("reading")[0]}
    return {"scene": scene.name, "level": level, "seed": scene.seed, "card": memory.card, "ram": memory.ram, **told}


def run(chosen: argparse.Namespace, say: Say = print) -> None:
    """Make what is missing and write the results after each clip.

    Raises:
        MovaError: no ComfyUI, no room, a clip that failed, results of other settings.
    """
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = kept(chosen)
    done = {(row["scene"], row["level"]) for row in rows}
    left = [(scene, level) for scene, level in jobs(chosen) if (scene.name, level) not in done]
    steps = sum(steps_of(chosen, level) for _, level in left)
    say(
        f"{len(left)} clips to make, {steps} steps of the picture; {len(done)} are there already. Results: {chosen.out}"
    )
    model = chosen.model or _tiny(chosen.out / "server")
    if left:
        for line in forecast(model, chosen, left):
            say(line)
        if not chosen.yes and input("Begin? [y/N] ").strip().lower() != "y":
            return
        _make_all(chosen, model, left, rows, say)
    note = first_steps(chosen, model, rows, say) or noted(chosen)
    write(chosen, rows, note)
    say(table(rows) + note)


def _make_all(chosen: argparse.Namespace, model: Path, left: WantedClips, rows: list[dict[str, Any]], say: Say) -> None:
    clock = Clock(from_folder(model).model, chosen, left)
    with _server(chosen, model, say) as server:
        for at, (scene, level) in enumerate(left, 1):
            rows.append(make(server, scene, level, model.name, chosen))
            write(chosen, rows, noted(chosen))
            took = rows[-1]["seconds"]
            say(f"{at} of {len(left)}: {scene.name}, {level}: {took:.0f} s; {rows[-1]['reading']}")
            if at < len(left):
                say(f"about {clock.made(took)} left")


def _server(chosen: argparse.Namespace, model: Path, say: Say) -> ComfyServer:
    """Not started yet: a ComfyUI that finds the checkpoint, the LoRAs and the portrait where they are."""
    comfyui = find_comfyui(say)
    if comfyui is None:
        raise MovaError("no ComfyUI was found; set COMFYUI_PATH")
    base = chosen.out / "server"
    paths = {"mova_judge": {"base_path": str(model.resolve().parent), "diffusers": "."}}
    for file in (chosen.lora_high, chosen.lora_low):
        if file is not None:
            paths[f"lora_{len(paths)}"] = {"base_path": str(file.resolve().parent), "loras": "."}
    (base / "input").mkdir(parents=True, exist_ok=True)
    (base / "paths.yaml").write_text(json.dumps(paths), encoding="utf-8")
    shutil.copyfile(chosen.image or comfyui / "input" / "example.png", base / "input" / "judge.png")
    arguments = ("--extra-model-paths-config", str(base / "paths.yaml"))
    return ComfyServer(base, pack=REPOSITORY, comfyui=comfyui, cpu=not has_accelerator(), arguments=arguments)


def _tiny(base: Path) -> Path:
    """A checkpoint of random weights, a few megabytes."""
    from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint

    return write_tiny_checkpoint(base / "tiny" / "mova")


def main() -> None:
    chosen = options()
    wrong = trouble(chosen)
    if wrong:
        sys.exit(wrong)
    try:
        run(chosen)
    except (MovaError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
