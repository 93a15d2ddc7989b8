"""What clips will take, said before the first is made: work, time, memory and disk."""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from mova_core.checkpoint.source import from_folder
from mova_core.config import MovaConfig
from mova_core.errors import MovaError
from mova_core.estimate import Workload, choose, decode_bytes, kept_keys_values, recipe_work, required, work
from mova_core.preflight import GIB
from mova_core.sampling.fast import recipe_of
from mova_core.shapes import VideoShape
from tools.judge.graphs import size_of, steps_of
from tools.judge.scenes import CFG, DISTILLED, FPS, Scene

WantedClips = Sequence[tuple[Scene, str]]

BITS = 0.4  # a pixel and picture of an MP4, at most, and it lies here twice: in ComfyUI's output and beside the page
ENOUGH = 0.5  # seconds of a matrix product that its rate is measured by
SIDE = 8192  # of its matrices on a card
SIDE_CPU = 1024


def shape(chosen: Namespace) -> VideoShape:
    return VideoShape(batch=1, **size_of(chosen))


def operations(config: MovaConfig, chosen: Namespace, level: str) -> int:
    """Of one clip's sampling. Two evaluations a step where the text is guided."""
    load = Workload.of(shape(chosen), FPS)
    if level == "full":
        return (1 if CFG == 1 else 2) * steps_of(chosen, level) * work(config, load).total
    return recipe_work(config, load, recipe_of(level, steps_of(chosen, level))).total


def rate() -> float:
    """Operations a second of a bf16 matrix product on the device that ComfyUI will take."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    side = SIDE if device and device.type != "cpu" else SIDE_CPU
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16)
    (matrix @ matrix)[0, 0].item()  # warm, and done
    begun, rounds = time.perf_counter(), 0
    while time.perf_counter() - begun < ENOUGH:
        (matrix @ matrix)[0, 0].item()
        rounds += 1
    return rounds * 2 * side**3 / (time.perf_counter() - begun)


def span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def disk(chosen: Namespace, clips: int) -> float:
    """Bytes that the clips take at most."""
    size = size_of(chosen)
    return 2 * clips * size["width"] * size["height"] * size["frames"] * BITS / 8


def weights(model: Path) -> int:
    """Bytes of a checkpoint's files."""
    return sum(file.stat().st_size for file in model.rglob("*.safetensors"))


def forecast(model: Path, chosen: Namespace, left: WantedClips) -> list[str]:
    """A line each of time, the card, RAM and disk.

    Raises:
        MovaError: the disk has no room; the folder is no checkpoint.
    """
    source = from_folder(model)
    work_left, speed = sum(operations(source.model, chosen, level) for _, level in left), rate()
    needed, free = disk(chosen, len(left)), shutil.disk_usage(chosen.out).free
    if needed > free:
        raise MovaError(
            f"{chosen.out} has {free / GIB:.1f} GiB free, the clips take up to {needed / GIB:.1f}: make room"
        )
    memory, files = psutil.virtual_memory(), weights(model)
    return [
        f"time: at least {span(work_left / speed)} ({work_left / 1e15:.3g} PFLOP at {speed / 1e12:.3g} TFLOP/s, a "
        "matrix product's rate here just now); loading, text, decoding and streaming weights come on top",
        f"card: {_card(source.model, chosen, left)}",
        f"RAM: the checkpoint's files are {files / GIB:.1f} GiB; this machine has {memory.total / GIB:.1f} GiB, "
        f"{memory.available / GIB:.1f} of them free",
        f"disk: up to {needed / GIB:.2f} GiB of {free / GIB:.0f} free",
    ]


def _card(config: MovaConfig, chosen: Namespace, left: WantedClips) -> str:
    load = Workload.of(shape(chosen), FPS)
    layer = round(weights_of_a_layer(config))
    least = required(config, load, choose(config, load, 0, layer), layer) / GIB
    kept = kept_keys_values(config, load) / GIB if {level for _, level in left} & set(DISTILLED) else 0
    return (
        f"a forward takes {least:.2f} GiB at least, weights streamed"
        + (f", and keeps {kept:.2f} GiB for the sound on the card or in RAM" if kept else "")
        + f"; decoding whole {decode_bytes(shape(chosen)) / GIB:.1f} GiB, less in tiles"
    )


def weights_of_a_layer(config: MovaConfig) -> float:
    """Bytes in bf16 of one video layer: four projections of two attentions, the feed-forward layer."""
    tower = config.video
    return 2.0 * (8 * tower.width**2 + 2 * tower.width * tower.ffn_width)


class Clock:
    """How long the clips that are left will take, by those that were made since the start."""

    def __init__(self, config: MovaConfig, chosen: Namespace, left: WantedClips) -> None:
        self._left = [operations(config, chosen, level) for _, level in left]
        self._done, self._seconds = 0, 0.0

    def made(self, seconds: float) -> str:
        """Take note of a clip; what is left then."""
        self._done, self._seconds = self._done + self._left.pop(0), self._seconds + seconds
        return span(sum(self._left) * self._seconds / self._done)
