"""The graph that most templates are, and how they differ from it; prompts, and words for notes.

clip_graph(
    prefix="MOVA_something",                                       # of the saved file
    nodes={"strength": Node("MOVABridgeStrength", {"model": ("loader", 0)})},   # more nodes; None takes one away
    inputs={"sampler": {"model": ("strength", 0)}},                # inputs that differ
    columns=[[Area("Model", [["loader", "strength"]])], *REST],    # where they stand
    note=...,
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mova_core.text import NEGATIVE_PROMPT
from tools.templates.template import Area, Card, Node, Template

MODEL = "MOVA-360p"  # what the loaders name: the folder that a newcomer is told to download
FIRST_FRAME = "example.png"  # lies in the input folder of every ComfyUI
FPS = 24.0
PREVIEW = 120  # room for a preview as wide as its node, and for the line that says the pace

MODEL_PAGE = "https://huggingface.co/OpenMOSS-Team"
LORA_PAGE = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/loras"
GET_MODEL = f"""**Model.** [MOVA-360p]({MODEL_PAGE}/MOVA-360p), 73 GiB, into `models/diffusers`, then press R: \
`hf download OpenMOSS-Team/MOVA-360p --local-dir models/diffusers/MOVA-360p`

**Size.** 640 x 352 or 352 x 640. [MOVA-720p]({MODEL_PAGE}/MOVA-720p) makes 1280 x 720."""
PROMPT_STYLE = """**Prompt.** Prose, in order. Speech in double quotes. Last, "The audio shows ..." """
UNTRAINED = "**MOVA was not trained for this.**"

DRAWING_PROMPT = """This video has no subtitles. In a child's bright drawing, a girl with two big yellow \
pigtails and round blue eyes stands on a green hill under a blue sky with white clouds, her arms stretched wide. She \
blinks, looks at the viewer, and her smile opens. Her arms begin to wave up and down like wings, the pink dress \
sways, and she rises on her toes. In a high, cheerful voice she says, "Look at me, I can almost fly!" Then she \
laughs, and the clouds drift by behind her while the camera moves a little closer.

The audio shows a young girl's bright voice, close and clear, laughing after her line, over a soft breeze, rustling \
grass and a few birds far away."""
SHORE_PROMPT = """This video has no subtitles. An old lighthouse keeper with a white beard and a yellow \
raincoat stands on a rocky shore at dusk, a lantern in his right hand, the lighthouse beam turning slowly behind \
him. Waves break on the rocks and spray drifts across the frame. He raises the lantern, turns his head towards the \
camera and says in a deep, hoarse voice, "The storm is coming. We had better get inside." He nods, pulls his hood \
over his head and walks out of the frame to the left, while the camera stays on the breaking waves.

The audio shows an old man's deep, hoarse voice, close and calm, over heavy waves breaking on rocks, gusts of wind, \
and one long note of a foghorn in the distance."""

FOLDED: Mapping[str, Any] = {  # MOVA Sampler's advanced inputs and their defaults
    "shift": 5.0,
    "audio_shift": 5.0,
    "audio_cfg": 0.0,
    "audio_denoise": 0.0,
    "collapse_guard": "off",
    "listen_every": 0,
    "audio_substeps": 1,
}

# Areas that most templates have, and the columns of the plain graph. The note stands above the first.
# Nodes that are linked stand in one area or in two columns: a wire would cross the title of an area below.
START = [Area("Model", [["loader"]])]
SCENE = [Area("First frame and prompt", [["picture", "text"]])]
SAMPLE = [Area("Size and sampling", [["conditions", "sampler"]])]
FINISH = [Area("Decode and save", [["decode", "video", "save"]])]
REST = [SCENE, SAMPLE, FINISH]
PLAIN_CARD = Card(("picture", "words"))


def file_properties(name: str, page: str, directory: str) -> Mapping[str, Any]:
    """What tells the page where a missing file is to be had."""
    return {"models": [{"name": name, "url": f"{page}/{name}", "directory": directory}]}


