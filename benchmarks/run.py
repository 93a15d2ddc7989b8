"""All measurements that need no GPU, one table: `python benchmarks/run.py` writes benchmarks/RESULTS.md.

Counted: peak memory, work and memory traffic of a forward at full size, on our layers and on ComfyUI's. Measured: CPU
time against DiffSynth-Studio (where it is installed), loading, and, with --soak, many runs in a real ComfyUI.
"""

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []
# Binds `tests` before ComfyUI, which has a folder of that name, is put on the path.
from tests.in_process import load_pack, prepare_comfyui  # noqa: E402

RESULTS = Path(__file__).with_name("RESULTS.md")
SIZES = {"360p": (352, 640), "720p": (720, 1280)}
LIMITS = {("360p", "normal"): 2.3, ("720p", "normal"): 9.0, ("360p", "low"): 1.9, ("720p", "low"): 6.0}
NO_GPU = """## GPU

Nothing here says how fast a card is. [GPU.md](GPU.md) says what was measured on one, and what is to be."""


def memory(pack: Any) -> Iterator[str]:
    """Peaks, work and traffic, 193 frames, bf16, batch 1."""
    from benchmarks.comfy_path import account_host, in_chunks
    from benchmarks.peak import GIB, Clip, Ledger, account, at_depth, few_layers
    from mova_core.config import MovaConfig
    from mova_core.estimate import CHUNKED, FULL
    from mova_core.ops import Runtime

    yield "| layers | size | path | peak GiB | limit | GEMM TFLOP | attention TFLOP | traffic GB | MiB a latent frame |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for size, (height, width) in SIZES.items():
        for path, rows in (("normal", FULL), ("low", CHUNKED)):

            def core(config: MovaConfig, frames: int, rows: Any = rows, sides: Any = (height, width)) -> Ledger:
                clip = Clip(height=sides[0], width=sides[1], frames=frames)
                options = {"ffn_rows": rows.feed_forward, "query_rows": rows.queries}
                return account(clip, config, lambda ledger: Runtime(attention=ledger.attention, **options))

            def host(config: MovaConfig, frames: int, rows: Any = rows, sides: Any = (height, width)) -> Ledger:
                clip = Clip(height=sides[0], width=sides[1], frames=frames)
                options = in_chunks(pack, rows.feed_forward, rows.queries)
                return account_host(pack, clip, config, options)

            for name, counted in (("ours, plain torch", core), ("ComfyUI's", host)):
                books: Callable[..., Ledger] = cache(counted)
                near, far = books(few_layers(1), 97), books(few_layers(1), 193)
                work = [
                    at_depth(lambda config, books=books, kind=kind: kind(books(config, 193)))
                    for kind in (
                        lambda ledger: ledger.matrix_flops / 1e12,
                        lambda ledger: ledger.attention_flops / 1e12,
                        lambda ledger: sum(ledger.traffic.values()) / 1e9,
                    )
                ]
                yield (
                    f"| {name} | {size} | {path} | {far.peak / GIB:.3f} | {LIMITS[size, path]} | {work[0]:.2f} "
                    f"| {work[1]:.1f} | {work[2]:.0f} | {(far.peak - near.peak) / 24 / 2**20:.1f} |"
                )


def fast_step() -> Iterator[str]:
    """Peaks and bytes over the bus of a step after the first, 193 frames, bf16."""
    from benchmarks.fast_step import table

    yield from table()


def against() -> Iterator[str]:
    """CPU time of a small joint forward, ours over DiffSynth-Studio's."""
    import torch

    try:
        version = importlib.metadata.version("diffsynth")
    except importlib.metadata.PackageNotFoundError:
        yield "Not measured: `pip install --no-deps diffsynth` first."
        return
    from benchmarks.against import ROUNDS, compare

    load = os.getloadavg()[0]
    yield f"DiffSynth-Studio {version}, {ROUNDS} interleaved rounds, {os.cpu_count()} cores, load average {load:.1f}."
    yield ""
    yield "| dtype | ours s | theirs s | median ratio | ratio of minima | outputs differ by |"
    yield "|---|---|---|---|---|---|"
    for dtype in (torch.float32, torch.bfloat16):
        found = compare(dtype)
        yield (
            f"| {str(dtype).removeprefix('torch.')} | {found['ours']:.2f} | {found['theirs']:.2f} "
            f"| {found['ratio']:.3f} | {found['ratio of minima']:.3f} | {found['difference']:.1e} |"
        )


