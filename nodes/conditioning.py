"""Prompts and pictures -> conditioning and an empty joint latent."""

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ..mova_core.errors import MovaError
from ..mova_core.image import condition_clip, condition_mask, crop_and_resize
from ..mova_core.shapes import (
    AUDIO_LATENT_CHANNELS,
    DEFAULT_FPS,
    SPATIAL_STRIDE,
    AudioShape,
    VideoShape,
    audio_latent_shape,
    audio_steps,
    video_latent_shape,
)
from ..mova_core.text import CONTEXT_ROWS, NEGATIVE_PROMPT
from .host import messages, sampling, text

log = logging.getLogger("mova")


class MovaTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATextEncode",
            display_name="MOVA Text Encode",
            category="MOVA/conditioning",
            description="Both prompts as MOVA was trained to read them: cleaned, at most 512 tokens, padding attended to, "
            "no (word:1.2) weights.",
            search_aliases=["MOVA prompt", "umt5"],
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="UMT5-XXL: from 'MOVA Loader', or 'Load CLIP' with a umt5_xxl file, type wan."
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What is seen and heard, in prose. Spoken lines in double quotes, in their own language; end "
                    "with a paragraph 'The audio shows ...'. Beyond 512 tokens it is cut, with a warning.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default=NEGATIVE_PROMPT,
                    tooltip="What to steer away from; used when cfg is above 1. The default is the official one.",
                ),
                io.String.Input(
                    "audio_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    optional=True,
                    tooltip="A prompt that only the sound reads, in place of the one above; empty is one prompt for both. The "
                    "picture knows it through the bridge alone. MOVA was not trained with two prompts (its relative Prism "
                    "was). The negative prompt serves both.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip: Any, prompt: str, negative_prompt: str, audio_prompt: str = "") -> io.NodeOutput:
        if not prompt.strip():
            raise MovaError("the prompt is empty; say what is seen and heard")
        prompts = {"prompt": prompt, "negative prompt": negative_prompt}
        if audio_prompt.strip():
            prompts["audio prompt"] = audio_prompt
        encoded, notes = [], []
        for name, words in prompts.items():
            ids, cut = text.prompt_ids(clip, words)
            if cut:
                notes.append(f"The {name} is {cut} tokens too long for {CONTEXT_ROWS}; its end was cut.")
                log.warning(notes[-1])
            encoded.append(text.encode(clip, ids))
        if notes:
            messages.show("\n".join(notes), cls.hidden.unique_id)
        positive, negative, *sound = encoded
        return io.NodeOutput(text.with_audio_prompt(positive, sound[0]) if sound else positive, negative)


class MovaImageToVideoAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAImageToVideoAudio",
            display_name="MOVA Image to Video+Audio",
            category="MOVA/conditioning",
            description="Put the first frame into the conditioning and make the empty joint latent of picture and sound.",
            search_aliases=["MOVA latent", "empty MOVA latent", "first frame", "I2V", "T2V"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="From 'MOVA Text Encode'."),
                io.Conditioning.Input("negative", tooltip="From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE: of 'MOVA Loader', or wan_2.1_vae."),
                io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
                io.Int.Input(
                    "height",
                    default=352,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16. Trained sizes: 640 x 352 and 352 x 640 (MOVA-360p), 1280 x 720 and "
                    "720 x 1280 (MOVA-720p).",
                ),
                io.Int.Input(
                    "frames",
                    default=193,
                    min=1,
                    max=2001,
                    step=4,
                    tooltip="Pictures, 4n + 1. 193 at 24 a second are the 8 seconds the model was trained on; time grows "
                    "with the square.",
                ),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Pictures a second. Sets the sound's length and its alignment with the picture; trained at 24.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="Clips made at once, from different noise."
                ),
                io.Image.Input(
                    "first_frame",
                    optional=True,
                    tooltip="The clip's first picture, cropped to the size in the middle and resized. Without it the white "
                    "frame that stands for 'no picture' in training; some seeds then collapse to flat colour, a generated "
                    "first frame is the surer way.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent", tooltip="Joint latent of picture and sound, empty."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        width: int,
        height: int,
        frames: int,
        fps: float,
        batch_size: int,
        first_frame: Any = None,
    ) -> io.NodeOutput:
        shape = VideoShape(batch=batch_size, frames=frames, height=height, width=width)
        sound = AudioShape(batch=batch_size, steps=audio_steps(frames, fps))
        picture = torch.ones(1, height, width, 3) if first_frame is None else first_frame[:1]
        clip = condition_clip(crop_and_resize(picture, height, width), frames)  # (1, 3, F, H, W) in -1..1
        known = vae.encode((clip[0].movedim(0, -1) + 1.0) / 2.0)
        mask = condition_mask(frames, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)
        values = {"concat_latent_image": known, "concat_mask": 1.0 - mask, "frame_rate": fps}
        channels = getattr(vae, "audio_latent_channels", AUDIO_LATENT_CHANNELS)
        place = sampling.device()
        video = torch.zeros(video_latent_shape(shape), device=place)
        audio = torch.zeros(audio_latent_shape(sound, channels), device=place)
        latent = {"samples": sampling.joint(video, audio), "frame_rate": fps}
        return io.NodeOutput(sampling.conditioned(positive, values), sampling.conditioned(negative, values), latent)
