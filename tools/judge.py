"""Clips of a fixed list of prompts and seeds, measured, to look and listen to side by side: `python -m tools.judge`.

    python -m tools.judge --model FOLDER --out RESULTS [--levels max full] [--lora-high FILE --lora-low FILE]

Runs each prompt on each level in a ComfyUI of its own, keeps the MP4s, and writes RESULTS/index.html and
RESULTS/table.md, whose text can be pasted as a public result. It says first what it will make. What is there already is
not made again: start it again after an interruption. light, standard and high need distillation LoRAs of both experts.
With --official PATH (a checkout of OpenMOSS/MOVA) one forward of both codes on the same random weights is compared too,
by benchmarks/official.py. Words are judged where --words names a JSON file {"clip's name": "what was recognised"}, from
any speech recognition; without it the column is empty.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mova_core.errors import MovaError
from tools.comfy.find import REPOSITORY, find_comfyui
from tools.comfy.server import ComfyServer, Result
from tools.routes.comfyui import DAY, Graph, has_accelerator, image_to_video_audio

NEGATIVE = "blurry, distorted, subtitles, noise"
FAST = ("light", "standard", "high", "max")
LEVELS = (*FAST, "full")
STEPS = {"light": 8, "standard": 8, "high": 8, "max": 20, "full": 50}
SIZE = {"width": 640, "height": 352, "frames": 193}
TINY_SIZE = {"width": 32, "height": 32, "frames": 25}
GIB = 2**30
STYLE = (
    "body{font:14px sans-serif}video{width:100%}p{font-weight:400}td,th{vertical-align:top;text-align:left;width:20em}"
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One prompt and its seed; with a first frame, or from the text alone."""

    name: str
    seed: int
    pictured: bool
    prompt: str


OPENING = "This video has no subtitles. "
SCENES = (
    Scene(
        name="speech-en",
        seed=11,
        pictured=True,
        prompt=OPENING + 'The person looks into the camera and says: "The boat leaves at seven, so do not be late."\n\n'
        "The audio shows a clear, friendly voice in a quiet room.",
    ),
    Scene(
        name="speech-fr",
        seed=12,
        pictured=True,
        prompt=OPENING
        + 'The person looks into the camera and says: "Le bateau part \u00e0 sept heures, ne soyez pas en '
        'retard."\n\nThe audio shows a clear, friendly voice in a quiet room.',
    ),
    Scene(
        name="speech-zh",
        seed=13,
        pictured=True,
        prompt=OPENING + 'The person looks into the camera and says: "\u8239\u4e03\u70b9\u5f00\uff0c\u522b\u8fdf\u5230'
        '\u4e86\u3002"\n\nThe audio shows a clear, friendly voice in a quiet room.',
    ),
    Scene(
        name="speech-text",
        seed=14,
        pictured=False,
        prompt=OPENING + 'A woman in a green coat stands on a pier and says: "I can see the lighthouse from here."\n\n'
        "The audio shows her calm voice, and gulls far away.",
    ),
    Scene(
        name="impacts",
        seed=21,
        pictured=False,
        prompt=OPENING
        + "A hammer strikes an anvil three times, and sparks fly.\n\nThe audio shows three hard, ringing blows.",
    ),
    Scene(
        name="ambience",
        seed=31,
        pictured=False,
        prompt=OPENING + "Rain falls on a pond among reeds.\n\nThe audio shows steady rain and a frog now and then.",
    ),
    Scene(
        name="music",
        seed=41,
        pictured=False,
        prompt=OPENING
        + "Hands play a slow melody on an upright piano.\n\nThe audio shows a solo piano in a small hall.",
    ),
)


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
    needing = sorted({"light", "standard", "high"} & set(chosen.levels))
    if needing and not (chosen.lora_high and chosen.lora_low):
        return f"{', '.join(needing)}: give the distillation LoRAs with --lora-high and --lora-low, or leave them out"
    return ""


def jobs(chosen: argparse.Namespace) -> Iterator[tuple[Scene, str]]:
    """Every clip that is wanted, level by level: a level's models stay loaded."""
    for level in chosen.levels:
        for scene in SCENES:
            if not chosen.scenes or scene.name in chosen.scenes:
                yield scene, level


