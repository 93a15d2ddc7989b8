"""Clips of full size in real ComfyUI on a GPU: seconds of a step and of each node, memory of the card and of the host.

    python -m benchmarks.gpu_comfy BASE [--tiny] [CASE...]

BASE becomes the server's base directory: on a disk, since what lies in a tmpfs is host memory. A checkpoint of random
weights of the published sizes is written into it once (`full_checkpoint`). Each case is a ComfyUI process of its own on
a card of `cap` GiB: another process holds the rest, so that every allocator, ComfyUI's own included, sees no more. The
card is read through NVML ten times a second, and what lay on it before the server started is taken off, so the CUDA
context counts. Prints a table for benchmarks/GPU.md. Cases named train-* make a LoRA of a folder of clips
(`gpu_comfy_train`). `--tiny` runs every case with the tiny checkpoint, to see that all of it works.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.prompts import Result
from tools.comfy.server import ComfyServer

from .full_checkpoint import write_full_checkpoint
from .gpu import GIB, ballast
from .soak import card, node

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "A bell rings in the fog. The audio shows a single bronze bell."


HEADING = (
    "| case | card, GiB | s/step, median after the first (each) | s: load / text / condition / decode "
    "| peak GiB of the card: text / condition / sampling / decode | host GiB: own / mapped | clip |\n"
    "|---|---|---|---|---|---|---|"
)


@dataclass
class Gauge:
    """Bytes in use of the card (NVML) and of a process in host memory, ten times a second, from another thread."""

    pid: int
    before: int
    seen: list[tuple[float, int, int, int]] = field(default_factory=list)  # seconds; card; anonymous; file-backed
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.stop.wait(0.1):
            status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            lines = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Rss")}
            if not lines:  # the process has ended
                return
            anonymous, mapped = (int(lines[name]) * 1024 for name in ("RssAnon", "RssFile"))
            self.seen.append((time.monotonic(), card() - self.before, anonymous, mapped))

    def peak(self, begin: float, end: float, which: int = 1) -> float:
        """The most that was seen between two moments, in GiB."""
        return max((row[which] for row in self.seen if begin <= row[0] <= end), default=0) / GIB

    def host(self) -> str:
        """The most of the process's own memory, and of files mapped into it, in GiB."""
        return " / ".join(f"{self.peak(0, float('inf'), which):.1f}" for which in (2, 3))


def spans(result: Result) -> dict[str, tuple[float, float]]:
    """When each node ran: id -> its first and last moment."""
    marks = [(event.seconds, event.data.get("node")) for event in result.events if event.kind == "executing"]
    return {name: (begin, end) for (begin, name), (end, _) in pairwise(marks) if name}


