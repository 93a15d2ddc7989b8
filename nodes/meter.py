"""Nodes that measure clips, and choose among drafts."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import ShapeError
from ..mova_core.inputs.sounds import Sound
from ..mova_core.meter.reading import best
from . import inputs
from .base import MovaNode
from .host import checks, joint_latents, messages
from .host.meters import meter

FACES = "FACE_LANDMARKS"


def _faces() -> io.Input:
    return io.Custom(FACES).Input(
        "face_landmarks",
        optional=True,
        tooltip="Of 'Detect Face Landmarks (MediaPipe)' on the same pictures: where the lips are. Without it faces are "
        "searched with OpenCV 4, if that is installed; else sync is not judged.",
    )


class MovaMeter(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAMeter",
            display_name="MOVA Meter",
            category="MOVA/latents",
            description="What can be measured of a finished clip: lips against speech, words against the prompt, loudness in "
            "LUFS and true peak, clipping, silence, frozen, flat or broken pictures. It says so where it cannot tell.",
            search_aliases=["sync", "lip sync", "loudness", "LUFS", "quality", "word error", "AV align"],
            inputs=[
                inputs.SpoiledPictures("images", tooltip="Pictures of a clip or a batch of clips."),
                inputs.SpoiledSound("audio", tooltip="Its sound."),
                inputs.fps("Pictures a second."),
                _faces(),
                io.String.Input(
                    "recognised",
                    optional=True,
                    force_input=True,
                    tooltip="What a speech recognition node heard in the sound; of a batch, a row for each clip. Needs prompt.",
                ),
                io.String.Input(
                    "prompt",
                    optional=True,
                    force_input=True,
                    tooltip="The prompt: what it quotes is what should have been said. Without quotes, all of it.",
                ),
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
    def run(
        cls,
        images: Any,
        audio: Sound,
        fps: float,
        face_landmarks: Any = None,
        recognised: str | None = None,
        prompt: str = "",
    ) -> io.NodeOutput:
        readings = meter.readings(images, audio, fps, face_landmarks, recognised, prompt)
        report = meter.report(readings)
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(report, max(reading.score for reading in readings))


class MovaPickDraft(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAPickDraft",
            display_name="MOVA Pick Draft",
            category="MOVA/latents",
            description="Of a batch of drafts, the best to be finished at full size: broken, frozen, flat, silent and clipped "
            "ones come last, then lips decide where a face is seen.",
            search_aliases=["best of n", "rank"],
            is_experimental=True,
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent of the batch."),
                inputs.SpoiledPictures("images", tooltip="Its pictures, from 'MOVA Decode'."),
                inputs.SpoiledSound("audio", tooltip="Its sounds, from 'MOVA Decode'."),
                _faces(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent of the best draft alone."),
                io.Int.Output(display_name="index", tooltip="Which of the batch it is, from 0."),
                io.String.Output(display_name="report", tooltip="Why it is best, then one line a draft."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, latent: Any, images: Any, audio: Sound, face_landmarks: Any = None) -> io.NodeOutput:
        shape = joint_latents.video_shape(latent)
        batch = shape.batch
        if len(images) != batch * shape.frames:
            raise ShapeError(
                f"{batch} drafts of {shape.frames} pictures each but {len(images)} pictures; decode the same latent for both"
            )
        if len(audio.waveform) != batch:
            raise ShapeError(f"{batch} drafts but {len(audio.waveform)} sounds; decode the same latent for both")
        readings = meter.readings(images, audio, checks.frame_rate(latent), face_landmarks)
        chosen, why = best(readings)
        report = f"{why}\n{meter.report(readings)}"
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(joint_latents.one_of(latent, chosen), chosen, report)
