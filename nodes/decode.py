"""Joint latents -> pictures and sound."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.shapes import DEFAULT_FPS, SPATIAL_STRIDE, audio_samples, frames_of
from .host import audio as codec
from .host import sampling


class MovaDecode(io.ComfyNode):
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
                io.Vae.Input("audio_vae", tooltip="The audio VAE of 'MOVA Loader'."),
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
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All pictures, clips of a batch one after the other."),
                io.Audio.Output(display_name="audio", tooltip="48 kHz mono, int(48000 * frames / fps) samples."),
                io.Float.Output(display_name="fps", tooltip="Pictures a second, for 'Create Video'."),
            ],
        )

    @classmethod
    def execute(cls, latent: Any, vae: Any, audio_vae: Any, tile_size: int, overlap: int) -> io.NodeOutput:
        codec.check_video(vae)
        codec.check(audio_vae)
        video, audio = sampling.streams(latent)
        fps = latent.get("frame_rate", DEFAULT_FPS)
        if tile_size:
            tile, seam = tile_size // SPATIAL_STRIDE, min(overlap, tile_size // 2) // SPATIAL_STRIDE
            pictures = vae.decode_tiled(video, tile_x=tile, tile_y=tile, overlap=seam)
        else:
            pictures = vae.decode(video)
        waveform = audio_vae.decode(audio).movedim(-1, 1)  # (B, 1, samples)
        samples = audio_samples(frames_of(video.shape[2]), fps)
        sound = {"waveform": waveform[..., :samples], "sample_rate": audio_vae.audio_sample_rate}
        return io.NodeOutput(pictures.flatten(0, 1), sound, float(fps))
