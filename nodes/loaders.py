"""Nodes that read files."""

import logging
from typing import Any

from comfy_api.latest import io

from ..mova_core.checkpoint.source import from_files, from_folder
from . import inputs
from .base import MovaNode
from .host import messages
from .host.loaders import attach, audio_vae, loading, text

log = logging.getLogger("mova")
WEIGHT_DTYPE_TOOLTIP = (
    "Precision the model's weights are kept in. 'default' keeps the files as they are and maps them from disk without a "
    "copy; any other choice makes a converted copy in RAM. fp8_e4m3fn and int8 store the large matrices of the blocks "
    "in eight bits with ComfyUI's own formats; layers that are stored so already stay as they are."
)


class MovaLoader(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVALoader",
            display_name="MOVA Loader",
            category="MOVA/loaders",
            description="Load a downloaded MOVA folder: both video experts behind one MODEL, text encoder and both VAEs.",
            search_aliases=["MOVA", "OpenMOSS", "load MOVA", "audio video model"],
            inputs=[
                inputs.FileChoice(
                    "folder",
                    options=loading.folders(),
                    tooltip="A folder in models/diffusers that holds model_index.json, video_dit, video_dit_2, audio_dit, "
                    "dual_tower_bridge, text_encoder, tokenizer and both VAEs: MOVA-360p or MOVA-720p as downloaded.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(loading.WEIGHT_DTYPES),
                    default="default",
                    tooltip=WEIGHT_DTYPE_TOOLTIP,
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="Both experts; they change at the boundary by themselves."
                ),
                io.Clip.Output(display_name="CLIP", tooltip="UMT5-XXL, for 'MOVA Text Encode'."),
                io.Vae.Output(display_name="VAE", tooltip="Wan 2.1 video VAE."),
                io.Vae.Output(display_name="AUDIO VAE", tooltip="48 kHz mono audio codec."),
            ],
        )

    @classmethod
    def run(cls, folder: str, weight_dtype: str) -> io.NodeOutput:
        path = loading.find_folder(folder)
        model = loading.load_model(from_folder(path), weight_dtype)
        sound = audio_vae.load_audio_vae(path)
        return io.NodeOutput(
            model, text.load_clip(path), loading.load_video_vae(path, sound.latent_channels, sound.audio_grid), sound
        )


class MovaModelLoader(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = loading.model_files()
        return io.Schema(
            node_id="MOVAModelLoader",
            display_name="MOVA Model Loader",
            category="MOVA/loaders",
            description="Load single files of MOVA, or of its relative Prism: both video experts, audio tower and bridge "
            "behind one MODEL. Files are known by their contents, not by their names.",
            search_aliases=["MOVA", "Prism", "MOVA UNET", "load MOVA safetensors"],
            inputs=[
                inputs.FileChoice(
                    "high_noise",
                    options=files,
                    tooltip="File of the expert of the first steps (video_dit), or one file that holds everything. In "
                    "models/diffusion_models.",
                ),
                inputs.FileChoice(
                    "low_noise",
                    options=[loading.SAME_FILE, *files],
                    default=loading.SAME_FILE,
                    tooltip="File of the expert of the last steps (video_dit_2).",
                ),
                inputs.FileChoice(
                    "shared",
                    options=[loading.SAME_FILE, *files],
                    default=loading.SAME_FILE,
                    tooltip="File of audio tower and bridge, which both experts use.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(loading.WEIGHT_DTYPES),
                    default="default",
                    tooltip=WEIGHT_DTYPE_TOOLTIP,
                ),
                io.Combo.Input(
                    "bridge",
                    options=[loading.SHARED_FILE, *files],
                    default=loading.SHARED_FILE,
                    optional=True,
                    tooltip="File of the bridge, where the parts lie in a file each, as some files of Prism do; then "
                    "'shared' is the audio tower's.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="Both experts; they change at the boundary by themselves."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls, high_noise: str, low_noise: str, shared: str, weight_dtype: str, bridge: str = loading.SHARED_FILE
    ) -> io.NodeOutput:
        files: list[Any] = [loading.chosen_file(name) for name in (high_noise, low_noise, shared, bridge)]
        source = from_files(*files)
        model = loading.load_model(source, weight_dtype)
        for note in source.notes:
            log.warning(note)
        told = source.variant.told(source.scheduler.shift, source.audio_shift)
        messages.show("\n".join((told, *source.notes)), cls.hidden.unique_id)
        return io.NodeOutput(model)


class MovaAttachSound(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAAttachSound",
            display_name="MOVA Attach Sound",
            category="MOVA/loaders",
            description="Make a MOVA expert of a MODEL that another loader took for Wan: give it audio tower and bridge.",
            search_aliases=["MOVA GGUF", "GGUF", "Load Diffusion Model", "shared file"],
            inputs=[
                inputs.AnyModel(
                    "model",
                    tooltip="One of MOVA's experts, from 'Load Diffusion Model' or a GGUF loader. LoRAs come after this node.",
                ),
                inputs.FileChoice(
                    "shared",
                    options=loading.model_files(),
                    tooltip="File of audio tower and bridge in models/diffusion_models; a merged file serves too.",
                ),
                io.Combo.Input(
                    "bridge",
                    options=[loading.SHARED_FILE, *loading.model_files()],
                    default=loading.SHARED_FILE,
                    optional=True,
                    tooltip="File of the bridge, where audio tower and bridge lie in a file each.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="One expert; put both through 'MOVA Join Experts', or use two samplers.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, model: Any, shared: str, bridge: str = loading.SHARED_FILE) -> io.NodeOutput:
        path = loading.find_file("diffusion_models", shared)
        expert, notes = attach.attach(model, path, loading.chosen_file(bridge))
        for note in notes:
            log.warning(note)
        messages.show("\n".join(notes), cls.hidden.unique_id)
        return io.NodeOutput(expert)


class MovaAudioVAELoader(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAAudioVAELoader",
            display_name="MOVA Audio VAE Loader",
            category="MOVA/loaders",
            description="Load the 48 kHz audio codec of MOVA from one file.",
            search_aliases=["DAC", "audio codec", "MOVA VAE"],
            inputs=[
                inputs.FileChoice(
                    "vae_file",
                    options=loading.vae_files(),
                    tooltip="File in models/vae: audio_vae of a downloaded folder, or a converted one.",
                )
            ],
            outputs=[io.Vae.Output(display_name="AUDIO VAE", tooltip="48 kHz mono audio codec.")],
        )

    @classmethod
    def run(cls, vae_file: str) -> io.NodeOutput:
        return io.NodeOutput(audio_vae.load_audio_vae(loading.find_file("vae", vae_file)))
