"""Workflow templates of few steps with the words kept: MOVA and Prism."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.templates.files import PAGE, TEXT_FILE, VAE_FILE, single_files
from tools.templates.parts import GET_MODEL, PREVIEW, REST, START, UNTRAINED, clip_graph, file_properties
from tools.templates.template import Area, Card, Node, Template

FAST_PAGE = "https://huggingface.co/Kijai/WanVideo_comfy/resolve/main/LoRAs/Wan22_Lightx2v"
FAST_LORAS = {
    noise: f"Wan_2_2_I2V_A14B_{noise.upper()}_lightx2v_4step_lora_260412_rank_256_fp16.safetensors"
    for noise in ("high", "low")
}
PRISM_FILE = "prism_alpha_video_int8_convrot.safetensors"
SAME_FILE = "in the high-noise file"
GET_LORAS = f"""**LoRAs** into `models/loras`, 2.5 GB each: [high]({FAST_PAGE}/{FAST_LORAS["high"]}), \
[low]({FAST_PAGE}/{FAST_LORAS["low"]}). By LightX2V, for Wan 2.2."""
QUALITY = """**Quality.** *light* takes a tenth of 50 steps; *standard* and *high* let the sound hear the plain model, \
which *teacher* brings: half as much again. *max* is 20 steps of the plain model."""


def lora_loader(model: str, noise: str) -> Node:
    parts = {f"strength_{part}": 1.0 for part in ("video", "audio", "audio_to_video", "video_to_audio")}
    chosen = {"lora_name": FAST_LORAS[noise], "expert": noise, "strength": 1.0, **parts}
    properties = file_properties(FAST_LORAS[noise], FAST_PAGE, "loras")
    return Node("MOVALoraLoader", {"model": (model, 0), **chosen}, width=380, height=300, properties=properties)


def fast_sampler(model: str) -> Node:
    """On the distilled model, with the plain one for its teacher."""
    given = {"positive": ("conditions", 0), "negative": ("conditions", 1), "latent": ("conditions", 2)}
    models = {"model": ("low", 0), "teacher": (model, 0)}
    return Node(
        "MOVAFastSampler", {**models, **given, "seed": 42, "steps": 8, "quality": "high"}, width=340, room=PREVIEW
    )


def fast() -> Template:
    return clip_graph(
        prefix="MOVA_fast",
        nodes={
            "high": lora_loader("loader", "high"),
            "low": lora_loader("high", "low"),
            "sampler": fast_sampler("loader"),
        },
        columns=[START, [Area("Distillation, one file for each expert", [["high", "low"]])], *REST],
        card=Card(("picture", "words", "file"), label="8 steps"),
        note=f"""# Fast, and the words stay words

Eight steps of the picture; in each the sound takes four of its own.

{GET_MODEL}

{GET_LORAS}

{QUALITY}

{UNTRAINED} Nobody has judged it on MOVA yet.

**Try** *quality* light first: its words may be enough.""",
        note_height=680,
    )


def fast_prism() -> Template:
    files = single_files().nodes
    reads = {"high_noise": PRISM_FILE, "low_noise": SAME_FILE, "shared": SAME_FILE, "weight_dtype": "default"}
    return clip_graph(
        prefix="Prism_fast",
        nodes={
            "loader": None,
            "model": Node("MOVAModelLoader", reads, width=380, room=40),
            **{name: files[name] for name in ("clip", "vae", "audio_vae")},
            "high": lora_loader("model", "high"),
            "low": lora_loader("high", "low"),
            "sampler": fast_sampler("model"),
        },
        inputs={
            "text": {"clip": ("clip", 0)},
            "conditions": {"vae": ("vae", 0), "width": 848, "height": 480, "frames": 205},
            "decode": {"vae": ("vae", 0), "audio_vae": ("audio_vae", 0)},
        },
        columns=[
            [Area("Single files", [["model", "clip", "vae", "audio_vae"]])],
            [Area("Distillation, one file for each expert", [["high", "low"]])],
            *REST,
        ],
        card=Card(("picture", "words", "file"), label="Prism"),
        note=f"""# Prism, fast, and the words stay words

Tencent's derivative of MOVA: 848 x 480, 1280 x 720 and larger; 49 to 289 frames.

**Prism** into `models/diffusion_models`: `{PRISM_FILE}` of slmonker/Prism-Alpha-ComfyUI on ModelScope, or another \
of its files. Text encoder and VAEs: converted from [MOVA-360p](https://huggingface.co/OpenMOSS-Team/MOVA-360p) in \
`models/diffusers`, or [stock]({PAGE}/text_encoders/{TEXT_FILE}) [files]({PAGE}/vae/{VAE_FILE}).

{GET_LORAS}

{QUALITY}

**Prompt.** Sound first, then what is seen, then what happens; spoken words in `<speech>` tags.

**Try** 1280 x 720 with *MOVA Sparse Attention* before the LoRAs. At 640 x 352 its pictures break down.""",
        note_height=640,
    )


FAST_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_fast": fast, "mova_fast_prism": fast_prism}
