"""Workflow templates that need no model, or chain the clip to ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .template_parts import (
    DRAWING_PROMPT,
    FPS,
    GET_MODEL,
    conditions,
    create_video,
    decode,
    first_frame,
    loader,
    sampler,
    save_video,
    text,
)
from .templates import Area, Node, Template


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
            "report": Node("MOVABugReport", {}, width=520, height=560),
            "builder": Node("MOVAPromptBuilder", script, width=500, height=700),
            "prompt": Node("PreviewAny", {"source": ("builder", 0)}, title="The prompt", width=420, height=300),
        },
        columns=[
            [Area("This machine", [["report"]])],
            [Area("A prompt", [["builder"], ["prompt"]])],
        ],
        note=f"""# Does it work here?

Needs no model. Press Run: *MOVA Bug Report* shows what ComfyUI, torch and the pack see of this machine, and *MOVA \
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
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "decode": decode(),
            "larger": Node("ImageScaleBy", larger, width=360),
            "video": create_video(("larger", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_upscaled"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode, enlarge and save", [["decode", "larger", "video", "save"]])],
        ],
        note=f"""# Twice the size

A clip at the trained 640 x 352, enlarged to 1280 x 704 after decoding; the sound is not touched.

*Upscale Image By* is plain lanczos: it adds no detail and needs no model.

{GET_MODEL}

**Try**
- an upscale model: put *Load Upscale Model* and *Upscale Image (using Model)* in its place; a model of factor 4 makes \
2560 x 1408, and 193 such pictures take 8.3 GB of RAM, so follow it with *Upscale Image By* 0.5
- a new picture at full size instead: **mova_draft_and_finish**""",
        note_height=560,
    )


CHAIN_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_check_install": check_install,
    "mova_upscale": upscale,
}