def graph(scene: Scene, level: str, folder: str, chosen: argparse.Namespace, heard: str | None) -> Graph:
    """The clip and its reading, API format; the sampler is the node "sample"."""
    size = {name: getattr(chosen, name) or standard for name, standard in (SIZE if chosen.model else TINY_SIZE).items()}
    steps = chosen.steps or STEPS[level]
    clip = {"prompt": scene.prompt, "negative": NEGATIVE, "fps": 24.0, "cfg": 5.0, "steps": steps, "seed": scene.seed}
    made = image_to_video_audio(folder, "judge.png", **clip, **size)
    if not scene.pictured:
        del made["image"], made["start"]["inputs"]["first_frame"]
    if level != "full":
        streams = {name: ["start", at] for at, name in enumerate(("positive", "negative", "latent"))}
        fast = {"model": ["load", 0], "teacher": ["load", 0], "seed": scene.seed, "steps": steps, "quality": level}
        made["sample"] = {"class_type": "MOVAFastSampler", "inputs": {**streams, **fast}}
    if level in ("light", "standard", "high"):
        _distil(made, chosen)
    said = {"prompt": scene.prompt, **({} if heard is None else {"recognised": heard})}
    reading = {"images": ["decode", 0], "audio": ["decode", 1], "fps": ["decode", 2], **said}
    made["meter"] = {"class_type": "MOVAMeter", "inputs": reading}
    made["reading"] = {"class_type": "PreviewAny", "inputs": {"source": ["meter", 0]}}
    return made


def _distil(made: Graph, chosen: argparse.Namespace) -> None:
    """LoRAs before the fast sampler, one an expert."""
    strengths = ("", "_video", "_audio", "_audio_to_video", "_video_to_audio")
    before = ["load", 0]
    for expert, file in (("high", chosen.lora_high), ("low", chosen.lora_low)):
        values = {f"strength{part}": 1.0 for part in strengths}
        inputs = {"model": before, "lora_name": file.name, "expert": expert, **values}
        made[f"lora-{expert}"] = {"class_type": "MOVALoraLoader", "inputs": inputs}
        before = [f"lora-{expert}", 0]
    made["sample"]["inputs"]["model"] = before


class Memory:
    """The most that the server's process and the card held while a clip was made, in bytes; 0 where nobody can tell."""

    def __init__(self, pid: int) -> None:
        self.pid, self.ram, self.card = pid, 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        process, card = psutil.Process(self.pid), _card()
        while True:
            try:
                self.ram = max(self.ram, process.memory_info().rss)
            except psutil.Error:
                return
            self.card = max(self.card, card() if card else 0)
            if self._over.wait(0.2):
                return


def _card() -> Any:
    """Reads the bytes in use on the first card; None without NVML or a card."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # noqa: BLE001 - no NVML, no driver, no card: all the same here
        return None
    return lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def seconds_a_step(result: Result) -> float | None:
    """Median between two steps of the sampler; None of fewer than two."""
    steps = [e.seconds for e in result.events if e.kind == "progress" and e.data.get("node") == "sample"]
    gaps = sorted(after - before for before, after in pairwise(steps))
    return gaps[len(gaps) // 2] if gaps else None


def make(server: ComfyServer, scene: Scene, level: str, folder: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One clip, its MP4 in the results; the row of the table."""
    name = f"{scene.name}-{level}"
    words = json.loads(chosen.words.read_text(encoding="utf-8")) if chosen.words else {}
    begun = time.monotonic()
    with Memory(server.pid) as memory:
        result = server.run(graph(scene, level, folder, chosen, words.get(name)), timeout=DAY)
    if result.status != "success":
        raise MovaError(f"{name} ended with {result.status}: {result.message}; the log is {server.log_path}")
    shutil.copyfile(next(file for file in result.files if file.suffix == ".mp4"), chosen.out / f"{name}.mp4")
    told = {"seconds": time.monotonic() - begun, "step": seconds_a_step(result), "reading": result.text("reading")[0]}
    return {"scene": scene.name, "level": level, "seed": scene.seed, "card": memory.card, "ram": memory.ram, **told}


def settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """What a clip depends on beside scene and level: results of other settings are not gone on with."""
    files = {name: str(getattr(chosen, name) or "") for name in ("model", "image", "lora_high", "lora_low", "words")}
    return {**files, **{name: getattr(chosen, name) for name in ("width", "height", "frames", "steps")}}


