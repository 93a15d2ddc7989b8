"""Nodes for clips longer than one run: continue from the end of a clip, and join the parts."""

from typing import Any

import torch
from comfy_api.latest import io

from ..mova_core.errors import ShapeError
from ..mova_core.inputs.sounds import Sound, of_clips
from ..mova_core.masks import lead_masks
from ..mova_core.shapes import VideoShape, latent_frames
from ..mova_core.waveform import clip_samples, fit, join_sound
from . import clips, inputs
from .base import MovaNode
from .host import joint_latents
from .host.loaders import vaes
from .host.media.resampling import resampled


def _check_overlap(overlap: int, frames: int) -> None:
    latent_frames(overlap)
    if overlap >= frames:
        raise ShapeError(f"an overlap of {overlap} frames leaves nothing of {frames} to make; shorten it")


class MovaExtend(MovaNode):
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
                *inputs.prompts("From 'MOVA Text Encode': what happens next.", "From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE of 'MOVA Loader'."),
                inputs.AudioVae("The audio VAE of 'MOVA Loader'."),
                io.Image.Input("images", tooltip="The clip so far; sides multiples of 16."),
                inputs.SoundOrSilence("audio", tooltip="Its sound, as long as the pictures."),
                inputs.fps("Pictures a second of both clips."),
                inputs.frames("Pictures of the new clip, the overlap included, 4n + 1.", least=5),
                inputs.overlap(
                    "Pictures taken over from the end of the clip so far, 4n + 1. More carries motion and voice "
                    "further; 25 is about a second."
                ),
            ],
            outputs=[
                *inputs.prompt_outputs(),
                io.Latent.Output(display_name="latent", tooltip="Joint latent whose beginning is held by its mask."),
            ],
        )

    @classmethod
    def run(
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
        codec, tail = audio_vae, images[-overlap:]
        shape = VideoShape(batch=1, frames=frames, height=images.shape[1], width=images.shape[2])
        latent = clips.empty_latent(vae, shape, fps, codec)
        pair = clips.guided((positive, negative), vae, {0: tail[:1]}, shape, latent)
        video, silence = (stream.clone() for stream in joint_latents.streams(latent))
        shown = vaes.encoded(vae, tail).to(video)
        video[:, :, : shown.shape[2]] = shown
        heard = _tail(audio, len(images), overlap, fps, codec)
        whole_steps = heard.shape[-1] // codec.downscale_ratio  # a step that is cut off is made anew
        if whole_steps:
            silence[..., :whole_steps] = codec.encode(heard.movedim(1, -1)).to(silence)[..., :whole_steps]
        masks = lead_masks(video.shape, silence.shape, shown.shape[2], whole_steps)
        begun = {**latent, "samples": joint_latents.joint(video, silence), "noise_mask": joint_latents.joint(*masks)}
        return io.NodeOutput(*pair, begun)


def _tail(audio: Sound | None, frames: int, overlap: int, fps: float, codec: Any) -> torch.Tensor:
    """(1, C, samples) at the codec's rate: the sound of the last `overlap` of `frames` pictures."""
    rate = codec.audio_sample_rate
    samples = clip_samples(overlap, fps, rate)
    if audio is None:
        return torch.zeros(1, 1, samples)
    whole = resampled(of_clips(audio, 1).waveform, audio.rate, rate)
    return fit(whole, clip_samples(frames, fps, rate))[..., -samples:]


class MovaJoinClips(MovaNode):
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
                inputs.SoundOrSilence("audio", tooltip="Its sound."),
                io.Image.Input("next_images", tooltip="The new clip, beginning with the overlap."),
                inputs.SoundOrSilence("next_audio", tooltip="Its sound."),
                inputs.fps("Pictures a second."),
                inputs.overlap("Pictures both clips share, as in 'MOVA Extend'."),
            ],
            outputs=[io.Image.Output(display_name="images"), io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def run(cls, images: Any, audio: Any, next_images: Any, next_audio: Any, fps: float, overlap: int) -> io.NodeOutput:
        _check_overlap(overlap, min(len(images), len(next_images)) + 1)
        if images.shape[1:3] != next_images.shape[1:3]:
            raise ShapeError(
                f"pictures of {tuple(images.shape[1:3])} and {tuple(next_images.shape[1:3])} cannot be joined"
            )
        pictures = torch.cat((images, next_images[overlap:].to(images)))
        return io.NodeOutput(pictures, _joined(audio, next_audio, len(images), len(next_images), overlap, fps))


def _joined(
    audio: Sound | None, next_audio: Sound | None, frames: int, next_frames: int, overlap: int, fps: float
) -> dict[str, Any] | None:
    """The AUDIO of both at the rate of the first that has sound; the other is silent. None without any."""
    known = audio or next_audio
    if known is None:
        return None
    silence = Sound(waveform=torch.zeros(1, 1, 1), rate=known.rate)
    parts = [of_clips(part or silence, 1) for part in (audio, next_audio)]
    before, after = (resampled(part.waveform, part.rate, known.rate) for part in parts)
    waveform = join_sound(before, after, frames, next_frames, overlap, fps, known.rate)
    return {"waveform": waveform, "sample_rate": known.rate}
