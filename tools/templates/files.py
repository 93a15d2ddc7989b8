"""A workflow template on single files in ComfyUI's own model folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mova_core.checkpoint.convert.plan import slug
from tools.templates.parts import MODEL, MODEL_PAGE, REST, clip_graph, file_properties
from tools.templates.template import Area, Card, Node, Template

PRECISION = "fp8"
PAGE = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
TEXT_FILE, VAE_FILE = "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
CONVERTED = {"high_noise": "video_dit", "low_noise": "video_dit_2", "shared": "shared"}  # input -> part


def single_files() -> Template:
    name = slug(MODEL)
    experts = {widget: f"{name}_{widget}_{PRECISION}.safetensors" for widget in CONVERTED}
    reads = {"clip_name": TEXT_FILE, "type": "wan", "device": "default"}
    encoder = file_properties(TEXT_FILE, f"{PAGE}/text_encoders", "text_encoders")
    pictures = file_properties(VAE_FILE, f"{PAGE}/vae", "vae")
    return clip_graph(
        prefix="MOVA_I2VA",
        nodes={
            "loader": None,
            "model": Node("MOVAModelLoader", {**experts, "weight_dtype": "default"}, width=380, room=40),
            "clip": Node("CLIPLoader", reads, width=380, properties=encoder),
            "vae": Node("VAELoader", {"vae_name": VAE_FILE}, width=380, properties=pictures),
            "audio_vae": Node("MOVAAudioVAELoader", {"vae_file": f"{name}_audio_vae.safetensors"}, width=380),
        },
        inputs={
            "text": {"clip": ("clip", 0)},
            "conditions": {"vae": ("vae", 0)},
            "sampler": {"model": ("model", 0)},
            "decode": {"vae": ("vae", 0), "audio_vae": ("audio_vae", 0)},
        },
        columns=[[Area("Single files", [["model", "clip", "vae", "audio_vae"]])], *REST],
        card=Card(("file", "file", "file", "words")),
        note=f"""# Single files: half the disk, half the RAM

Text encoder and video VAE are shared with Wan; names do not matter.

**MOVA's own files** are converted from [MOVA-360p]({MODEL_PAGE}/MOVA-360p) in `models/diffusers`, in the folder of \
this pack: `python -m mova_core.checkpoint.convert ../../models/diffusers/{MODEL} ../../models --precision {PRECISION}`

**Stock files.** [Text encoder]({PAGE}/text_encoders/{TEXT_FILE}) into `models/text_encoders`, \
[VAE]({PAGE}/vae/{VAE_FILE}) into `models/vae`.

**Size.** 640 x 352.

**Try** a GGUF expert by *MOVA Attach Sound* and *MOVA Join Experts*; Prism as *high_noise*.""",
        note_height=480,
    )


FILE_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_single_files": single_files}
