"""Joint latents on disk, so that decoding can fail, or be done again, without sampling again."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.checkpoint.whole_file import file_state
from ..mova_core.errors import MovaError
from ..mova_core.kept.latents import read_latent, write_latent
from . import inputs
from .base import MovaNode
from .host import joint_latents, messages
from .host.kept import latent_store
from .host.machine import bug_report
from .host.media import video

NO_SOUND = (
    "A stock latent of the picture alone: its sound is empty, at 24 pictures a second. Make the sound with audio_denoise 1 in "
    "'MOVA Sampler', or join it with a sound by 'Concat AV Latent'."
)


class MovaSaveLatent(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASaveLatent",
            display_name="MOVA Save Latent",
            category="MOVA/latents",
            description="Keep a joint latent of picture and sound on disk, with its frame rate, its masks and the workflow: "
            "decode it later, or again in other tiles, without sampling again.",
            search_aliases=["save latent", "keep latent", "export latent"],
            is_output_node=True,
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent, from 'MOVA Sampler' for instance."),
                io.String.Input(
                    "filename_prefix",
                    default="latents/MOVA",
                    tooltip="Where in the output folder, as in 'Save Video'. 45 MB for 8 seconds of 720p.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The same latent, to go on with once it is on disk."),
                io.String.Output(display_name="file", tooltip="Name of the file in the output folder."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def run(cls, latent: Any, filename_prefix: str) -> io.NodeOutput:
        shape = joint_latents.video_shape(latent)
        path, folder = video.output_file(filename_prefix, shape.width, shape.height, ".safetensors")
        kept = latent_store.of_latent(latent, {"made_by": bug_report.versions()[0]})
        notes = video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        write_latent(path, kept, video.as_texts(notes))
        name = f"{folder}/{path.name}" if folder else path.name
        messages.show(f"{name}: {kept.told()}", cls.hidden.unique_id)
        return io.NodeOutput(latent, name)


class MovaLoadLatent(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVALoadLatent",
            display_name="MOVA Load Latent",
            category="MOVA/latents",
            description="A joint latent from disk, with its frame rate and masks: of 'MOVA Save Latent', of a run that was cut "
            "off, to see how it stands, or of the stock 'SaveLatent'.",
            search_aliases=["load latent", "import latent", "decode again"],
            inputs=[
                inputs.FileChoice(
                    "file",
                    options=latent_store.files(),
                    tooltip="A .safetensors or .latent file in the input or output folder. mova_runs/.../state.safetensors is "
                    "how a kept run stands: decode it to see and hear it.",
                ),
                inputs.AudioVae(
                    "The audio VAE of 'MOVA Loader', where a stock latent of the picture alone gets an empty sound for "
                    "another codec than the published one.",
                    optional=True,
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent, for 'MOVA Decode' or a sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, file: Any, audio_vae: Any = None) -> Any:
        """Made anew where the file has changed; nothing equals nan."""
        try:
            return file_state(latent_store.file_of(file)) or float("nan")
        except (MovaError, OSError, TypeError, AttributeError):
            return float("nan")

    @classmethod
    def run(cls, file: str, audio_vae: Any = None) -> io.NodeOutput:
        kept = read_latent(latent_store.file_of(file))
        codec = {} if audio_vae is None else {"grid": audio_vae.audio_grid, "channels": audio_vae.latent_channels}
        said = kept.told() if kept.audio is not None else f"{kept.told()}. {NO_SOUND}"
        messages.show(said, cls.hidden.unique_id)
        return io.NodeOutput(latent_store.to_latent(kept, **codec))
