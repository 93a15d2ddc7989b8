"""How far the first step of this code lies from the official one's: a process of benchmarks/official_step.py."""

import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.comfy.find import REPOSITORY
from tools.judge.graphs import size_of
from tools.routes.comfyui import has_accelerator

PIPELINE = "mova/diffusion/pipelines/pipeline_mova.py"
COMPARED = "full"  # the level that samples as the official code does
FIGURE = re.compile(r"^seed (\d+): velocities differ by (\S+)", re.MULTILINE)


def first_steps(chosen: Namespace, model: Path, rows: Sequence[dict[str, Any]], say: Callable[[str], None]) -> str:
    """Put a figure for its seed into each row of level "full"; what is to be said under the table. Nothing without a
    checkout, or where every row has its figure."""
    wanted = [row for row in rows if row["level"] == COMPARED and "parity" not in row]
    if chosen.official is None or not wanted:
        return ""
    say(f"the first step of {len(wanted)} clips by the official code in {chosen.official}")
    done = subprocess.run(command(chosen, model, wanted), cwd=REPOSITORY, capture_output=True, text=True)
    found = {int(seed): figure for seed, figure in FIGURE.findall(done.stdout)}
    for row in wanted:
        if row["seed"] in found:
            row["parity"] = found[row["seed"]]
    if done.returncode == 0:
        return f"\n{done.stdout.splitlines()[0]}\n"
    return f"\nThe official code did not run:\n\n```\n{done.stderr[-2000:].strip()}\n```\n"


def command(chosen: Namespace, model: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    seeds = [str(row["seed"]) for row in rows]
    size = [f"--{name}={value}" for name, value in size_of(chosen).items()]
    device = "cuda" if has_accelerator() else "cpu"
    given = ["--repo", str(chosen.official.resolve()), "--model", str(model.resolve()), "--device", device, *size]
    return [sys.executable, "-m", "benchmarks.official_step", *given, "--seeds", *seeds]
