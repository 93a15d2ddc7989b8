"""Workflow templates that chain the clip to ComfyUI's own nodes and other models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tools.templates.parts import (
    FINISH,
    FPS,
    GET_MODEL,
    LORA_PAGE,
    PROMPT_STYLE,
    REST,
    SAMPLE,
    START,
    clip_graph,
    file_properties,
    text,
)
from tools.templates.template import Area, Card, Node, Template

WAN_PAGE = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/diffusion_models"
WAN = {noise: f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors" for noise in ("high", "low")}
WAN_LORAS = {noise: f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{noise}_noise.safetensors" for noise in ("high", "low")}
INTERPOLATOR = "film_net_fp16.safetensors"
INTERPOLATOR_PAGE = "https://huggingface.co/Comfy-Org/frame_interpolation/resolve/main/frame_interpolation"
ENLARGER = "RealESRGAN_x4plus.safetensors"
ENLARGER_PAGE = "https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main"

GIRL_PROMPT = """A child's bright drawing in crayon: a girl with two big yellow pigtails, round blue eyes and a pink \
dress stands on a green hill under a blue sky with white clouds, her arms stretched wide, looking at the viewer."""


def _wan(noise: str) -> dict[str, Node]:
    """One expert of Wan 2.2 with its four-step LoRA and shift: nodes "wan_", "lora_" and "shift_" of that noise."""
    file, lora = WAN[noise], WAN_LORAS[noise]
    model = {"unet_name": file, "weight_dtype": "default"}
    light = {"model": (f"wan_{noise}", 0), "lora_name": lora, "strength_model": 1.0}
    shift = {"model": (f"lora_{noise}", 0), "shift": 5.0}
    from_page, loras = file_properties(file, WAN_PAGE, "diffusion_models"), file_properties(lora, LORA_PAGE, "loras")
    return {
        f"wan_{noise}": Node("UNETLoader", model, width=360, properties=from_page),
        f"lora_{noise}": Node("LoraLoaderModelOnly", light, width=360, properties=loras),
        f"shift_{noise}": Node("ModelSamplingSD3", shift, title=f"Shift, {noise} noise", width=360),
    }


def _after(title: str, *names: str) -> tuple[dict[str, dict[str, object]], list[list[Area]]]:
    """Inputs and columns of a graph whose clip shows what the last of `names` gives, which follow the decoder."""
    columns = [START, *REST[:2], [Area(title, [["decode", *names]])], [Area("Save", [["video", "save"]])]]
    return {"video": {"images": (names[-1], 0)}}, columns


def upscale() -> Template:
    larger = {"image": ("decode", 0), "upscale_method": "lanczos", "scale_by": 2.0}
    inputs, columns = _after("Decode and enlarge", "larger")
    return clip_graph(
        prefix="MOVA_upscaled",
        nodes={"larger": Node("ImageScaleBy", larger, width=340)},
        inputs=inputs,
        columns=columns,
        card=Card(("clip",), "large", "x 2"),
        note=f"""# Twice the size

640 x 352 becomes 1280 x 704 after decoding, by plain lanczos: no detail is added, the sound is not touched.

{GET_MODEL}

**Try** finer edges: **52 Upscale model**. Detail of its own: **54 Detail by Wan**. A new picture at full size: \
**50 Drafts first**.""",
    )


def upscale_model() -> Template:
    fourfold = {"upscale_model": ("enlarger", 0), "image": ("decode", 0)}
    half = {"image": ("fourfold", 0), "upscale_method": "lanczos", "scale_by": 0.5}
    file = file_properties(ENLARGER, ENLARGER_PAGE, "upscale_models")
    inputs, columns = _after("Decode and enlarge", "enlarger", "fourfold", "half")
    return clip_graph(
        prefix="MOVA_upscaled",
        nodes={
            "enlarger": Node("UpscaleModelLoader", {"model_name": ENLARGER}, width=340, properties=file),
            "fourfold": Node("ImageUpscaleWithModel", fourfold, width=340),
            "half": Node("ImageScaleBy", half, title="Half of it", width=340),
        },
        inputs=inputs,
        columns=columns,
        card=Card(("clip", "file"), "large", "x 2"),
        note=f"""# Twice the size, with an upscale model

It redraws each picture at 2560 x 1408; half of that is saved. 193 pictures take 8.3 GB of RAM.

{GET_MODEL}

**Upscale model.** [{ENLARGER}]({ENLARGER_PAGE}/{ENLARGER}) into `models/upscale_models`.

**Try** *Half of it* bypassed (Ctrl+B): the full size.""",
    )


