"""The pack's workflow templates, as code: graphs, layouts and notes; and the tool that turns them into files.

    python -m tools.templates.workflows                # all of them
    python -m tools.templates.workflows NAME ...       # some
    python -m tools.templates.workflows --run-picture  # also docs/images/run.png, a finished run on the tiny checkpoint

Writes workflows/<name>.json (UI format, made by ComfyUI's own page), its thumbnail workflows/<name>.jpg, and for the
image-to-video workflow docs/images/workflow.png, for the app docs/images/app.png. Needs ComfyUI and Chromium;
scikit-image for the photograph in docs.

To add a workflow: write a function that returns a `Template` and put it into TEMPLATES. Nodes have names, links are
(name, output index), and places come from `columns`: areas from left to right and, within a column, from top to
bottom; an area is a titled box around stacks of nodes, named from top to bottom. Heights are the page's own, so an
input that a node gains moves what stands below it; give a `height` to a node with a long text or a picture, `room` to
one that shows previews, and `stretch` to one that may fill its column. Then run this tool, look at the thumbnail, and
run the end-to-end tests: they take up every file in workflows/ by themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.tiny_companions import write_companions
from tests.fixtures.tiny_lora import write_tiny_lora
from tools.comfy.browser import chromium
from tools.comfy.graph_picture import SETTINGS, graph_picture
from tools.comfy.page import SIZE, Page, Workflow
from tools.comfy.page_scripts import NODE_BOXES
from tools.comfy.server import ComfyServer
from tools.templates.apps import APP_TEMPLATES
from tools.templates.chains import CHAIN_TEMPLATES
from tools.templates.files import FILE_TEMPLATES, write_single_files
from tools.templates.parts import (
    DRAWING_PROMPT,
    FIRST_FRAME,
    FPS,
    GET_MODEL,
    LORA_PAGE,
    MODEL,
    PREVIEW,
    PROMPT_STYLE,
    SHORE_PROMPT,
    conditions,
    create_video,
    decode,
    first_frame,
    loader,
    sampler,
    save_video,
    text,
)
from tools.templates.streams import STREAM_TEMPLATES
from tools.templates.template import Area, Node, Template, api_graph, app_mode, layout, with_values

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
IMAGES = ROOT / "docs" / "images"

THUMBNAIL_WIDTH, PICTURE_WIDTH = 800, 1800
PAGE_SIZE, APP_SIZE = (1600, 760), (1280, 1060)

# ----------------------------------------------------------------------------------------------------- the templates


def image_to_video_audio() -> Template:
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_I2VA"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# Image to video and audio

A first frame and a prompt make an 8 second clip; picture and sound are denoised together.

{GET_MODEL}

{PROMPT_STYLE} Do not contradict the picture.

**Try**
- your own first frame: any size, it is cropped in the middle
- *steps* 25, or *frames* 97 (4 seconds), for a quicker draft
- another *seed*: voices and camera change with it
- *tile_size* 256 in *MOVA Decode* where memory runs out at the end""",
    )


