"""Workflow templates that need no model, or chain the clip to ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tools.templates.parts import (
    DRAWING_PROMPT,
    FPS,
    GET_MODEL,
    LORA_PAGE,
    PROMPT_STYLE,
    conditions,
    create_video,
    decode,
    first_frame,
    loader,
    sampler,
    save_video,
    text,
)
from tools.templates.template import Area, Node, Template

WAN_PAGE = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/diffusion_models"
WAN = {noise: f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors" for noise in ("high", "low")}
WAN_LORAS = {noise: f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{noise}_noise.safetensors" for noise in ("high", "low")}
INTERPOLATOR = "film_net_fp16.safetensors"
INTERPOLATOR_PAGE = "https://huggingface.co/Comfy-Org/frame_interpolation/resolve/main/frame_interpolation"
ENLARGER = "RealESRGAN_x4plus.safetensors"
ENLARGER_PAGE = "https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main"

GIRL_PROMPT = """A child's bright drawing in crayon: a girl with two big yellow pigtails, round blue eyes and a pink \
dress stands on a green hill under a blue sky with white clouds, her arms stretched wide, looking at the viewer."""


def _file(name: str, page: str, directory: str) -> Mapping[str, Any]:
    """What tells the page where a missing file is to be had."""
    return {"models": [{"name": name, "url": f"{page}/{name}", "directory": directory}]}


def _wan(noise: str) -> dict[str, Node]:
    """One expert of Wan 2.2 with its four-step LoRA and shift: nodes "wan_", "lora_" and "shift_" of that noise."""
    file, lora = WAN[noise], WAN_LORAS[noise]
    model = {"unet_name": file, "weight_dtype": "default"}
    light = {"model": (f"wan_{noise}", 0), "lora_name": lora, "strength_model": 1.0}
    shift = {"model": (f"lora_{noise}", 0), "shift": 5.0}
    return {
        f"wan_{noise}": Node("UNETLoader", model, width=440, properties=_file(file, WAN_PAGE, "diffusion_models")),
        f"lora_{noise}": Node("LoraLoaderModelOnly", light, width=440, properties=_file(lora, LORA_PAGE, "loras")),
        f"shift_{noise}": Node("ModelSamplingSD3", shift, title=f"Shift, {noise} noise", width=440),
    }


def _clip(prefix: str, images: Any, **more: Any) -> dict[str, Node]:
    """The image-to-video graph, whose clip shows `images` with the sound as it was decoded."""
    return {
        "loader": loader(),
        "picture": first_frame(428),
        "text": text(DRAWING_PROMPT, 426),
        "conditions": conditions(width=500, first_frame=("picture", 0)),
        "sampler": sampler(),
        "decode": decode(),
        **more,
        "video": create_video(images, ("decode", 1), ("decode", 2)),
        "save": save_video(prefix),
    }


