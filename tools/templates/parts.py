"""Parts that workflow templates share: the nodes at both ends of a graph, prompts, and words for notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mova_core.text import NEGATIVE_PROMPT
from tools.templates.template import Node

MODEL = "MOVA-360p"  # what the loaders name: the folder that a newcomer is told to download
FIRST_FRAME = "example.png"  # lies in the input folder of every ComfyUI
FPS = 24.0
PREVIEW = 245  # room for a preview as wide as its node, and for the line that says the pace

MODEL_PAGE = "https://huggingface.co/OpenMOSS-Team"
LORA_PAGE = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/loras"
GET_MODEL = f"""**Model.** Download a whole folder (about 73 GiB) into `ComfyUI/models/diffusers`, \
keeping its name, then press R and choose it in *MOVA Loader*:

- [MOVA-360p]({MODEL_PAGE}/MOVA-360p) into `models/diffusers/MOVA-360p`
- [MOVA-720p]({MODEL_PAGE}/MOVA-720p) into `models/diffusers/MOVA-720p`

```
hf download OpenMOSS-Team/MOVA-360p --local-dir models/diffusers/MOVA-360p
```

**Size.** 640 x 352 or 352 x 640 with MOVA-360p, 1280 x 720 or 720 x 1280 with MOVA-720p. 193 frames at 24 a second \
are the 8 seconds both were trained on."""
PROMPT_STYLE = """**Prompt.** Prose, in the order things happen. Spoken words in double quotes, in their own language. \
End with a paragraph that begins "The audio shows"."""

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


def loader(width: float = 340) -> Node:
    properties = {"models": [{"name": MODEL, "url": f"{MODEL_PAGE}/{MODEL}", "directory": "diffusers"}]}
    return Node("MOVALoader", {"folder": MODEL, "weight_dtype": "default"}, width=width, properties=properties)


def text(prompt: str, height: float, **more: Any) -> Node:
    inputs = {"clip": ("loader", 1), "prompt": prompt, "negative_prompt": NEGATIVE_PROMPT, **more}
    return Node("MOVATextEncode", inputs, width=500, height=height, stretch=True)


def first_frame(height: float) -> Node:
    return Node("LoadImage", {"image": FIRST_FRAME}, width=340, height=height, stretch=True)


def conditions(width: float = 320, **more: Any) -> Node:
    """Trained size and length, for the conditioning of node "text"."""
    given = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2)}
    size = {"width": 640, "height": 352, "frames": 193, "fps": FPS, "batch_size": 1}
    return Node("MOVAImageToVideoAudio", {**given, **size, **more}, width=width)


FOLDED: Mapping[str, Any] = {  # MOVA Sampler's advanced inputs and their defaults
    "shift": 5.0,
    "audio_shift": 5.0,
    "audio_cfg": 0.0,
    "audio_denoise": 0.0,
    "collapse_guard": "off",
    "listen_every": 0,
    "audio_substeps": 1,
}


def sampler(**more: Any) -> Node:
    """The official settings; with room for the preview."""
    given = {"model": ("loader", 0), "positive": ("conditions", 0), "negative": ("conditions", 1)}
    noise = {"latent": ("conditions", 2), "seed": 42, "steps": 50, "cfg": 5.0}
    walk = {"sampler": "euler", "scheduler": "mova", "denoise": 1.0}
    # Written out although they are defaults: the page keeps a widget's value by node id and name from graph to graph.
    walk |= {"bridge_cfg": 1.0, **FOLDED}
    unfolded = any(more.get(name, value) != value for name, value in FOLDED.items())
    return Node("MOVASampler", {**given, **noise, **walk, **more}, width=340, room=PREVIEW, unfolded=unfolded)


def decode(**more: Any) -> Node:
    given = {"latent": ("sampler", 0), "vae": ("loader", 2), "audio_vae": ("loader", 3)}
    return Node("MOVADecode", {**given, "tile_size": 0, "overlap": 64, **more}, width=360)


def create_video(images: Any, audio: Any, fps: Any) -> Node:
    return Node("CreateVideo", {"images": images, "audio": audio, "fps": fps, "bit_depth": 8}, width=360)


def save_video(prefix: str, height: float = 356) -> Node:
    """With room below for the clip that it shows after a run."""
    how = {"format": "mp4", "format.codec": "h264", "format.codec.encoding": "auto"}
    return Node(
        "SaveVideo", {"video": ("video", 0), "filename_prefix": prefix, **how}, width=360, height=height, stretch=True
    )
