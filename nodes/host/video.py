"""An MP4 written piece by piece, and where ComfyUI keeps what nodes write."""

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import folder_paths
from comfy.cli_args import args
from torch import Tensor

LAYOUTS = {1: "mono", 2: "stereo"}
SEGMENTS = "mova_segments"


def segment_folder(name: str) -> Path:
    """Where the segments of a clip lie, in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / SEGMENTS / name


def output_file(prefix: str, width: int, height: int) -> tuple[Path, str]:
    """A new file for `prefix` in the output folder, and its sub-folder there."""
    output = folder_paths.get_output_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    return Path(folder) / f"{name}_{counter:05}_.mp4", subfolder


def workflow_metadata(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """What 'Save Video' writes into a file, unless the user turned that off."""
    if args.disable_metadata:
        return {}
    return {**(extra or {}), **({} if prompt is None else {"prompt": prompt})}


def write(
    path: Path,
    size: tuple[int, int],
    pieces: Iterable[Tensor],
    sound: Tensor,
    fps: float,
    sample_rate: int,
    metadata: Mapping[str, Any],
) -> int:
    """Write (F, H, W, 3) uint8 pieces of `size` (W, H) with (C, S) sound as H.264 and AAC; returns the pictures written.

    Sound is written up to the end of each piece, so a player finds both together. `metadata` goes into the file as
    JSON, where ComfyUI looks for the workflow of a clip that is dropped on its page.
    """
    samples, frames, written = sound.float().clamp(-1, 1).cpu().contiguous().numpy(), 0, 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as file:
        file.metadata.update({key: json.dumps(value) for key, value in metadata.items()})
        rate = Fraction(fps).limit_denominator(1001)
        video = file.add_stream("libx264", rate=rate, options={"crf": "18"})
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        audio = file.add_stream("aac", rate=sample_rate, layout=LAYOUTS[len(samples)])
        for piece in pieces:
            for picture in piece.numpy():
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            frames += len(piece)
            end = min(samples.shape[-1], round(frames * sample_rate / fps))
            if end > written:
                block = av.AudioFrame.from_ndarray(
                    samples[:, written:end].copy(), format="fltp", layout=LAYOUTS[len(samples)]
                )
                block.sample_rate, block.pts = sample_rate, written
                file.mux(audio.encode(block))
                written = end
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return frames
