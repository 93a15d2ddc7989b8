"""Nodes that hold one stream and make the other: a picture for a sound, a sound for a picture, a stretch of either."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.inputs.sounds import of_clips
from ..mova_core.masks import MASK_PARTS, joint_masks
from ..mova_core.shapes import TEMPORAL_STRIDE, VideoShape
from ..mova_core.waveform import clip_samples, fit
from . import clips, inputs
from .base import MovaNode
from .host import checks, joint_latents, messages
from .host.loaders import audio_vae as codec
from .host.loaders import vaes
from .host.media.resampling import resampled


class MovaSoundToPicture(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASoundToPicture",
            display_name="MOVA Sound to Picture",
            category="MOVA/latents",
            description="Hold a given sound while the picture is made to it. The sound that comes out is the original, cut to "
            "the clip, not its reconstruction. The released training did not cover it.",
            search_aliases=["audio driven", "lip sync to audio", "A2V"],
            is_experimental=True,
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent from 'MOVA Image to Video+Audio'."),
                io.Audio.Input(
                    "audio",
                    tooltip="Any rate, mono or stereo, any length: cut at the clip's end, or followed by silence up to it.",
                ),
                inputs.AudioVae("The audio VAE of 'MOVA Loader'."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent whose sound is held by its mask."),
                io.Audio.Output(
                    display_name="audio", tooltip="The original sound at the clip's length, for 'Create Video'."
                ),
            ],
        )

    @classmethod
    def run(cls, latent: Any, audio: Any, audio_vae: Any) -> io.NodeOutput:
        vae, (video, silence) = audio_vae, joint_latents.streams(latent)
        codec.check_channels("sound", silence, vae)
        frames, fps = joint_latents.video_shape(latent).frames, checks.frame_rate(latent)
        rate = audio.rate
        original = fit(of_clips(audio, len(video)).waveform, clip_samples(frames, fps, rate))
        heard = fit(resampled(original, rate, vae.audio_sample_rate), silence.shape[-1] * vae.downscale_ratio)
        held = vae.encode(heard.movedim(1, -1)).to(silence)
        held = held[:1].expand_as(silence) if len(held) == 1 else held
        masks = joint_masks(video.shape, silence.shape, "all", "nothing", 0.0, 0.0, fps)
        kept = {**latent, "samples": joint_latents.joint(video, held), "noise_mask": joint_latents.joint(*masks)}
        return io.NodeOutput(kept, {"waveform": original, "sample_rate": rate})


class MovaPictureToSound(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAPictureToSound",
            display_name="MOVA Picture to Sound",
            category="MOVA/latents",
            description="Hold given pictures while the sound is made to them (foley). The released training did not cover it.",
            search_aliases=["foley", "video to audio", "V2A"],
            is_experimental=True,
            inputs=[
                *inputs.prompts("From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE of 'MOVA Loader'."),
                io.Image.Input(
                    "images",
                    tooltip="The clip, sides multiples of 16. Up to three pictures at its end are left out, to make 4n + 1.",
                ),
                inputs.fps("Pictures a second of the clip."),
                inputs.OtherCodec(),
            ],
            outputs=[
                *inputs.prompt_outputs(),
                io.Latent.Output(display_name="latent", tooltip="Joint latent whose picture is held by its mask."),
                io.Image.Output(
                    display_name="images", tooltip="The pictures as given, 4n + 1 of them, for 'Create Video'."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls, positive: Any, negative: Any, vae: Any, images: Any, fps: float, audio_vae: Any = None
    ) -> io.NodeOutput:
        surplus = (len(images) - 1) % TEMPORAL_STRIDE
        kept = images[: len(images) - surplus]
        if surplus:
            messages.show(f"{surplus} of {len(images)} pictures at the end were left out.", cls.hidden.unique_id)
        shape = VideoShape(batch=1, frames=len(kept), height=images.shape[1], width=images.shape[2])
        latent = clips.empty_latent(vae, shape, fps, audio_vae)
        pair = clips.guided((positive, negative), vae, {0: kept[:1]}, shape, latent)
        empty, silence = joint_latents.streams(latent)
        masks = joint_masks(empty.shape, silence.shape, "nothing", "all", 0.0, 0.0, fps)
        video = vaes.encoded(vae, kept).to(empty)
        held = {**latent, "samples": joint_latents.joint(video, silence), "noise_mask": joint_latents.joint(*masks)}
        return io.NodeOutput(*pair, held, kept)


class MovaMask(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAMask",
            display_name="MOVA Mask",
            category="MOVA/latents",
            description="Choose by time what of a joint latent is made anew: nothing, all, or a span of the picture and of the "
            "sound. What is kept comes out unchanged.",
            search_aliases=["inpaint", "replace sound", "noise mask", "retake"],
            is_experimental=True,
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent: a finished clip, or both streams encoded and joined."),
                io.Combo.Input(
                    "picture", options=list(MASK_PARTS), default="nothing", tooltip="What of the picture is made anew."
                ),
                io.Combo.Input(
                    "sound", options=list(MASK_PARTS), default="all", tooltip="What of the sound is made anew."
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=3600.0, step=0.01, tooltip="Seconds at which the span begins."
                ),
                io.Float.Input("end", default=1.0, min=0.0, max=3600.0, step=0.01, tooltip="Seconds at which it ends."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The same latent with the mask set.")],
        )

    @classmethod
    def run(cls, latent: Any, picture: Any, sound: Any, start: float, end: float) -> io.NodeOutput:
        video, audio = joint_latents.streams(latent)
        fps = checks.frame_rate(latent)
        rate = checks.audio_rate(latent)
        masks = joint_masks(video.shape, audio.shape, picture, sound, start, end, fps, rate)
        return io.NodeOutput({**latent, "noise_mask": joint_latents.joint(*masks)})