def smooth() -> Template:
    file = file_properties(INTERPOLATOR, INTERPOLATOR_PAGE, "frame_interpolation")
    between = {"interp_model": ("interpolator", 0), "images": ("decode", 0), "multiplier": 2}
    inputs, columns = _after("Decode, frames between", "interpolator", "between")
    return clip_graph(
        prefix="MOVA_48fps",
        nodes={
            "interpolator": Node(
                "FrameInterpolationModelLoader", {"model_name": INTERPOLATOR}, width=340, properties=file
            ),
            "between": Node("FrameInterpolate", between, width=340),
        },
        inputs={"video": {**inputs["video"], "fps": 2 * FPS}},
        columns=columns,
        card=Card(("clip", "file"), "long", "48 fps"),
        note=f"""# 48 frames a second

A model draws one more frame between every two; the sound is not touched, and lips stay with it.

{GET_MODEL}

**Interpolation.** [{INTERPOLATOR}]({INTERPOLATOR_PAGE}/{INTERPOLATOR}) into `models/frame_interpolation`.

*fps* of *Create Video* is 24 times *multiplier*: change both. **Try** 5 and 120.""",
    )


def wan_detail() -> Template:
    larger = {"image": ("decode", 0), "upscale_method": "lanczos", "scale_by": 2.0}
    walk = {"seed": 42, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.2}
    given = {"model": ("shift_low", 0), "positive": ("text", 0), "negative": ("text", 1), "latent_image": ("encode", 0)}
    return clip_graph(
        prefix="MOVA_wan_detail",
        nodes={
            "larger": Node("ImageScaleBy", larger, width=340),
            "encode": Node("VAEEncode", {"pixels": ("larger", 0), "vae": ("loader", 2)}, width=340),
            **_wan("low"),
            "again": Node("KSampler", {**given, **walk}, title="Wan 2.2 draws detail", width=360),
            "redrawn": Node("VAEDecode", {"samples": ("again", 0), "vae": ("loader", 2)}, width=340),
        },
        inputs={"video": {"images": ("redrawn", 0)}},
        columns=[
            START,
            *REST[:2],
            [Area("Decode and enlarge", [["decode", "larger", "encode"]])],
            [Area("Wan 2.2, low noise", [["wan_low", "lora_low", "shift_low", "again"]])],
            [Area("Decode and save", [["redrawn", "video", "save"]])],
        ],
        card=Card(("clip", "file"), "large", "detail"),
        note=f"""# Detail by Wan 2.2

The clip is enlarged, and Wan's low-noise expert goes over the last steps at 1280 x 704.

**Not trained, not measured**: Wan does not hear the sound; lips may change.

{GET_MODEL}

**Wan 2.2 T2V**, low noise: [model]({WAN_PAGE}/{WAN["low"]}) into `models/diffusion_models`, \
[LoRA]({LORA_PAGE}/{WAN_LORAS["low"]}) into `models/loras`.

**Try** *denoise* 0.1 where faces change, 0.35 for more detail.""",
        note_height=560,
    )


def wan_first_frame() -> Template:
    size = {"width": 1280, "height": 704, "length": 1, "batch_size": 1}
    walk = {"noise_seed": 42, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    given = {"positive": ("scene", 0), "negative": ("scene", 1), **walk}
    high = {"model": ("shift_high", 0), **given, "latent_image": ("canvas", 0), "add_noise": "enable"}
    high |= {"start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    low = {"model": ("shift_low", 0), **given, "latent_image": ("layout", 0), "add_noise": "disable"}
    low |= {"start_at_step": 2, "end_at_step": 10000, "return_with_leftover_noise": "disable"}
    return clip_graph(
        prefix="MOVA_after_Wan",
        nodes={
            "scene": replace(text(GIRL_PROMPT, 300), title="The picture, in words"),
            "canvas": Node("EmptyHunyuanLatentVideo", size, title="One frame", width=340),
            **_wan("high"),
            "layout": Node("KSamplerAdvanced", high, title="High noise: layout", width=360),
            **_wan("low"),
            "detail": Node("KSamplerAdvanced", low, title="Low noise: detail", width=360),
            "picture": Node("VAEDecode", {"samples": ("detail", 0), "vae": ("loader", 2)}, width=420),
            "look": Node("PreviewImage", {"images": ("picture", 0)}, title="First frame", width=420, height=240),
        },
        columns=[
            START,
            [Area("The picture, high noise", [["scene", "canvas", "wan_high", "lora_high", "shift_high"]])],
            [Area("Wan 2.2 makes it", [["layout", "wan_low", "lora_low", "shift_low", "detail"]])],
            [Area("First frame and prompt", [["picture", "look", "text"]])],
            SAMPLE,
            FINISH,
        ],
        card=Card(("words", "file"), "clip", "no picture"),
        note=f"""# A first frame by Wan 2.2

Wan makes one picture in four steps; MOVA brings it to life with sound. Surer than no picture.

{GET_MODEL}

**Wan 2.2 T2V** into `models/diffusion_models`: [high]({WAN_PAGE}/{WAN["high"]}), [low]({WAN_PAGE}/{WAN["low"]}); \
LoRAs into `models/loras`: [high]({LORA_PAGE}/{WAN_LORAS["high"]}), [low]({LORA_PAGE}/{WAN_LORAS["low"]}).

{PROMPT_STYLE}

**Try** the sampler and what follows bypassed (Ctrl+B) until the picture is right.""",
        note_height=680,
    )


CHAIN_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_wan_first_frame": wan_first_frame,
    "mova_upscale": upscale,
    "mova_upscale_model": upscale_model,
    "mova_smooth": smooth,
    "mova_wan_detail": wan_detail,
}
