"""Nodes that read files."""

from comfy_api.latest import io

from .host import audio, loading, text


class MovaLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVALoader",
            display_name="MOVA Loader",
            category="MOVA/loaders",
            description="Load a downloaded MOVA folder: both video experts behind one MODEL, text encoder and both VAEs.",
            search_aliases=["MOVA", "OpenMOSS", "load MOVA", "audio video model"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=loading.folders(),
                    tooltip="A folder in models/diffusers that holds model_index.json, video_dit, video_dit_2, audio_dit, "
                    "dual_tower_bridge, text_encoder, tokenizer and both VAEs: MOVA-360p or MOVA-720p as downloaded.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(loading.WEIGHT_DTYPES),
                    default="default",
                    tooltip="Precision the model's weights are kept in. 'default' keeps the files as they are and maps them "
                    "from disk without a copy; any other choice makes a converted copy in RAM.",
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
    def execute(cls, folder: str, weight_dtype: str) -> io.NodeOutput:
        path = loading.find_folder(folder)
        model = loading.load_model(path, weight_dtype)
        sound = audio.load_audio_vae(path)
        return io.NodeOutput(model, text.load_clip(path), loading.load_video_vae(path, sound.latent_channels), sound)
