"""Whether lips can be judged, on clips whose picture and sound belong together: `python -m benchmarks.lips FOLDER`

Each clip of the folder with a face that OpenCV 4's cascade finds is judged as it is, with its sound shifted, and with
the pictures of others. Nothing is fetched: put talking heads there, at most 8 s of each are read.
"""

import argparse
import random
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch
from torch import Tensor

from mova_core.meter import lips
from tests.in_process import load_pack, prepare_comfyui

SECONDS = 8.0
SHIFTS = (-0.7, -0.5, -0.3, 0.3, 0.5, 0.7)
SHORTER_SIDE = 480
DRAWS = 20  # times that a clip is put among three others


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What is left of a clip once its mouth was looked at."""

    name: str
    mouth: Tensor  # (F, D) features
    sound: Tensor  # (1, S)
    rate: int
    fps: float


def read(path: Path) -> tuple[Tensor, Tensor, int, float]:
    """(F, H, W, 3) pictures in 0..1, (1, S) sound that begins with the first of them, its rate, pictures a second.

    No sample of a clip without sound.
    """
    images, fps, begin = _pictures(path)
    sound, rate = _sound(path, begin)
    return images, sound[:, : round(len(images) / fps * rate)], rate, fps


def _pictures(path: Path) -> tuple[Tensor, float, float]:
    """Pictures, how many a second, and when the first of them is shown."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        fps, begin, pictures = float(video.average_rate or Fraction(25)), 0.0, []
        for frame in file.decode(video):
            begin = frame.time or 0.0 if not pictures else begin
            scale = min(1.0, SHORTER_SIDE / min(frame.width, frame.height))
            size = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
            pictures.append(torch.from_numpy(frame.reformat(*size, format="rgb24").to_ndarray()))
            if len(pictures) >= SECONDS * fps:
                break
    return torch.stack(pictures).float() / 255, fps, begin


def _sound(path: Path, begin: float) -> tuple[Tensor, int]:
    """(1, S) from `begin` seconds on, and its rate."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return torch.zeros(1, 0), 16000
        audio, parts, late = file.streams.audio[0], [], None
        mono = av.AudioResampler("fltp", "mono", audio.rate)
        for frame in file.decode(audio):
            late = (frame.time or 0.0) - begin if late is None else late
            parts += [torch.from_numpy(part.to_ndarray()).clone() for part in mono.resample(frame)]
            if sum(part.shape[1] for part in parts) > (SECONDS + 2) * audio.rate:
                break
        rate = audio.rate
    sound, skip = torch.cat(parts, dim=1), round(-(late or 0.0) * rate)
    return sound[:, skip:] if skip > 0 else torch.nn.functional.pad(sound, (-skip, 0)), rate


def looked_at(path: Path, faces: object) -> Clip | None:
    """None without a sound track, a face, or enough pictures."""
    try:
        images, sound, rate, fps = read(path)
    except (av.FFmpegError, IndexError):
        return None
    boxes = faces.detected(images) if len(images) >= lips.FEWEST_FRAMES else None  # type: ignore[attr-defined]
    if boxes is None or not sound.any():
        return None
    return Clip(name=path.name, mouth=lips.mouth_features(images, boxes), sound=sound, rate=rate, fps=fps)


def heard(clip: Clip, other: Clip, shift: float = 0.0) -> lips.Lips | None:
    """The mouth of one clip with the sound of another, as late as told; what runs out at the end begins it."""
    sound = other.sound.roll(round(shift * other.rate), 1)
    frames = min(len(clip.mouth), int(sound.shape[1] / other.rate * clip.fps))
    return lips.judge_features(clip.mouth[:frames], sound, other.rate, clip.fps)


def above(these: list[float], those: list[float]) -> float:
    """Share of the pairs in which the first is larger: the area under the curve."""
    return sum((a > b) + 0.5 * (a == b) for a in these for b in those) / (len(these) * len(those))


def table(clips: list[Clip]) -> str:
    as_is = [found for clip in clips if (found := heard(clip, clip))]
    shifted = [(found, s) for clip in clips for s in SHIFTS if (found := heard(clip, clip, s))]
    told, lost = [of for of in as_is if of.told], [(of, s) for of, s in shifted if of.told]
    others = [found for a in clips for b in clips if a is not b and (found := heard(a, b))]
    area = above([of.near for of in as_is], [of.near for of, _ in shifted])
    return "\n".join(
        [
            f"| clips | {len(clips)} |",
            "|---|---|",
            f"| AUC, in step against shifted | {area:.3f} |",
            f"| the right one of four | {of_four(clips):.0%} |",
            f"| as they are: a lag is named | {len(told)} of {len(as_is)}, in step {sum(of.in_step for of in told)} |",
            f"| shifted: a lag is named | {len(lost)} of {len(shifted)}, within 170 ms "
            f"{sum(abs(of.lag - s) < 0.17 for of, s in lost)}, wrongly in step {sum(of.in_step for of, _ in lost)} |",
            f"| with another's sound: a lag is named | {sum(of.told for of in others)} of {len(others)}, "
            f"in step {sum(of.in_step for of in others)} |",
        ]
    )


def of_four(clips: list[Clip]) -> float:
    """How often the clip that a sound belongs to stands out most, among three others."""
    chance, right = random.Random(1), 0
    for own in clips:
        near = {clip.name: found.near for clip in clips if (found := heard(clip, own))}
        others = [name for name in near if name != own.name]
        for _ in range(DRAWS):
            right += max([own.name, *chance.sample(others, 3)], key=lambda name: near[name]) == own.name
    return right / (DRAWS * len(clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder, clips = parser.parse_args().folder, []
    faces = load_pack(prepare_comfyui(Path(tempfile.mkdtemp()))).module("nodes.host.meters.faces")
    for path in sorted(folder.iterdir()):
        clip = looked_at(path, faces)
        print(f"{path.name}: {'no face, or no sound' if clip is None else heard(clip, clip)}", flush=True)
        clips += [clip] if clip else []
    print(table(clips))


if __name__ == "__main__":
    main()
