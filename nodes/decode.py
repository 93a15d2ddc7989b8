"""Joint latents -> pictures and sound."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import ShapeError
from ..mova_core.shapes import SPATIAL_STRIDE, frames_of
from ..mova_core.waveform import clip_samples
from . import inputs
from .base import MovaNode
from .host import checks, joint_latents, messages
from .host.loaders import audio_vae as codec
from .host.loaders import vaes
from .host.types import Latent

SMALLEST_TILE = 32  # pixels; of smaller ones hardly anything is left beside the overlap
SEVERAL = (
    "{clips} clips of {frames} pictures, one after the other, with {clips} sounds. 'Create Video' would take them for one "
    "clip and the first sound alone: give it one clip at a time, from a 'MOVA Decode' for each with its number in 'clip'."
)


BROKEN = "The video VAE gave NaN for clip {clips}, counted from 0: 'MOVA Pick Draft' puts it last, do not save it."


class MovaDecode(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVADecode",
            display_name="MOVA Decode",
            category="MOVA/latents",
            description="Decode picture and sound; the sound is trimmed to the sample to the picture's length.",
            search_aliases=["MOVA VAE decode"],
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent from 'MOVA Sampler' or any sampler on MOVA."),
                io.Vae.Input("vae", tooltip="The video VAE: of 'MOVA Loader', or wan_2.1_vae."),
                inputs.AudioVae("The audio VAE of 'MOVA Loader'."),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="Pixels of a side of the tiles the picture is decoded in; 0 decodes it whole. Tiles of 256 let "
                    "720p decode in 8 GB.",
                ),
                io.Int.Input(
                    "overlap",
                    default=64,
                    min=0,
                    max=1024,
                    step=32,
                    tooltip="Pixels by which neighbouring tiles overlap.",
                    advanced=True,
                ),
                io.Int.Input(
                    "clip",
                    default=-1,
                    min=-1,
                    max=63,
                    optional=True,
                    tooltip="Which clip of a batch, from 0. -1 is all of them, one after the other, for 'MOVA Meter' and "
                    "'MOVA Pick Draft'; 'Create Video' takes one clip at a time.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All pictures, clips of a batch one after the other."),
                io.Audio.Output(
                    display_name="audio", tooltip="Mono at the codec's rate (48 kHz), int(rate * frames / fps) samples."
                ),
                io.Float.Output(display_name="fps", tooltip="Pictures a second, for 'Create Video'."),
            ],
        )

    @classmethod
    def run(cls, latent: Any, vae: Any, audio_vae: Any, tile_size: int, overlap: int, clip: int = -1) -> io.NodeOutput:
        video, audio = joint_latents.streams(_chosen(latent, clip))
        fps, frames = checks.frame_rate(latent), frames_of(video.shape[2])
        codec.check_decodable(video, audio, vae, audio_vae, fps)
        if 0 < tile_size < SMALLEST_TILE:
            raise ShapeError(
                f"tile_size {tile_size} is too small a tile; 0 decodes whole, {SMALLEST_TILE} is the least"
            )
        seam = min(overlap, tile_size // 2) // SPATIAL_STRIDE
        pictures = vaes.decoded(vae, video, tile_size // SPATIAL_STRIDE, seam)
        notes = [SEVERAL.format(clips=len(video), frames=frames)] if len(video) > 1 else []
        if broken := vaes.broken_clips(pictures):
            notes.append(BROKEN.format(clips=", ".join(map(str, broken))))
        if notes:
            messages.show("\n".join(notes), cls.hidden.unique_id)
        waveform = vaes.heard(audio_vae, audio)
        samples = clip_samples(frames, fps, audio_vae.audio_sample_rate)
        sound = {"waveform": waveform[..., :samples], "sample_rate": audio_vae.audio_sample_rate}
        return io.NodeOutput(pictures.flatten(0, 1), sound, fps)


def _chosen(latent: Latent, clip: int) -> Latent:
    """One clip of a batch, or all of them at -1.

    Raises:
        ShapeError: there is no such clip.
    """
    clips = joint_latents.video_shape(latent).batch
    if clip >= clips:
        raise ShapeError(f"clip {clip} is not in this latent of {clips}; the last is {clips - 1}, and -1 is all")
    return latent if clip < 0 else joint_latents.one_of(latent, clip)
