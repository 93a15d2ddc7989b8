"""Nodes that make a long clip part by part, each kept on disk: one run a part, and memory for one part."""

import re
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.checkpoint.whole_file import file_state, listed
from ..mova_core.errors import MovaError
from ..mova_core.inputs.numbers import told
from ..mova_core.segments import (
    SOUNDLESS,
    check_alike,
    joined_sound,
    open_segment,
    segment_path,
    segments,
    write_segment,
)
from ..mova_core.shapes import latent_frames
from ..mova_core.waveform import clip_samples, five_one
from . import inputs
from .base import MovaNode
from .host import messages
from .host.media import resampling, video

LAST_INDEX = 99999


def _name() -> io.String.Input:
    tooltip = "Name of the long clip: a folder in output/mova_segments. Letters, digits, - and _."
    return io.String.Input("name", default="clip", tooltip=tooltip)


def _overlap() -> io.Int.Input:
    return inputs.overlap("Pictures neighbouring parts share, as in 'MOVA Extend'.")


def _folder(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise MovaError(f"{told(name)} cannot name a clip; use letters, digits, - and _")
    video.check_name(name)
    return video.segment_folder(name)


def _changed(*paths: Path) -> list[Any]:
    """What tells that a part was made again."""
    return [(path.name, *told) for path in paths if (told := file_state(path))]


class MovaSaveSegment(MovaNode):
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
                inputs.SoundOrSilence("audio", tooltip="Its sound, as long as the pictures."),
                inputs.fps("Pictures a second."),
                _name(),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=LAST_INDEX,
                    tooltip="Number of the part, from 0. A part of that number is replaced.",
                ),
            ],
            outputs=[io.Int.Output(display_name="index", tooltip="The same number.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, images: Any, audio: Any, fps: float, name: str, index: int) -> io.NodeOutput:
        segment = write_segment(segment_path(_folder(name), index), images, audio, fps)
        silent = ", without sound" if audio is None else ""
        told = f"part {index:03d}: {segment.frames} pictures, {segment.width} x {segment.height}{silent}"
        messages.show(told, cls.hidden.unique_id)
        return io.NodeOutput(index)


class MovaSegmentTail(MovaNode):
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
                _name(),
                io.Int.Input(
                    "index", default=0, min=0, max=LAST_INDEX, tooltip="Number of the part whose end is wanted."
                ),
                _overlap(),
            ],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: Any, index: Any, overlap: Any) -> Any:
        if None in (name, index):  # linked: not known before the run
            return float("nan")
        return _changed(segment_path(_folder(name), index))

    @classmethod
    def run(cls, name: str, index: int, overlap: int) -> io.NodeOutput:
        latent_frames(overlap)
        segment = open_segment(segment_path(_folder(name), index))
        check_alike([segment, segment], overlap - 1)
        images, sound = segment.pictures(segment.frames - overlap).float() / 255, segment.sound()
        if sound is None:
            return io.NodeOutput(images, None, segment.fps)
        tail = sound[..., -clip_samples(overlap, segment.fps, segment.sample_rate) :]
        return io.NodeOutput(images, {"waveform": tail, "sample_rate": segment.sample_rate}, segment.fps)


class MovaJoinSegments(MovaNode):
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
                _name(),
                _overlap(),
                io.String.Input(
                    "filename_prefix",
                    default="video/MOVA_long",
                    tooltip="Where in the output folder, as in 'Save Video'.",
                ),
                io.Int.Input(
                    "last",
                    default=-1,
                    min=-1,
                    max=LAST_INDEX,
                    optional=True,
                    tooltip="Number of the last part to join, -1 for all. Linked to the index of 'MOVA Save Segment' it also "
                    "makes this node wait for that part.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="Name of the file in the output folder.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, name: Any, overlap: Any, filename_prefix: Any, last: Any = -1) -> Any:
        return float("nan") if name is None else _changed(*sorted(listed(_folder(name))))

    @classmethod
    def run(cls, name: str, overlap: int, filename_prefix: str, last: int = -1) -> io.NodeOutput:
        parts = segments(_folder(name), None if last < 0 else last)
        check_alike(parts, overlap)
        first = parts[0]
        path, subfolder = video.output_file(filename_prefix, first.width, first.height)
        rate = video.player_rate([part.sample_rate for part in parts if part.sample_rate != SOUNDLESS])
        sound = joined_sound(parts, overlap, rate, resampling.resampled)
        sound = None if sound is None else five_one(sound)[0]  # as much as a player is sure to take
        pieces = (part.pictures(overlap if n else 0) for n, part in enumerate(parts))
        frames = sum(part.frames for part in parts) - overlap * (len(parts) - 1)
        notes = video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        size = first.width, first.height
        video.write(path, size, pieces, sound, first.fps, rate, notes, frames=frames)
        preview = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(f"{subfolder}/{path.name}" if subfolder else path.name, ui=preview)