def kept(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of an earlier start.

    Raises:
        MovaError: it had other settings.
    """
    file = chosen.out / "rows.json"
    if not file.is_file():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["settings"] != settings(chosen):
        raise MovaError(f"{chosen.out} holds results of other settings; choose another --out")
    rows: list[dict[str, Any]] = found["rows"]
    return [row for row in rows if (chosen.out / f"{row['scene']}-{row['level']}.mp4").is_file()]


def part(reading: str, pattern: str) -> str:
    found = re.search(pattern, reading)
    return found[1] if found else ""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line a clip. An empty cell was not measured."""
    lines = ["| clip | level | seed | s a step | s in all | GiB card | GiB RAM | LUFS | lips | words | faults |"]
    lines.append("|---" * 11 + "|")
    for row in rows:
        said = row["reading"]
        numbers = [
            "" if row["step"] is None else f"{row['step']:.2f}",
            f"{row['seconds']:.0f}",
            f"{row['card'] / GIB:.1f}" if row["card"] else "",
            f"{row['ram'] / GIB:.1f}",
        ]
        judged = [part(said, p) for p in (r"loudness (\S+)", r"lips: ([^;]+)", r"words: ([^;]+)", r"score \S+ ([^;]+)")]
        lines.append("| " + " | ".join([row["scene"], row["level"], str(row["seed"]), *numbers, *judged]) + " |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[dict[str, Any]], levels: Sequence[str]) -> str:
    """One row a scene, its levels side by side."""
    prompts = {scene.name: scene.prompt for scene in SCENES}
    found = {(row["scene"], row["level"]): row for row in rows}
    body = "<tr><th></th>" + "".join(f"<th>{level}</th>" for level in levels) + "</tr>"
    for name in dict.fromkeys(row["scene"] for row in rows):
        cells = "".join(_cell(found.get((name, level))) for level in levels)
        body += f"<tr><th>{name}<p>{html.escape(prompts[name])}</p></th>{cells}</tr>"
    return f'<!doctype html><meta charset="utf-8"><title>MOVA</title><style>{STYLE}</style><table>{body}</table>\n'


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "<td></td>"
    clip = f"{row['scene']}-{row['level']}.mp4"
    return f'<td><video controls loop src="{clip}"></video><p>{html.escape(row["reading"])}</p></td>'


def write(chosen: argparse.Namespace, rows: Sequence[dict[str, Any]], official: str = "") -> None:
    kept_rows = {"settings": settings(chosen), "rows": rows}
    (chosen.out / "rows.json").write_text(json.dumps(kept_rows, indent=1), encoding="utf-8")
    (chosen.out / "table.md").write_text(table(rows) + official, encoding="utf-8")
    (chosen.out / "index.html").write_text(page(rows, chosen.levels), encoding="utf-8")


def parity(chosen: argparse.Namespace) -> str:
    """What benchmarks/official.py says of the official code; empty without a checkout."""
    if chosen.official is None:
        return ""
    small = [] if has_accelerator() else ["--tiny", "--device", "cpu"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.official",
        "--repo",
        str(chosen.official.resolve()),
        "--resident",
        *small,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    said = done.stdout if done.returncode == 0 else f"the official code did not run:\n{done.stderr[-2000:]}"
    return f"\nOne forward of the official code and of this one, same random weights:\n\n{said}\n"


def run(chosen: argparse.Namespace, say: Any = print) -> None:
    """Make what is missing and write the results after each clip."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = kept(chosen)
    done = {(row["scene"], row["level"]) for row in rows}
    left = [(scene, level) for scene, level in jobs(chosen) if (scene.name, level) not in done]
    steps = sum(chosen.steps or STEPS[level] for _, level in left)
    say(
        f"{len(left)} clips to make, {steps} steps of the picture; {len(done)} are there already. Results: {chosen.out}"
    )
    if left and not chosen.yes and input("Begin? [y/N] ").strip().lower() != "y":
        return
    if left:
        _make_all(chosen, left, rows, say)
    write(chosen, rows, parity(chosen))
    say(table(rows))


def _make_all(
    chosen: argparse.Namespace, left: Sequence[tuple[Scene, str]], rows: list[dict[str, Any]], say: Any
) -> None:
    base = chosen.out / "server"
    model = chosen.model or _tiny(base)
    paths = {"mova_judge": {"base_path": str(model.resolve().parent), "diffusers": "."}}
    for file in (chosen.lora_high, chosen.lora_low):
        if file is not None:
            paths[f"lora_{len(paths)}"] = {"base_path": str(file.resolve().parent), "loras": "."}
    base.mkdir(exist_ok=True)
    (base / "paths.yaml").write_text(json.dumps(paths), encoding="utf-8")
    arguments = ("--extra-model-paths-config", str(base / "paths.yaml"))
    comfyui = find_comfyui(say)
    if comfyui is None:
        raise MovaError("no ComfyUI was found; set COMFYUI_PATH")
    with ComfyServer(base, pack=REPOSITORY, comfyui=comfyui, cpu=not has_accelerator(), arguments=arguments) as server:
        shutil.copyfile(chosen.image or comfyui / "input" / "example.png", server.input / "judge.png")
        for at, (scene, level) in enumerate(left, 1):
            rows.append(make(server, scene, level, model.name, chosen))
            write(chosen, rows)
            say(f"{at} of {len(left)}: {scene.name}, {level}: {rows[-1]['seconds']:.0f} s; {rows[-1]['reading']}")


def _tiny(base: Path) -> Path:
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
