"""Workflow files as API graphs, at sizes that a CPU runs in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.templates.library import TEMPLATES
from tools.templates.workflows import workflow_file

Graph = dict[str, dict[str, Any]]
Workflow = dict[str, Any]

NAMES = list(TEMPLATES)
FILMS = ("mova_film", "mova_film_voice")  # many clips and one film
CLIPS = [name for name in NAMES if name not in ("mova_check_install", "mova_train_lora", *FILMS)]  # those of one clip
MODEL = "MOVA-360p"  # the folder that the workflows name
NOT_SENT = {"control_after_generate", "upload"}  # widgets of the page alone
NOT_RUN = {"MarkdownNote", "Note"}

FRAMES, FPS, STEPS, CHANGE = 9, 24, 4, 2
SIZE = (80, 64)  # LatentUpscale makes no side shorter than 64
PROMPT = 'A bell on a table rings and a voice says "Good morning." The audio shows a clear small bell.'
SMALL: Mapping[str, Any] = {
    "width": SIZE[0],
    "height": SIZE[1],
    "frames": FRAMES,
    "amount": FRAMES,
    "steps": STEPS,
    "prompt": PROMPT,
    "image": "first_frame.png",
    "audio": "sound.mp4",
    "file": "clip.mp4",
    "overlap": 5,
    "positions": "0, 4",
}


def read(name: str) -> Workflow:
    """A workflow by its key in tools.templates.library.TEMPLATES."""
    return json.loads(workflow_file(name).read_text(encoding="utf-8"))


def api_graph(workflow: Workflow) -> Graph:
    """What the page would send to the server: widget values by name, links as (node, output)."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in NOT_RUN:
            continue
        inputs = {name: value for name, value in node.get("widgets_values_named", {}).items() if name not in NOT_SENT}
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def small(graph: Graph, **changes: Any) -> Graph:
    """A copy with SMALL in place of what it has by those names, then `changes`; linked inputs are left alone.

    The step at which two samplers meet becomes CHANGE. `seed` also sets a `noise_seed`.
    """
    values = {**SMALL, **changes}
    if "seed" in changes:
        values["noise_seed"] = changes["seed"]
    copy = json.loads(json.dumps(graph))
    for node in copy.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                continue
            if name in ("start_at_step", "end_at_step") and 0 < value < 10000:
                node["inputs"][name] = CHANGE
            elif name in values:
                node["inputs"][name] = values[name]
    return copy


def tiny_text(graph: Graph) -> Graph:
    """A copy whose text encoder is the tiny folder's: ComfyUI's own loader takes the size of UMT5-XXL for granted."""
    copy = json.loads(json.dumps(graph))
    for node, content in graph.items():
        if content["class_type"] == "CLIPLoader":
            copy[node] = {"class_type": "MOVALoader", "inputs": {"folder": MODEL, "weight_dtype": "default"}}
            slots = [(c["inputs"], name) for c in copy.values() for name, v in c["inputs"].items() if v == [node, 0]]
            for inputs, name in slots:
                inputs[name] = [node, 1]
    return copy


def node_of(graph: Graph, kind: str) -> str:
    """Id of the first node of a type."""
    return next(node for node, content in graph.items() if content["class_type"] == kind)


def write_inputs(folder: Path) -> None:
    """Every file that SMALL names, and the picture of the workflows as they are."""
    import torch

    from tools.routes.media import write_mp4

    for name in ("example.png", SMALL["image"]):  # the first is part of every ComfyUI
        write_first_frame(folder / name)
    seconds = torch.arange(48000 * FRAMES // FPS) / 48000
    tone = (0.3 * torch.sin(2 * torch.pi * 440 * seconds))[None]
    fading = torch.linspace(0, 1, FRAMES)[:, None, None, None].expand(FRAMES, SIZE[1], SIZE[0], 3)
    for name in (SMALL["audio"], SMALL["file"]):
        write_mp4(folder / name, fading, FPS, tone, 48000)


def write_first_frame(path: Path) -> Path:
    """The photograph of scikit-image (NASA's, in the public domain) where that is installed, else a grey gradient."""
    from PIL import Image

    try:
        from skimage import data
    except ImportError:
        picture = Image.radial_gradient("L").convert("RGB")
    else:
        picture = Image.fromarray(data.astronaut())
    picture.save(path)
    return path
