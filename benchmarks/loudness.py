"""How far the meter's LUFS and true peak lie from ffmpeg's ebur128: `python -m benchmarks.loudness`, where ffmpeg is.

Tones over noise, and bursts of brown noise, with pauses that the standard's gate leaves out. What is furthest apart is
said of mono, stereo and 5.1: of 7.1 the side and back surrounds are added up as 5.1 plays them, and what both carry
alike counts up to 3 LU more.
Axes: C channels, S samples.
"""

import math
import re
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from tests.in_process import load_pack, prepare_comfyui

JUDGED = (1, 2, 6)  # channels
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
RATES = (16000, 44100, 48000)
SECONDS = 6


def tones(channels: int, rate: int) -> Tensor:
    """(C, S): another octave in each channel, nearly silent for the third that lies in the middle."""
    time = torch.arange(SECONDS * rate) / rate
    rows = [0.05 * (n + 1) * torch.sin(2 * math.pi * 110 * 2 ** min(n, 5) * time) for n in range(channels)]
    sound = torch.stack(rows) + 0.02 * torch.randn(
        channels, len(time), generator=torch.Generator().manual_seed(channels)
    )
    sound[:, SECONDS * rate // 3 : 2 * SECONDS * rate // 3] *= 0.001
    return sound


def bursts(channels: int, rate: int) -> Tensor:
    """(C, S) of brown noise, a tenth of a second each, as loud as comes."""
    made = torch.Generator().manual_seed(10 * channels + rate)
    loud = (torch.rand(channels, 10 * SECONDS, generator=made) ** 2).repeat_interleave(rate // 10, 1)
    noise = torch.randn(channels, SECONDS * rate, generator=made).cumsum(1)
    sound = loud * (noise - noise.mean(1, keepdim=True)) / noise.abs().max()
    return sound - sound.mean(1, keepdim=True)


def by_ffmpeg(sound: Tensor, rate: int) -> tuple[float, float]:
    """LUFS and dBTP."""
    command = ["ffmpeg", "-hide_banner", "-f", "f32le", "-ar", str(rate), "-ac", str(len(sound))]
    command += ["-channel_layout", LAYOUTS[len(sound)], "-i", "-", "-af", "ebur128=peak=true", "-f", "null", "-"]
    done = subprocess.run(command, input=sound.T.contiguous().numpy().tobytes(), capture_output=True, check=True)
    said = done.stderr.decode()
    summary = said[said.rindex("Summary") :]
    found = [re.search(rf"{name}:\s+(-?[\d.]+)", summary) for name in ("I", "Peak")]
    lufs, peak = (float(match[1]) for match in found if match)
    return lufs, peak


def main() -> None:
    loudness = load_pack(prepare_comfyui(Path(tempfile.mkdtemp()))).module("nodes.host.meters.loudness")
    print("| sound | channels | Hz | LUFS: ffmpeg | here | true peak: ffmpeg | here |", "|---" * 7 + "|", sep="\n")
    apart = []
    for make in (tones, bursts):
        for channels, layout in LAYOUTS.items():
            for rate in RATES:
                sound = make(channels, rate)
                theirs, ours = by_ffmpeg(sound, rate), loudness.measure(sound, rate)
                cells = f"{theirs[0]:.1f} | {ours.lufs:.2f} | {theirs[1]:.1f} | {ours.true_peak:.2f}"
                print(f"| {make.__name__} | {layout} | {rate} | {cells} |")
                if channels in JUDGED:
                    apart.append((abs(ours.lufs - theirs[0]), abs(ours.true_peak - theirs[1])))
    print(f"\nfurthest apart, up to 5.1: {max(a for a, _ in apart):.2f} LU, {max(b for _, b in apart):.2f} dB")


if __name__ == "__main__":
    main()