def steps(result: Result, node_id: str = "walk") -> list[float]:
    """Seconds of each step of a node, of the sampler unless said; the first holds the loading."""
    begun = spans(result)[node_id][0]
    ends = [
        e.seconds for e in result.events if e.kind == "progress" and e.data.get("node") == node_id and e.data["value"]
    ]
    return [after - before for before, after in pairwise([begun, *ends])]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One clip on one card. `steps` of 3 change the expert before the last one; `cap` 0 is the whole card."""

    name: str
    cap: float
    height: int = 352
    width: int = 640
    frames: int = 193
    steps: int = 3
    cfg: float = 5.0
    tile: int = 0
    weights: str = "default"
    flags: tuple[str, ...] = ()
    preflight: bool = False
    table: ClassVar[str] = HEADING

    @property
    def shown(self) -> tuple[str, ...]:
        """Nodes whose text is printed."""
        return ("plan",) if self.preflight else ()

    def prepare(self, base: Path) -> None:
        """Put what the graph reads where the server finds it."""

    def graph(self) -> dict[str, Any]:
        """The clip as an API graph; its sampler is the node "walk"."""
        clip = {"width": self.width, "height": self.height, "frames": self.frames, "fps": 24.0, "batch_size": 1}
        loaded = node("MOVALoader", folder="bench", weight_dtype=self.weights)
        text = node("MOVATextEncode", clip=["load", 1], prompt=PROMPT, negative_prompt="blurry")
        start = node("MOVAImageToVideoAudio", positive=["text", 0], negative=["text", 1], vae=["load", 2], **clip)
        inputs = {"model": ["load", 0], "positive": ["start", 0], "negative": ["start", 1], "latent": ["start", 2]}
        walk = {"seed": 1, "steps": self.steps, "cfg": self.cfg, "shift": 5.0, "audio_shift": 5.0, "denoise": 1.0}
        parts = {"latent": ["walk", 0], "vae": ["load", 2], "audio_vae": ["load", 3]}
        made = {
            "load": loaded,
            "text": text,
            "start": start,
            "walk": node("MOVASampler", sampler="euler", scheduler="mova", **inputs, **walk),
            "decode": node("MOVADecode", tile_size=self.tile, overlap=64, **parts),
            "video": node("CreateVideo", images=["decode", 0], audio=["decode", 1], fps=["decode", 2]),
            "save": node("SaveVideo", video=["video", 0], filename_prefix=self.name, format="mp4", codec="h264"),
        }
        if self.preflight:
            asked = {"model": ["load", 0], "latent": ["start", 2], "vae": ["load", 2], "measure": True}
            made["plan"] = node("MOVAPreflight", steps=self.steps, cfg=self.cfg, **asked)
        return made

    def row(self, result: Result, gauge: Gauge, base: Path) -> str:
        when, taken = spans(result), steps(result)
        seconds = {name: end - begin for name, (begin, end) in when.items()}
        step = statistics.median(taken[1:]) if len(taken) > 1 else taken[0]
        peaks = " / ".join(f"{gauge.peak(*when[name]):.2f}" for name in ("text", "start", "walk", "decode"))
        others = " / ".join(f"{seconds[name]:.1f}" for name in ("load", "text", "start", "decode"))
        shown = ", ".join(f"{value:.2f}" for value in taken)
        sampler, clip = f"{step:.2f} ({shown})", result.files[0].stat().st_size / 1e6
        row = (self.name, self.cap or "all", sampler, others, peaks, gauge.host(), f"{clip:.2f} MB")
        return f"| {' | '.join(map(str, row))} |"

    def small(self) -> Self:
        """The same case, small."""
        return replace(self, height=48, width=80, frames=9, tile=self.tile and 64)


P720 = {"height": 720, "width": 1280}
CASES = (
    Case(name="360p-24", cap=24, preflight=True),
    Case(name="360p-all", cap=0),
    Case(name="360p-8", cap=8, tile=256, steps=2),
    Case(name="360p-24-legacy", cap=24, flags=("--disable-dynamic-vram",)),
    Case(name="360p-24-fp8", cap=24, weights="fp8_e4m3fn", flags=("--fast", "fp8_matrix_mult")),
    Case(name="360p-24-int8", cap=24, weights="int8"),
    Case(name="720p-24", cap=24, steps=1, cfg=1.0, **P720),
    Case(name="720p-12", cap=12, steps=1, cfg=1.0, tile=256, **P720),
)


def run(case: Case, base: Path, total: int) -> str:
    """One case -> its row, after printing what ComfyUI logged about it."""
    rest = int(total - case.cap * GIB) if case.cap else 0
    case.prepare(base)
    with ballast(rest) if rest else nullcontext():
        before = card()
        flags = ("--front-end-root", str(front_end(base)), *case.flags)
        with ComfyServer(base, pack=ROOT, cpu=False, arguments=flags) as server:
            gauge = Gauge(server.pid, before)
            thread = threading.Thread(target=gauge.watch, daemon=True)
            thread.start()
            result = server.run(case.graph(), timeout=540)
            gauge.stop.set()
            thread.join()
            for line in server.log().splitlines():
                if any(word in line for word in ("DynamicVRAM", "mova", "MOVA", "s/step", "oaded", "Error", "error")):
                    print("   ", line[:200])
    if result.status != "success":
        print(result.message, *result.error.get("traceback", ())[-6:], sep="\n")
        return f"| {case.name} | {result.status}: {result.message.splitlines()[0][:100]} |"
    for name in case.shown:
        print(*result.text(name), sep="\n")
    return case.row(result, gauge, base)


def front_end(base: Path) -> Path:
    """A page for a server that nobody looks at, so that the package of the real one need not be installed."""
    page = base / "page" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("<!doctype html>")
    return page.parent


def main(arguments: Sequence[str] | None = None) -> int:
    from .gpu_comfy_train import TRAINING  # which builds on this module

    known = {case.name: case for case in (*CASES, *TRAINING)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(known))
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_intermixed_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return 1
    chosen = [known[name] for name in given.cases] or list(CASES)
    folder = given.base / "models" / "diffusers" / "bench"
    if not (folder / "model_index.json").is_file():
        if given.tiny:
            write_tiny_checkpoint(folder)
        else:
            write_full_checkpoint(folder, torch.device("cuda"))
            torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    rows: dict[str, list[str]] = {}
    for case in chosen:
        print(f"== {case.name}", flush=True)
        rows.setdefault(case.table, []).append(run(case.small() if given.tiny else case, given.base, total))
        print(rows[case.table][-1], flush=True)
    for heading, found in rows.items():
        print("\n".join(("", heading, *found)))
    return int(any(" error: " in row for found in rows.values() for row in found))


if __name__ == "__main__":
    sys.exit(main())
