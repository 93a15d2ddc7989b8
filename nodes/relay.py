"""Nodes that make a long clip part by part, each kept on disk: one run a part, and memory for one part."""

import re
from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.errors import MovaError
from ..mova_core.segments import check_alike, joined_sound, open_segment, segments, write_segment
from ..mova_core.shapes import DEFAULT_FPS, latent_frames
from ..mova_core.waveform import clip_samples
from .host import messages, video

NAME = io.String.Input(
    "name", default="clip", tooltip="Name of the long clip: a folder in output/mova_segments. Letters, digits, - and _."
)
OVERLAP = io.Int.Input(
    "overlap", default=25, min=1, max=1001, step=4, tooltip="Pictures neighbouring parts share, as in 'MOVA Extend'."
)


def _folder(name: str) -> Any:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise MovaError(f"{name!r} cannot name a clip; use letters, digits, - and _")
    return video.segment_folder(name)


class MovaSaveSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASaveSegment",
            display_name="MOVA Save Segment",
            category="MOVA/segments",
            description="Keep a part of a long clip on disk, for the next run to continue.",
            search_aliases=["relay", "long video"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures of the part, the overlap included."),
                io.Audio.Input("audio", tooltip="Its sound, as long as the pictures."),
                io.Float.Input("fps", default=DEFAULT_FPS, min=1.0, max=120.0, step=0.01, tooltip="Pictures a second."),
                NAME,
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Number of the part, from 0. A part of that number is replaced.",
                ),
            ],
            outputs=[io.Int.Output(display_name="index", tooltip="The same number.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images: Any, audio: Any, fps: float, name: str, index: int) -> io.NodeOutput:
        path = _folder(name) / f"{index:03d}.safetensors"
        segment = write_segment(path, images, audio["waveform"][0], fps, audio["sample_rate"])
        messages.show(
            f"part {index:03d}: {segment.frames} pictures, {segment.width} x {segment.height}", cls.hidden.unique_id
        )
        return io.NodeOutput(index)


class MovaSegmentTail(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASegmentTail",
            display_name="MOVA Segment Tail",
            category="MOVA/segments",
            description="The end of a part on disk, for 'MOVA Extend'. No more than that is read.",
            search_aliases=["relay", "continue"],
            is_experimental=True,
            inputs=[
                NAME,
                io.Int.Input("index", default=0, min=0, max=999, tooltip="Number of the part whose end is wanted."),
                OVERLAP,
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, index: int, overlap: int) -> Any:
        path = _folder(name) / f"{index:03d}.safetensors"
        return (overlap, path.stat().st_mtime_ns if path.is_file() else None)

    @classmethod
    def execute(cls, name: str, index: int, overlap: int) -> io.NodeOutput:
        latent_frames(overlap)
        segment = open_segment(_folder(name) / f"{index:03d}.safetensors")
        check_alike([segment, segment], overlap - 1)
        images = segment.pictures(segment.frames - overlap).float() / 255
        waveform = segment.sound()[..., -clip_samples(overlap, segment.fps, segment.sample_rate) :]
        return io.NodeOutput(images, {"waveform": waveform, "sample_rate": segment.sample_rate}, segment.fps)


class MovaJoinSegments(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAJoinSegments",
            display_name="MOVA Join Segments",
            category="MOVA/segments",
            description="Write all parts of a long clip into one MP4, a part at a time. Sounds are matched in loudness and "
            "crossfaded over the overlap; picture and sound end together.",
            search_aliases=["concatenate", "long video", "relay"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                NAME,
                OVERLAP,
                io.String.Input(
                    "filename_prefix",
                    default="video/MOVA_long",
                    tooltip="Where in the output folder, as in 'Save Video'.",
                ),
                io.Int.Input(
                    "last",
                    default=-1,
                    min=-1,
                    max=999,
                    optional=True,
                    tooltip="Number of the last part to join, -1 for all. Linked to the index of 'MOVA Save Segment' it also "
                    "makes this node wait for that part.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Name of the file in the output folder.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, overlap: int, filename_prefix: str, last: int = -1) -> Any:
        return [path.stat().st_mtime_ns for path in sorted(_folder(name).glob("*.safetensors"))]

    @classmethod
    def execute(cls, name: str, overlap: int, filename_prefix: str, last: int = -1) -> io.NodeOutput:
        parts = segments(_folder(name))
        if last >= len(parts):
            raise MovaError(
                f"part {last:03d} of {name!r} is not there, only {len(parts)} parts; make it, or set last to -1"
            )
        parts = parts[: last + 1] if last >= 0 else parts
        check_alike(parts, overlap)
        first = parts[0]
        path, subfolder = video.output_file(filename_prefix, first.width, first.height)
        pieces = (part.pictures(overlap if n else 0) for n, part in enumerate(parts))
        sound = joined_sound(parts, overlap)[0]
        notes = video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        video.write(path, (first.width, first.height), pieces, sound, first.fps, first.sample_rate, notes)
        preview = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(f"{subfolder}/{path.name}" if subfolder else path.name, ui=preview)
