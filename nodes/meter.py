"""Nodes that measure clips, and choose among drafts."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import ShapeError
from ..mova_core.inputs.sounds import Sound
from ..mova_core.meter import Reading, read
from . import inputs
from .base import MovaNode
from .host import checks, messages, sampling


def _readings(images: Any, audio: Sound, fps: float) -> list[Reading]:
    """One a clip of a batch, as 'MOVA Decode' lays them out: pictures one clip after the other, sounds stacked."""
    waveform = audio.waveform
    clips = len(waveform)
    if len(images) % clips:
        raise ShapeError(
            f"{len(images)} pictures do not share out among {clips} sounds; connect both from one 'MOVA Decode'"
        )
    return [read(part, waveform[n], audio.rate, fps) for n, part in enumerate(images.chunk(clips))]


def _report(readings: list[Reading]) -> str:
    return "\n".join(
        f"clip {n}: {reading}" if len(readings) > 1 else str(reading) for n, reading in enumerate(readings)
    )


class MovaMeter(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAMeter",
            display_name="MOVA Meter",
            category="MOVA/latents",
            description="A diagnostic, not a benchmark: whether sound begins when something moves, how loud it is, whether it "
            "clips or is silent, whether the picture is a flat colour. It does not look at faces.",
            search_aliases=["sync", "loudness", "quality", "AV align"],
            inputs=[
                io.Image.Input("images", tooltip="Pictures of a clip or a batch of clips."),
                io.Audio.Input("audio", tooltip="Its sound."),
                inputs.fps("Pictures a second."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="One line a clip."),
                io.Float.Output(
                    display_name="score", tooltip="Of the best clip; higher is better, for comparing drafts."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, images: Any, audio: Any, fps: float) -> io.NodeOutput:
        readings = _readings(images, audio, fps)
        messages.show(_report(readings), cls.hidden.unique_id)
        return io.NodeOutput(_report(readings), max(reading.score for reading in readings))


class MovaPickDraft(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAPickDraft",
            display_name="MOVA Pick Draft",
            category="MOVA/latents",
            description="Of a batch of drafts, the one that 'MOVA Meter' rates best, to be finished at full size.",
            search_aliases=["best of n", "rank"],
            is_experimental=True,
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent of the batch."),
                io.Image.Input("images", tooltip="Its pictures, from 'MOVA Decode'."),
                io.Audio.Input("audio", tooltip="Its sounds, from 'MOVA Decode'."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent of the best draft alone."),
                io.Int.Output(display_name="index", tooltip="Which of the batch it is, from 0."),
                io.String.Output(display_name="report", tooltip="One line a draft."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, latent: Any, images: Any, audio: Any) -> io.NodeOutput:
        shape = sampling.video_shape(latent)
        batch = shape.batch
        if len(images) != batch * shape.frames:
            raise ShapeError(
                f"{batch} drafts of {shape.frames} pictures each but {len(images)} pictures; decode the same latent for both"
            )
        if len(audio.waveform) != batch:
            raise ShapeError(f"{batch} drafts but {len(audio.waveform)} sounds; decode the same latent for both")
        readings = _readings(images, audio, checks.frame_rate(latent))
        best = max(range(batch), key=lambda n: readings[n].score)
        report = f"draft {best} of {batch} is best\n{_report(readings)}"
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(sampling.one_of(latent, best), best, report)