def decoding() -> Iterator[str]:
    """What decoders have alive at most, 193 frames."""
    from benchmarks.comfy_path import decoding_peak, sound_decoding_peak
    from benchmarks.peak import GIB

    yield "Whole, or in tiles of 256 pixels, of which one is alive at a time. Weights and what convolutions take for"
    yield "themselves are not in it."
    yield ""
    yield "| what | peak GiB |"
    yield "|---|---|"
    for name, height, width in (("pictures, 360p", 44, 80), ("pictures, 720p", 90, 160), ("a tile", 32, 32)):
        yield f"| {name}, ComfyUI's Wan VAE, bf16 | {decoding_peak(height, width, 49) / GIB:.2f} |"
    yield f"| sound, 8 s, float32 | {sound_decoding_peak(403) / GIB:.2f} |"


def loader() -> Iterator[str]:
    """Both experts of a folder with as many weights as published, 0.15 and 2.6 GB; the fastest of five."""
    from benchmarks.loader import fresh, make_folder

    yield f"Fastest of five fresh processes, warm; load average {os.getloadavg()[0]:.1f}. Time goes to describing and"
    yield "assigning some 4000 weights. Memory in shares of the files; what goes beyond them is Python's."
    yield ""
    yield "| GB | seconds | s/GB | s/GB at 65.3 GB | anonymous | after use | peak | mapped twice |"
    yield "|---|---|---|---|---|---|---|---|"
    for size in (0.15, 2.6):
        with tempfile.TemporaryDirectory() as folder:
            made = make_folder(Path(folder) / "folder", size)
            cost = min((fresh(made) for _ in range(5)), key=lambda cost: cost["seconds"])
        yield (
            f"| {cost['bytes'] / 1e9:.2f} | {cost['seconds']:.2f} | {cost['seconds a GB']:.3f} "
            f"| {cost['seconds'] / 65.3:.4f} | {cost['anonymous']:.3f}x | {cost['anonymous after use']:.3f}x "
            f"| {cost['peak']:.3f}x | {cost['mapped twice']} |"
        )


def soaked(runs: int) -> Iterator[str]:
    """Many runs in one ComfyUI."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", str(runs)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    held = [line.split(": ")[1] for line in lines if line.startswith("run ")]
    yield f"{runs} runs changing size, prompt, LoRA and expert; resident: {', '.join(held)}."
    yield from (line[0].upper() + line[1:] + "." for line in lines if not line.startswith("run "))
    if not lines:
        yield "Failed: " + done.stderr[-500:]


def versions() -> str:
    names = ("torch", "comfy-kitchen", "comfy-aimdo", "safetensors")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    import comfyui_version

    return ", ".join(
        [
            f"{datetime.date.today():%Y-%m-%d}, commit {commit.stdout.strip()}",
            f"ComfyUI {comfyui_version.__version__}",
            f"Python {platform.python_version()}",
            *found,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soak", type=int, default=0, metavar="RUNS", help="also soak a ComfyUI with so many runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        pack = load_pack(prepare_comfyui(Path(base)))
        sections = {
            "Memory, work and traffic of a forward (counted)": memory(pack),
            "A step of MOVA Fast Sampler (counted)": fast_step(),
            "CPU time against DiffSynth-Studio (measured)": against(),
            "Decoding (counted)": decoding(),
            "Loading (measured)": loader(),
        }
        if given.soak:
            sections["Soak (measured)"] = soaked(given.soak)
        parts = ["# Results", f"Written by `python benchmarks/run.py`. {versions()}."]
        for title, lines in sections.items():
            text = "\n".join(lines)
            print(f"{title}\n{text}\n", flush=True)
            parts.append(f"## {title}\n\n{text}")
    RESULTS.write_text("\n\n".join([*parts, NO_GPU]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
