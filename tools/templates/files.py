"""A workflow template on single files in ComfyUI's own model folders, and what stands in for those files in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.convert.plan import slug
from tests.fixtures.tiny_checkpoint import tiny_sizes, write_tiny_checkpoint
from tools.templates.parts import (
    DRAWING_PROMPT,
    MODEL,
    MODEL_PAGE,
    PROMPT_STYLE,
    conditions,
    create_video,
    decode,
    first_frame,
    sampler,
    save_video,
    text,
)
from tools.templates.template import Area, Node, Template

PRECISION = "fp8"
PAGE = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
TEXT_FILE, VAE_FILE = "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
CONVERTED = {"high_noise": "video_dit", "low_noise": "video_dit_2", "shared": "shared"}  # input -> part


def single_files() -> Template:
    name = slug(MODEL)
    experts = {widget: f"{name}_{widget}_{PRECISION}.safetensors" for widget in CONVERTED}
    reads = {"clip_name": TEXT_FILE, "type": "wan", "device": "default"}
    text_page, vae_page = f"{PAGE}/text_encoders/{TEXT_FILE}", f"{PAGE}/vae/{VAE_FILE}"
    encoder = {"models": [{"name": TEXT_FILE, "url": text_page, "directory": "text_encoders"}]}
    pictures = {"models": [{"name": VAE_FILE, "url": vae_page, "directory": "vae"}]}
    return Template(
        nodes={
            "model": Node("MOVAModelLoader", {**experts, "weight_dtype": "default"}, width=400, room=40),
            "clip": Node("CLIPLoader", reads, width=400, properties=encoder),
            "vae": Node("VAELoader", {"vae_name": VAE_FILE}, width=400, properties=pictures),
            "audio_vae": Node("MOVAAudioVAELoader", {"vae_file": f"{name}_audio_vae.safetensors"}, width=400),
            "picture": first_frame(354),
            "text": text(DRAWING_PROMPT, 426, clip=("clip", 0)),
            "conditions": conditions(width=500, vae=("vae", 0), first_frame=("picture", 0)),
            "sampler": sampler(model=("model", 0)),
            "decode": decode(vae=("vae", 0), audio_vae=("audio_vae", 0)),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_I2VA"),
        },
        columns=[
            [Area("Single files", [["model", "clip", "vae", "audio_vae"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# Single files

The image-to-video graph on single files in ComfyUI's own model folders: half the disk and half the RAM of the \
published folder, and text encoder and video VAE shared with Wan.

**MOVA's own files** are converted, with one command, from a downloaded folder, which may be deleted afterwards: \
[MOVA-360p]({MODEL_PAGE}/MOVA-360p) or [MOVA-720p]({MODEL_PAGE}/MOVA-720p) in `models/diffusers`. From the `ComfyUI` \
folder:

```
python custom_nodes/mova/tools/download.py {MODEL} models/diffusers/{MODEL}
python custom_nodes/mova/tools/convert.py models/diffusers/{MODEL} models --precision {PRECISION} --verify
```

They are known by their contents, so names do not matter.

**Stock files.** [{TEXT_FILE}]({text_page}) into `models/text_encoders`, [{VAE_FILE}]({vae_page}) into `models/vae`. \
The converted `{name}_umt5_xxl_{PRECISION}` and `{name}_video_vae` serve as well.

**Size.** 640 x 352 or 352 x 640 with MOVA-360p, 1280 x 720 or 720 x 1280 with MOVA-720p. 193 frames at 24 a second \
are the 8 seconds both were trained on.

{PROMPT_STYLE}

**Try**
- one merged file (`--parts merged`) as *high_noise*, the other two as they are
- a GGUF expert: its loader, then *MOVA Attach Sound* with the shared file, for each expert; then *MOVA Join Experts*
- Prism, in one file, as *high_noise*; *shift* and *audio_shift* 0""",
        note_height=640,
    )


FILE_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_single_files": single_files}


STOCK_CHANNELS = f"{MODEL}-stock-channels"  # folder: audio latents as wide as published, which a stock VAE stands for


def write_single_files(models: Path) -> None:
    """Tiny files under the names of the template in ComfyUI's `models` folder, and the folder they come from."""
    folder, name = models / "diffusers" / STOCK_CHANNELS, slug(MODEL)
    write_tiny_checkpoint(folder, sizes=tiny_sizes(audio_latent_channels=128))
    convert(folder, models, precision=PRECISION, name=MODEL)
    for place, converted, stock in (
        ("text_encoders", f"{name}_umt5_xxl_{PRECISION}", TEXT_FILE),
        ("vae", f"{name}_video_vae", VAE_FILE),
    ):
        (models / place / f"{converted}.safetensors").replace(models / place / stock)