def loader() -> Node:
    properties = file_properties(MODEL, MODEL_PAGE, "diffusers")
    return Node("MOVALoader", {"folder": MODEL, "weight_dtype": "default"}, width=340, properties=properties)


def text(prompt: str, height: float = 380, **more: Any) -> Node:
    inputs = {"clip": ("loader", 1), "prompt": prompt, "negative_prompt": NEGATIVE_PROMPT, **more}
    return Node("MOVATextEncode", inputs, width=400, height=height, stretch=True)


def picture(title: str = "", height: float = 340) -> Node:
    """ComfyUI's own example."""
    return Node("LoadImage", {"image": FIRST_FRAME}, title=title, width=340, height=height, stretch=True)


def conditions(**more: Any) -> Node:
    """Trained size and length, for the conditioning of node "text"."""
    given = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2), "first_frame": ("picture", 0)}
    size = {"width": 640, "height": 352, "frames": 193, "fps": FPS, "batch_size": 1}
    return Node("MOVAImageToVideoAudio", {**given, **size, **more}, width=340)


def sampler(start: str = "conditions", **more: Any) -> Node:
    """The official settings on what node `start` gives; with room for the preview."""
    given = {"model": ("loader", 0), "positive": (start, 0), "negative": (start, 1), "latent": (start, 2)}
    walk = {"seed": 42, "steps": 50, "cfg": 5.0, "sampler": "euler", "scheduler": "mova", "denoise": 1.0}
    # Written out although they are defaults: the page keeps a widget's value by node id and name from graph to graph.
    inputs = {**given, **walk, "bridge_cfg": 1.0, **FOLDED, **more}
    unfolded = any(inputs[name] != value for name, value in FOLDED.items())
    return Node("MOVASampler", inputs, width=340, room=PREVIEW, unfolded=unfolded)


def decode(latent: str = "sampler", **more: Any) -> Node:
    given = {"latent": (latent, 0), "vae": ("loader", 2), "audio_vae": ("loader", 3)}
    return Node("MOVADecode", {**given, "tile_size": 0, "overlap": 64, **more}, width=340)


def create_video(images: Any = ("decode", 0), audio: Any = ("decode", 1), fps: Any = ("decode", 2)) -> Node:
    return Node("CreateVideo", {"images": images, "audio": audio, "fps": fps, "bit_depth": 8}, width=340)


def save_video(prefix: str) -> Node:
    """With room below for the clip that it shows after a run."""
    how = {"format": "mp4", "format.codec": "h264", "format.codec.encoding": "auto"}
    inputs = {"video": ("video", 0), "filename_prefix": f"video/{prefix}", **how}
    return Node("SaveVideo", inputs, width=340, height=340, stretch=True)


def clip_graph(
    *,
    prefix: str,
    prompt: str = DRAWING_PROMPT,
    nodes: Mapping[str, Node | None] | None = None,
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Sequence[Sequence[Area]] = (START, *REST),
    note: str = "",
    note_height: float = 500,
    card: Card = PLAIN_CARD,
) -> Template:
    """The image-to-video graph with what differs; a node that is not in `columns` must be taken away by None."""
    plain = {
        "loader": loader(),
        "picture": picture(),
        "text": text(prompt),
        "conditions": conditions(),
        "sampler": sampler(),
        "decode": decode(),
        "video": create_video(),
        "save": save_video(prefix),
    }
    kept = {key: node for key, node in {**plain, **(nodes or {})}.items() if node is not None}
    for key, changed in (inputs or {}).items():
        kept[key] = with_inputs(kept[key], **changed)
    return Template(kept, columns, note, card=card, note_height=note_height)


def with_inputs(node: Node, **changed: Any) -> Node:
    """The node with other inputs; None takes one away. A sampler unfolds where they are among its folded ones."""
    inputs = {key: value for key, value in {**node.inputs, **changed}.items() if value is not None}
    folded = any(inputs[key] != value for key, value in FOLDED.items()) if node.type == "MOVASampler" else node.unfolded
    return replace(node, inputs=inputs, unfolded=folded)
