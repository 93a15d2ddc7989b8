"""Nodes for clips longer than one run: continue from the end of a clip, and join the parts."""

from typing import Any

import torch
from comfy_api.latest import io

from ..mova_core.errors import ShapeError
from ..mova_core.masks import lead_masks
from ..mova_core.shapes import DEFAULT_FPS, VideoShape, audio_samples, latent_frames
from ..mova_core.waveform import fit, join_sound
from . import clips
from .host import audio as sound
from .host import sampling
from .host.resampling import resampled


def _check_overlap(overlap: int, frames: int) -> None:
    latent_frames(overlap)
    if overlap >= frames:
        raise ShapeError(f"an overlap of {overlap} frames leaves nothing of {frames} to make; shorten it")


class MovaExtend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAExtend",
            display_name="MOVA Extend",
            category="MOVA/latents",
            description="Begin a clip with the end of another: its last pictures and the sound that goes with them are held, "
            "the rest is made. Join both with 'MOVA Join Clips'. Longer than 8 seconds was not trained.",
            search_aliases=["continue", "longer video", "extension"],
            is_experimental=True,
            inputs=[
                io.Conditioning.Input("positive", tooltip="From 'MOVA Text Encode': what happens next."),
                io.Conditioning.Input("negative", tooltip="From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE of 'MOVA Loader'."),
                io.Vae.Input("audio_vae", tooltip="The audio VAE of 'MOVA Loader'."),
                io.Image.Input("images", tooltip="The clip so far; sides multiples of 16."),
                io.Audio.Input("audio", tooltip="Its sound, as long as the pictures."),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Pictures a second of both clips.",
                ),
                io.Int.Input(
                    "frames",
                    default=193,
                    min=5,
                    max=2001,
                    step=4,
                    tooltip="Pictures of the new clip, the overlap included, 4n + 1.",
                ),
                io.Int.Input(
                    "overlap",
                    default=25,
                    min=1,
                    max=1001,
                    step=4,
                    tooltip="Pictures taken over from the end of the clip so far, 4n + 1. More carries motion and voice "
                    "further; 25 is about a second.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent", tooltip="Joint latent whose beginning is held by its mask."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        audio_vae: Any,
        images: Any,
        audio: Any,
        fps: float,
        frames: int,
        overlap: int,
    ) -> io.NodeOutput:
        _check_overlap(overlap, min(frames, len(images) + 1))
        codec, tail = sound.check(audio_vae), images[-overlap:, ..., :3]
        shape = VideoShape(batch=1, frames=frames, height=images.shape[1], width=images.shape[2])
        pair = clips.guided((positive, negative), vae, {0: tail[:1]}, shape, fps)
        latent = clips.empty_latent(vae, shape, fps)
        video, silence = (stream.clone() for stream in sampling.streams(latent))
        shown = vae.encode(tail).to(video)
        video[:, :, : shown.shape[2]] = shown
        heard = _tail(audio, len(images), overlap, fps, codec)
        whole_steps = audio_samples(overlap, fps) // codec.downscale_ratio  # a step that is cut off is made anew
        if whole_steps:
            silence[..., :whole_steps] = codec.encode(heard.movedim(1, -1)).to(silence)[..., :whole_steps]
        masks = lead_masks(video.shape, silence.shape, shown.shape[2], whole_steps)
        begun = {**latent, "samples": sampling.joint(video, silence), "noise_mask": sampling.joint(*masks)}
        return io.NodeOutput(*pair, begun)


def _tail(audio: Any, frames: int, overlap: int, fps: float, codec: Any) -> torch.Tensor:
    """(1, C, samples) at the codec's rate: the sound of the last `overlap` of `frames` pictures."""
    whole = resampled(audio["waveform"][:1], audio["sample_rate"], codec.audio_sample_rate)
    whole = fit(whole, audio_samples(frames, fps))
    return whole[..., -audio_samples(overlap, fps) :]


class MovaJoinClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAJoinClips",
            display_name="MOVA Join Clips",
            category="MOVA/latents",
            description="Put a clip made by 'MOVA Extend' after the one it continues. The sound is matched in loudness and "
            "crossfaded over the overlap; picture and sound stay equal in length to the sample.",
            search_aliases=["concatenate", "append video", "crossfade"],
            inputs=[
                io.Image.Input("images", tooltip="The clip so far."),
                io.Audio.Input("audio", tooltip="Its sound."),
                io.Image.Input("next_images", tooltip="The new clip, beginning with the overlap."),
                io.Audio.Input("next_audio", tooltip="Its sound."),
                io.Float.Input("fps", default=DEFAULT_FPS, min=1.0, max=120.0, step=0.01, tooltip="Pictures a second."),
                io.Int.Input(
                    "overlap",
                    default=25,
                    min=1,
                    max=1001,
                    step=4,
                    tooltip="Pictures both clips share, as in 'MOVA Extend'.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images"), io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def execute(
        cls, images: Any, audio: Any, next_images: Any, next_audio: Any, fps: float, overlap: int
    ) -> io.NodeOutput:
        _check_overlap(overlap, min(len(images), len(next_images)) + 1)
        if images.shape[1:3] != next_images.shape[1:3]:
            raise ShapeError(
                f"pictures of {tuple(images.shape[1:3])} and {tuple(next_images.shape[1:3])} cannot be joined"
            )
        rate = audio["sample_rate"]
        after = resampled(next_audio["waveform"], next_audio["sample_rate"], rate)
        waveform = join_sound(audio["waveform"], after, len(images), len(next_images), overlap, fps, rate)
        pictures = torch.cat((images, next_images[overlap:].to(images)))
        return io.NodeOutput(pictures, {"waveform": waveform, "sample_rate": rate})