FROM_PICTURE = [
    [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
    [Area("Prompt and size", [["text", "conditions"]])],
]


def check_install() -> Template:
    script = {
        "scene": "A kitchen in the morning, an old man at the table",
        "action": "He lifts his cup, looks up and smiles",
        "speakers": "Tom: a thin old man with white hair; a low, dry voice",
        "lines": "Tom: Good morning. It works.",
        "sounds": "a cup set down on wood, birds outside",
        "music": "",
        "camera": "The camera does not move",
        "frames": 193,
        "fps": FPS,
    }
    return Template(
        nodes={
            "report": Node("MOVABugReport", {}, width=420, height=200),
            "machine": Node("PreviewAny", {"source": ("report", 0)}, title="The report", width=420, height=470),
            "builder": Node("MOVAPromptBuilder", script, width=500, height=700),
            "prompt": Node("PreviewAny", {"source": ("builder", 0)}, title="The prompt", width=420, height=300),
        },
        columns=[
            [Area("This machine", [["report", "machine"]])],
            [Area("A prompt", [["builder"], ["prompt"]])],
        ],
        note=f"""# Does it work here?

Needs no model. Press Run: *The report* shows what ComfyUI, torch and the pack see of this machine, ready to be copied \
under a bug report, and *MOVA \
Prompt Builder* writes a prompt and says whether its words fit into 8 seconds.

If that shows, the pack is installed.

{GET_MODEL}

**Try**
- more words in *lines*, until the builder says that they are too many
- then **mova_image_to_video_audio**""",
        note_height=520,
    )


def upscale() -> Template:
    larger = {"image": ("decode", 0), "upscale_method": "lanczos", "scale_by": 2.0}
    return Template(
        nodes=_clip("video/MOVA_upscaled", ("larger", 0), larger=Node("ImageScaleBy", larger, width=360)),
        columns=[
            *FROM_PICTURE,
            [Area("Sample", [["sampler"]])],
            [Area("Decode, enlarge and save", [["decode", "larger", "video", "save"]])],
        ],
        note=f"""# Twice the size

A clip at the trained 640 x 352, enlarged to 1280 x 704 after decoding; the sound is not touched.

*Upscale Image By* is plain lanczos: it adds no detail and needs no model.

{GET_MODEL}

**Try**
- an upscale model, which draws finer edges: **mova_upscale_model**
- Wan 2.2, which makes detail of its own: **mova_wan_detail**
- a new picture at full size instead: **mova_draft_and_finish**""",
        note_height=520,
    )


def upscale_model() -> Template:
    fourfold = {"upscale_model": ("enlarger", 0), "image": ("decode", 0)}
    half = {"image": ("fourfold", 0), "upscale_method": "lanczos", "scale_by": 0.5}
    enlarger = {"model_name": ENLARGER}
    return Template(
        nodes=_clip(
            "video/MOVA_upscaled",
            ("half", 0),
            enlarger=Node(
                "UpscaleModelLoader", enlarger, width=360, properties=_file(ENLARGER, ENLARGER_PAGE, "upscale_models")
            ),
            fourfold=Node("ImageUpscaleWithModel", fourfold, width=360),
            half=Node("ImageScaleBy", half, title="Half of it", width=360),
        ),
        columns=[
            *FROM_PICTURE,
            [Area("Sample and decode", [["sampler", "decode"]])],
            [Area("Enlarge", [["enlarger", "fourfold", "half"]])],
            [Area("Save", [["video", "save"]])],
        ],
        note=f"""# Twice the size, with an upscale model

A clip at the trained 640 x 352; an upscale model redraws each picture at 2560 x 1408, and half of that is saved. The \
sound is not touched.

{GET_MODEL}

**Upscale model.** [{ENLARGER}]({ENLARGER_PAGE}/{ENLARGER}) into `models/upscale_models`. It looks at one picture at a \
time, so fine texture can flicker.

**Memory.** 193 pictures of 2560 x 1408 take 8.3 GB of RAM.

**Try**
- without *Half of it* (Ctrl+B): the full 2560 x 1408
- a model of factor 2, and *Half of it* off: less work and a quarter of the RAM
- 48 frames a second after it: the two nodes of **mova_smooth**""",
        note_height=620,
    )


def smooth() -> Template:
    between = {"interp_model": ("interpolator", 0), "images": ("decode", 0), "multiplier": 2}
    files = _file(INTERPOLATOR, INTERPOLATOR_PAGE, "frame_interpolation")
    template = Template(
        nodes=_clip(
            "video/MOVA_smooth",
            ("between", 0),
            interpolator=Node(
                "FrameInterpolationModelLoader", {"model_name": INTERPOLATOR}, width=360, properties=files
            ),
            between=Node("FrameInterpolate", between, width=360),
        ),
        columns=[
            *FROM_PICTURE,
            [Area("Sample and decode", [["sampler", "decode"]])],
            [Area("Frames between", [["interpolator", "between"]]), Area("Save", [["video", "save"]])],
        ],
        note=f"""# 48 frames a second

MOVA makes 24 frames a second; a frame interpolation model draws one more between every two. The sound is not touched, \
and lips stay with it.

{GET_MODEL}

**Frame interpolation model.** [{INTERPOLATOR}]({INTERPOLATOR_PAGE}/{INTERPOLATOR}) into `models/frame_interpolation`. \
RIFE files are read too, and are quicker.

**Frames a second.** *fps* of *Create Video* is 24 times *multiplier*: change both together, or sound and picture \
part. The last picture has none after it, so 193 frames become 385, and the sound ends 1/48 second sooner.

**Try**
- *multiplier* 5 with *fps* 120
- larger pictures first: the two nodes of **mova_upscale** or **mova_upscale_model** before this one""",
        note_height=640,
    )
    return replace(template, nodes={**template.nodes, "video": create_video(("between", 0), ("decode", 1), 2 * FPS)})


def wan_detail() -> Template:
    larger = {"image": ("decode", 0), "upscale_method": "lanczos", "scale_by": 2.0}
    walk = {"seed": 42, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.2}
    given = {"model": ("shift_low", 0), "positive": ("text", 0), "negative": ("text", 1), "latent_image": ("encode", 0)}
    return Template(
        nodes=_clip(
            "video/MOVA_wan_detail",
            ("redrawn", 0),
            larger=Node("ImageScaleBy", larger, width=320),
            encode=Node("VAEEncode", {"pixels": ("larger", 0), "vae": ("loader", 2)}, width=320),
            **_wan("low"),
            again=Node("KSampler", {**given, **walk}, title="Wan 2.2 draws detail", width=440),
            redrawn=Node("VAEDecode", {"samples": ("again", 0), "vae": ("loader", 2)}, width=360),
        ),
        columns=[
            *FROM_PICTURE,
            [Area("Sample and decode", [["sampler", "decode"]])],
            [Area("Enlarge", [["larger", "encode"]])],
            [Area("Wan 2.2, low noise", [["wan_low", "lora_low", "shift_low", "again"]])],
            [Area("Decode and save", [["redrawn", "video", "save"]])],
        ],
        note=f"""# Detail by Wan 2.2

MOVA makes the clip at 640 x 352; it is enlarged, and the low-noise expert of Wan 2.2 goes over the last steps again \
at 1280 x 704, with ComfyUI's own nodes. The sound stays as MOVA made it. Text encoder and VAE are shared: Wan 2.2 \
reads the same UMT5-XXL, and MOVA's picture VAE is Wan's.

**Not trained, not measured.** Wan does not hear the sound: what *denoise* lets it change, it may change against the \
lips.

{GET_MODEL}

**Wan 2.2 T2V**, low noise only:
- [{WAN["low"]}]({WAN_PAGE}/{WAN["low"]}) into `models/diffusion_models`
- [{WAN_LORAS["low"]}]({LORA_PAGE}/{WAN_LORAS["low"]}) into `models/loras`

**Time.** Four evaluations of 14 billion weights at 1280 x 704, in place of a hundred of MOVA-720p's.

**Try**
- *denoise* 0.1 where lips or faces change, 0.35 for more new detail
- another enlargement before it: *Upscale Image (using Model)*, as in **mova_upscale_model**""",
        note_height=800,
    )


def wan_first_frame() -> Template:
    size = {"width": 1280, "height": 704, "length": 1, "batch_size": 1}
    walk = {"noise_seed": 42, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    given = {"positive": ("scene", 0), "negative": ("scene", 1)}
    high = {"model": ("shift_high", 0), **given, "latent_image": ("canvas", 0), "add_noise": "enable", **walk}
    low = {"model": ("shift_low", 0), **given, "latent_image": ("layout", 0), "add_noise": "disable", **walk}
    made = _clip("video/MOVA_after_Wan", ("decode", 0))
    del made["picture"]
    nodes = {
        **made,
        "scene": replace(text(GIRL_PROMPT, 300), title="The picture, in words"),
        "canvas": Node("EmptyHunyuanLatentVideo", size, title="One frame", width=500),
        **_wan("high"),
        "layout": Node(
            "KSamplerAdvanced",
            {**high, "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"},
            title="High noise: layout",
            width=440,
        ),
        **_wan("low"),
        "detail": Node(
            "KSamplerAdvanced",
            {**low, "start_at_step": 2, "end_at_step": 10000, "return_with_leftover_noise": "disable"},
            title="Low noise: detail",
            width=440,
        ),
        "picture": Node("VAEDecode", {"samples": ("detail", 0), "vae": ("loader", 2)}, width=360),
        "look": Node("PreviewImage", {"images": ("picture", 0)}, title="First frame", width=360, height=260),
    }
    return Template(
        nodes=nodes,
        columns=[
            [Area("Model", [["loader"]]), Area("The picture", [["scene", "canvas"]])],
            [
                Area(
                    "Wan 2.2 makes a picture",
                    [["wan_high", "lora_high", "shift_high", "layout"], ["wan_low", "lora_low", "shift_low", "detail"]],
                )
            ],
            [Area("First frame", [["picture", "look"]]), Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# A first frame by Wan 2.2

From words alone: the two experts of Wan 2.2 make one picture in four steps, and MOVA brings it to life with sound. \
MOVA was trained on clips with a first frame, so this is surer than no picture at all. Text encoder and VAE are \
shared: Wan 2.2 reads the same UMT5-XXL, and MOVA's picture VAE is Wan's.

{GET_MODEL}

**Wan 2.2 T2V**
- [high noise]({WAN_PAGE}/{WAN["high"]}) and [low noise]({WAN_PAGE}/{WAN["low"]}) into `models/diffusion_models`
- the LoRAs for four steps, [high]({LORA_PAGE}/{WAN_LORAS["high"]}) and [low]({LORA_PAGE}/{WAN_LORAS["low"]}), into \
`models/loras`

{PROMPT_STYLE} Do not contradict the picture.

**Try**
- *Bypass* the sampler and everything after it (Ctrl+B) until the picture is right; its seed is in *High noise: layout*
- any other model that makes pictures, in Wan's place""",
        note_height=760,
    )


CHAIN_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_check_install": check_install,
    "mova_upscale": upscale,
    "mova_upscale_model": upscale_model,
    "mova_smooth": smooth,
    "mova_wan_detail": wan_detail,
    "mova_wan_first_frame": wan_first_frame,
}
