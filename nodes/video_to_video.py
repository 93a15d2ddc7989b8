"""A clip that is there already -> conditioning and joint latent, to be sampled at denoise below 1."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..mova_core.errors import MovaError, ShapeError
from ..mova_core.image import crop_and_resize
from ..mova_core.inputs.numbers import real, told
from ..mova_core.inputs.pictures import pictures
from ..mova_core.inputs.sounds import Sound, of_clips, sound
from ..mova_core.retime import nearest_pictures, retimed_frames
from ..mova_core.shapes import DEFAULT_FPS, FPS_RANGE, VideoShape
from ..mova_core.waveform import clip_samples, fit
from . import clips, inputs
from .base import MovaNode
from .host import joint_latents, messages
from .host.loaders import vaes
from .host.media.resampling import resampled
from .host.types import Latent

BEGINS = (
    "At shift 5, denoise 0.5 begins at noise 0.83 of 1 and 0.3 at 0.68; below 0.64 the high-noise expert is never used, and "
    "layout stays as it is."
)


class VideoInput(io.Video.Input):
    """VIDEO: its pictures, their rate and its sound."""

    def checked(self, value: Any) -> tuple[Tensor, float, Sound | None]:
        try:
            parts = value.get_components()
        except AttributeError:
            raise MovaError(f"{told(value)} is no VIDEO; connect 'Load Video'") from None
        return (
            pictures(parts.images, messages.warn),
            real(float(parts.frame_rate), *FPS_RANGE),
            sound(parts.audio, silence=True),
        )


class MovaVideoToVideo(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAVideoToVideo",
            display_name="MOVA Video to Video",
            category="MOVA/conditioning",
            description="A clip that is there already, picture and sound, as conditioning and joint latent: sample it with "
            "denoise below 1 to make it anew after the prompt. Rate, size and length are fitted to the model. Not trained: an "
            "experiment.",
            search_aliases=["v2v", "vid2vid", "restyle", "encode video", "MOVA encode"],
            is_experimental=True,
            inputs=[
                *inputs.prompts("From 'MOVA Text Encode': what is to be seen and heard.", "From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE: of 'MOVA Loader', or wan_2.1_vae."),
                inputs.AudioVae("The audio VAE of 'MOVA Loader'."),
                *inputs.size(
                    height="Pixels, a multiple of 16. The clip is cropped in the middle and resized, as a first frame is.",
                ),
                inputs.frames(
                    "At most so many pictures at 24 a second, 4n + 1, from the beginning of the clip; a shorter clip gives "
                    "fewer."
                ),
                VideoInput(
                    "video",
                    optional=True,
                    tooltip="The clip. It is read whole: cut a long one with 'Video Slice' first. Or connect images.",
                ),
                io.Image.Input("images", optional=True, tooltip="The clip's pictures, in place of a video."),
                io.Float.Input(
                    "images_fps",
                    default=DEFAULT_FPS,
                    min=FPS_RANGE[0],
                    max=FPS_RANGE[1],
                    step=0.01,
                    optional=True,
                    tooltip="Pictures a second of images. The nearest in time are taken for 24 a second, none is blended.",
                ),
                inputs.SoundOrSilence(
                    "audio",
                    optional=True,
                    tooltip="Its sound, in place of the video's. Where neither has one: silence.",
                ),
                io.Image.Input(
                    "first_frame",
                    optional=True,
                    tooltip="What the clip is to begin with, where it is to look otherwise than its own first picture.",
                ),
            ],
            outputs=[
                *inputs.prompt_outputs(),
                io.Latent.Output(
                    display_name="latent",
                    tooltip=f"Joint latent of the clip, for 'MOVA Sampler' at denoise below 1. {BEGINS}",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        audio_vae: Any,
        width: int,
        height: int,
        frames: int,
        video: Any = None,
        images: Any = None,
        images_fps: float = DEFAULT_FPS,
        audio: Any = None,
        first_frame: Any = None,
    ) -> io.NodeOutput:
        shown, fps, heard = _source(video, images, images_fps, audio)
        count = retimed_frames(len(shown), fps, DEFAULT_FPS, frames)
        chosen = shown[nearest_pictures(len(shown), fps, DEFAULT_FPS, count)]
        shape = VideoShape(batch=1, frames=count, height=height, width=width)
        latent = clips.empty_latent(vae, shape, DEFAULT_FPS, audio_vae)
        guides = {0: chosen[:1] if first_frame is None else first_frame[:1]}
        pair = clips.guided((positive, negative), vae, guides, shape, latent)
        latent["samples"] = _encoded(latent, chosen, heard, vae, audio_vae, shape)
        messages.show(_report(len(shown), fps, count, heard), cls.hidden.unique_id)
        return io.NodeOutput(*pair, latent)


def _source(video: Any, images: Any, images_fps: float, audio: Any) -> tuple[Tensor, float, Sound | None]:
    """Pictures (F, H, W, 3), their rate, and the sound or None.

    Raises:
        MovaError: no clip, or two.
    """
    if (video is None) == (images is None):
        which = "neither video nor images is" if video is None else "both video and images are"
        raise MovaError(f"{which} connected; connect the clip to one of them")
    shown, fps, own = (images, images_fps, None) if video is None else video
    return shown, fps, own if audio is None else audio


def _encoded(empty: Latent, shown: Tensor, heard: Sound | None, vae: Any, codec: Any, shape: VideoShape) -> Any:
    """Both streams of the clip, of the shapes of an empty latent."""
    video, silence = joint_latents.streams(empty)
    fitted = (crop_and_resize(shown, shape.height, shape.width).movedim(1, -1) + 1.0) / 2.0
    rate = codec.audio_sample_rate
    samples = clip_samples(shape.frames, DEFAULT_FPS, rate)
    wave = torch.zeros(1, 1, 1) if heard is None else resampled(of_clips(heard, 1).waveform, heard.rate, rate)
    parts = vaes.encoded(vae, fitted).to(video), codec.encode(fit(wave, samples).movedim(1, -1)).to(silence)
    for name, part, wanted in zip(("video", "audio"), parts, (video, silence)):
        if part.shape != wanted.shape:
            raise ShapeError(
                f"the {name} VAE makes {tuple(part.shape)} of this clip, {tuple(wanted.shape)} is wanted; connect both VAEs "
                "of the same 'MOVA Loader'"
            )
    return joint_latents.joint(*parts)


def _report(count: int, fps: float, frames: int, heard: Sound | None) -> str:
    sound_of = "silence" if heard is None else f"sound of {heard.waveform.shape[-1] / heard.rate:.2f} s"
    return (
        f"{count} pictures at {fps:g} a second and {sound_of}: {frames} at {DEFAULT_FPS:g}, {frames / DEFAULT_FPS:.2f} s. "
        f"{BEGINS}"
    )