def text_to_video_audio() -> Template:
    return Template(
        nodes={
            "loader": loader(width=500),
            "text": text(SHORE_PROMPT, 522),
            "conditions": conditions(),
            "sampler": sampler(collapse_guard="warn"),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_T2VA"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("Prompt", [["text"]])],
            [Area("Sample", [["conditions", "sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# Text to video and audio

A prompt alone makes an 8 second clip; picture and sound are denoised together. No first frame is connected, so MOVA \
gets the white frame that stands for "no picture" in its training.

{GET_MODEL}

{PROMPT_STYLE} Without a picture the prompt has to say what everything looks like.

**Try**
- *collapse_guard* reseed where clips fade to flat colour, as some seeds do: it goes on to the next seed by itself
- a generated first frame, in the image-to-video workflow: the surer way
- *steps* 25, or *frames* 97 (4 seconds), for a quicker draft
- *tile_size* 256 in *MOVA Decode* where memory runs out at the end""",
    )


def two_samplers() -> Template:
    shifted = {"shift": 5.0}
    walk = {"noise_seed": 42, "steps": 50, "cfg": 5.0, "sampler_name": "euler", "scheduler": "simple"}
    given = {"positive": ("conditions", 0), "negative": ("conditions", 1)}
    high = {"model": ("high", 0), **given, "latent_image": ("conditions", 2), "add_noise": "enable", **walk}
    low = {"model": ("low", 0), **given, "latent_image": ("high_sampler", 0), "add_noise": "disable", **walk}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(354),
            "experts": Node("MOVASplitExperts", {"model": ("loader", 0)}, width=340),
            "text": text(DRAWING_PROMPT, 488),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "high": Node(
                "ModelSamplingSD3", {"model": ("experts", 0), **shifted}, title="Shift, high noise", width=340
            ),
            "high_sampler": Node(
                "KSamplerAdvanced",
                {**high, "start_at_step": 0, "end_at_step": 18, "return_with_leftover_noise": "enable"},
                title="High noise: layout and motion",
                width=340,
                room=PREVIEW,
            ),
            "low": Node("ModelSamplingSD3", {"model": ("experts", 1), **shifted}, title="Shift, low noise", width=340),
            "low_sampler": Node(
                "KSamplerAdvanced",
                {**low, "start_at_step": 18, "end_at_step": 10000, "return_with_leftover_noise": "disable"},
                title="Low noise: detail",
                width=340,
                room=PREVIEW,
            ),
            "separate": Node(
                "LTXVSeparateAVLatent", {"av_latent": ("low_sampler", 0)}, title="Separate AV Latent", width=280
            ),
            "pictures": Node("VAEDecode", {"samples": ("separate", 0), "vae": ("loader", 2)}, width=280),
            "sound": Node("VAEDecodeAudio", {"samples": ("separate", 1), "vae": ("loader", 3)}, width=280),
            "video": create_video(("pictures", 0), ("sound", 0), FPS),
            "save": save_video("video/MOVA_two_samplers"),
        },
        columns=[
            [Area("Model", [["loader", "experts"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["high", "high_sampler"], ["low", "low_sampler"]])],
            [Area("Decode and save", [["separate", "pictures", "sound"], ["video", "save"]])],
        ],
        note=f"""# Two samplers

The graph known from Wan 2.2, with ComfyUI's own samplers: one for the high-noise expert, one for the low-noise \
expert. Use it for a LoRA or other settings on one of them; otherwise *MOVA Sampler* does the same in one node.

{GET_MODEL}

**Where the experts change.** MOVA changes at noise level 0.9. With shift 5 that is step 18 of 50, 9 of 25, 15 of \
40: the end of the first sampler and the start of the second.

**Try**
- a Wan 2.2 LoRA for high or low noise after its *Shift* node
- cfg 1 with a distilled LoRA
- other frames a second in both *MOVA Image to Video+Audio* and *Create Video*""",
    )


SPOKEN_PROMPT = """This video has no subtitles. In a child's bright drawing, a girl with two big yellow pigtails and \
round blue eyes stands on a green hill under a blue sky with white clouds and looks straight at the viewer. She \
speaks slowly and clearly, her mouth opening wide with every word, and says, "My name is Mova. I can talk, and I can \
sing." She closes her mouth, smiles, and waits.

The audio shows a young girl's bright voice, close and clear, every word distinct, over a soft breeze."""
WHISTLED_SOUND = """The audio shows a girl who whistles a slow, happy tune, close and clear, over the hum of bees, a \
creaking wooden swing, and far church bells. Nobody speaks."""


def lip_sync() -> Template:
    given = {"model": ("loader", 0), "positive": ("conditions", 0), "negative": ("conditions", 1)}
    scales = {"text_cfg": 5.0, "audio_text_cfg": 0.0, "bridge_cfg": 3.5}
    spans = {"bridge_start": 0.0, "bridge_end": 1.0, "rescale": 0.0}
    steps = {"model": ("loader", 0), "scheduler": "simple", "steps": 50, "denoise": 1.0}
    walk = {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("euler", 0), "sigmas": ("steps", 0)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(SPOKEN_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "guider": Node("MOVAGuider", {**given, **scales, **spans}, width=340),
            "noise": Node("RandomNoise", {"noise_seed": 42}, width=340),
            "euler": Node("KSamplerSelect", {"sampler_name": "euler"}, width=340),
            "steps": Node("BasicScheduler", steps, width=340),
            "sampler": Node(
                "SamplerCustomAdvanced", {**walk, "latent_image": ("conditions", 2)}, width=340, height=320
            ),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_lip_sync"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Dual guidance", [["guider", "noise", "euler", "steps"]]), Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# Lip sync by dual guidance

Each step goes beyond the prediction twice: towards the prompt (*text_cfg*), and towards picture and sound that hear \
each other (*bridge_cfg*). The lip sync that MOVA's paper reports was made so, with *bridge_cfg* 3.5. It takes three \
evaluations a step in place of two, so half as much time again.

**Published, not measured here** (Verse-Bench, MOVA-360p, without and with): lip confidence LSE-C 6.28 and 7.80, lip \
distance LSE-D 8.10 and 7.00, error of spoken words 0.177 and 0.247. Lips get better, words less clear.

{GET_MODEL}

{PROMPT_STYLE}

**Try**
- *bridge_end* 0.5: the bridge guides in the first half only, for half of the extra time (not a published setting)
- *bridge_cfg* 2, for clearer words
- *bridge_cfg* 5, equal to *text_cfg*: two evaluations a step, no extra time
- *audio_text_cfg* 3 where the voice gets loud or harsh
- the same in one node: *bridge_cfg* in *MOVA Sampler*""",
        note_height=860,
    )


def sound_prompt() -> Template:
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 560, audio_prompt=WHISTLED_SOUND),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_sound_prompt"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Two prompts and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# A prompt for the sound

Picture and sound have towers of their own in MOVA, and each reads a prompt. Here they read different ones: *prompt* \
is the picture's, *audio_prompt* the sound's. They still hear each other through the bridge.

**Not trained.** MOVA read one prompt in both towers. Its relative Prism was trained with two. Expect surprises.

{GET_MODEL}

{PROMPT_STYLE} An empty *audio_prompt* is one prompt for both, as trained.

**Try**
- *audio_prompt* with music or a place that the picture does not show
- *audio_cfg* 7 in *MOVA Sampler*: closer to the sound's prompt
- *MOVA Bridge Strength* before the sampler, *video_to_audio* 0.5: the sound heeds the picture less""",
    )


def bridge_control() -> Template:
    strength = {"audio_to_video": 0.0, "video_to_audio": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    return Template(
        nodes={
            "loader": loader(),
            "strength": Node("MOVABridgeStrength", {"model": ("loader", 0), **strength}, width=340),
            "picture": first_frame(360),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(model=("strength", 0)),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_bridge_control"),
        },
        columns=[
            [Area("Model", [["loader", "strength"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# How much picture and sound hear each other

Before each of 30 layers the picture takes something from the sound and the sound from the picture. \
*MOVA Bridge Strength* scales both, for all steps or some. Here the picture does not hear the sound (0) and the sound \
follows the picture (1): the picture is what its tower makes alone.

**Trained** is 1 in both directions. 0 takes a direction out exactly; everything else is an experiment.

{GET_MODEL}

{PROMPT_STYLE}

**Try**
- 0 and 0: picture and sound that know nothing of each other
- 1.5 and 1.5 with *end_percent* 0.4: tighter timing while the layout is made
- 1 and 0.5: a sound that heeds its prompt more than the picture
- to steer without leaving the trained strengths: *bridge_cfg* in *MOVA Sampler*""",
    )


def lora() -> Template:
    names = {noise: f"wan2.2_i2v_lightx2v_4steps_lora_v1_{noise}_noise.safetensors" for noise in ("high", "low")}
    parts = {f"strength_{part}": 1.0 for part in ("video", "audio", "audio_to_video", "video_to_audio")}

    def lora_loader(model: str, noise: str) -> Node:
        chosen = {"lora_name": names[noise], "expert": "auto", "strength": 0.5, **parts}
        properties = {"models": [{"name": names[noise], "url": f"{LORA_PAGE}/{names[noise]}", "directory": "loras"}]}
        return Node("MOVALoraLoader", {"model": (model, 0), **chosen}, width=500, height=330, properties=properties)

    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "high": lora_loader("loader", "high"),
            "low": lora_loader("high", "low"),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(model=("low", 0), steps=20, cfg=3.0),
            "decode": decode(),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_LoRA"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("LoRA, one file for each expert", [["high", "low"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Decode and save", [["decode", "video", "save"]])],
        ],
        note=f"""# LoRA

Two LoRA files change the two video experts; each goes where its name says, and the node writes below itself what it \
changed and what it left out. A file of MOVA's own trainers holds all parts: then one node is enough.

{GET_MODEL}

**LoRA.** Put files into `models/loras`. The two here are Wan 2.2's, for 4 steps without guidance. **They were not \
trained on MOVA**: its picture layers have the same shapes, but sound and bridge were not distilled with them; expect \
worse sound and lips. Half strength, 20 steps and a cfg of 3 are a careful guess that nobody has measured.

**Try**
- your own LoRA in the first node, *Bypass* (Ctrl+B) on the second, *steps* 50 and *cfg* 5
- *strength* 0 in both, to compare: it is the model itself
- *expert* high or low, to hear and see what each expert contributes
- with a LoRA of MOVA's own: *strength_audio* 0 keeps the sound as it was""",
        note_height=700,
    )


def few_steps() -> Template:
    template = lora()
    quick = sampler(model=("low", 0), steps=8, cfg=1.0, audio_substeps=4)
    note = f"""# Few steps, and a sound that keeps its own

Two Wan 2.2 LoRAs let the picture be made in a few steps without guidance. The sound was never distilled, so it takes \
four steps for each of the picture's: the audio tower is less than a thousandth of the work.

**Not trained**, neither the LoRAs on MOVA nor the sub-steps, in which the sound hears what the picture said last. An \
experiment: nobody has measured it.

{GET_MODEL}

**LoRA.** Put both files into `models/loras`.

**Try**
- *strength_video* 1 in both LoRA nodes, and *steps* 4
- *audio_substeps* 1 to hear the difference
- *denoise* 0.5 with *audio_denoise* 1, on a finished clip's latent: the picture stays, its sound is made anew"""
    nodes = {**template.nodes, "sampler": quick, "save": save_video("video/MOVA_few_steps")}
    return replace(template, nodes=nodes, note=note)


TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_image_to_video_audio": image_to_video_audio,
    "mova_text_to_video_audio": text_to_video_audio,
    "mova_two_samplers": two_samplers,
    "mova_lip_sync": lip_sync,
    "mova_sound_prompt": sound_prompt,
    "mova_bridge_control": bridge_control,
    "mova_lora": lora,
    "mova_few_steps": few_steps,
    **STREAM_TEMPLATES,
    **CHAIN_TEMPLATES,
    **APP_TEMPLATES,
    **FILE_TEMPLATES,
}

# --------------------------------------------------------------------------------------------------- from code to files

ASTRONAUT_PROMPT = """This video has no subtitles. A woman in an orange space suit sits before a flag and a \
model of the space shuttle. She smiles, breathes in and looks up as a calm voice on the radio says, "T minus ten \
minutes and counting." The flag stirs while the camera moves closer.

The audio shows a man's calm voice over a crackling radio, the low hum of a hall, and the rustle of a suit."""
SMALL = {"width": 320, "height": 176, "frames": 25, "steps": 8}  # for a run of the tiny checkpoint on a CPU


# The clip in the page shows a frame of its middle.
SHOW_MIDDLE = """
Promise.all([...document.querySelectorAll('video')].map((video) => new Promise((done) => {
  video.addEventListener('seeked', done, {once: true});
  video.currentTime = video.duration / 2;
}))).then(() => true)"""


def to_workflow(page: Page, template: Template) -> Workflow:
    """The template as a UI-format workflow, left open in the page.

    Raises:
        BrowserError: a node or link is unknown to ComfyUI.
        ValueError: the page would show it with something red, missing, or on top of another.
    """
    graph = api_graph(template)
    page.reload()  # else inputs that the template does not name have the values of the graph before, by id and name
    page.load_api(graph)
    heights = {entry["id"]: entry["box"][3] for entry in page.evaluate(NODE_BOXES)}
    workflow = page.to_workflow(graph, layout(template, heights))
    report = page.load(workflow)
    if not report.fine or (lying := page.overlaps()):
        raise ValueError(f"this workflow is not fit to be seen: {report if not report.fine else lying}")
    return workflow


def write_template(page: Page, name: str) -> None:
    """workflows/<name>.json and .jpg."""
    template = TEMPLATES[name]()
    workflow = to_workflow(page, template)
    workflow["extra"] |= app_mode(template)
    WORKFLOWS.mkdir(exist_ok=True)
    content = json.dumps(workflow, ensure_ascii=False, indent=1)
    (WORKFLOWS / f"{name}.json").write_text(content + "\n", encoding="utf-8", newline="\n")
    picture = graph_picture(page, PICTURE_WIDTH)
    picture.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
    picture.save(WORKFLOWS / f"{name}.jpg", quality=85, optimize=True)


def write_documents(page: Page, server: ComfyServer, *, run: bool) -> None:
    """docs/images/workflow.png: the image-to-video workflow with a photograph; run.png: the page after a run of it."""
    from skimage import data  # the photograph is NASA's, in the public domain

    Image.fromarray(data.astronaut()).save(server.input / "astronaut.png")
    page.reload()
    shown = with_values(image_to_video_audio(), {"image": "astronaut.png", "prompt": ASTRONAUT_PROMPT})
    to_workflow(page, shown)
    IMAGES.mkdir(parents=True, exist_ok=True)
    graph_picture(page, PICTURE_WIDTH).save(IMAGES / "workflow.png", optimize=True)
    if run:
        to_workflow(page, replace(with_values(shown, SMALL), after_generate="fixed"))
        page.run()
        page.resize(*PAGE_SIZE)
        page.fit()
        page.evaluate(SHOW_MIDDLE)
        page.screenshot(IMAGES / "run.png")


def write_app_picture(page: Page, name: str) -> None:
    """docs/images/app.png: the page with a workflow that opens as an app."""
    page.load(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")), name)
    page.resize(*APP_SIZE)
    page.screenshot(IMAGES / "app.png")
    Image.open(IMAGES / "app.png").convert("RGB").quantize(256).save(IMAGES / "app.png", optimize=True)
    page.resize(*SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the workflow templates, their thumbnails and the docs' pictures."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(TEMPLATES)}")
    parser.add_argument("--run-picture", action="store_true", help="also docs/images/run.png, on the tiny checkpoint")
    options = parser.parse_args()
    names = options.names or list(TEMPLATES)
    if unknown := set(names) - set(TEMPLATES):
        parser.error(f"no workflow is called {', '.join(sorted(unknown))}; there are {', '.join(TEMPLATES)}")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_tiny_checkpoint(base / "models" / "diffusers" / MODEL)
        write_single_files(base / "models")
        for lora_loader in (node for node in lora().nodes.values() if node.type == "MOVALoraLoader"):
            write_tiny_lora(base / "models" / "loras" / lora_loader.inputs["lora_name"])
        write_companions(base / "models")
        with chromium() as browser, ComfyServer(base, pack=ROOT) as server:
            shutil.copy(server.comfyui / "input" / FIRST_FRAME, server.input)
            with Page.open(browser, server.url, settings=SETTINGS) as page:
                for name in names:
                    write_template(page, name)
                    print(WORKFLOWS / f"{name}.json")
                if "mova_image_to_video_audio" in names:
                    write_documents(page, server, run=options.run_picture)
                for name in APP_TEMPLATES.keys() & set(names):
                    write_app_picture(page, name)


if __name__ == "__main__":
    main()
