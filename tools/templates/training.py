"""Templates of training: a LoRA from a folder of clips, and several strengths of it side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.templates.basics import LORAS
from tools.templates.parts import (
    GET_MODEL,
    LORA_PAGE,
    SCENE,
    START,
    clip_graph,
    create_video,
    decode,
    file_properties,
    loader,
    sampler,
)
from tools.templates.template import Area, Card, Node, Template

FOLDER = "my_clips"  # in ComfyUI's input folder


def train_lora() -> Template:
    """Folder, data set, budget, training, losses."""
    coders = {"clip": ("loader", 1), "vae": ("loader", 2), "audio_vae": ("loader", 3)}
    size = {"width": 640, "height": 352, "frames": 49, "sizes": "crop", "cut": "windows"}
    ask = {"model": ("loader", 0), "clips": ("clips", 0), "steps": 1000, "rank": 16}
    nodes = {
        "loader": loader(),
        "clips": Node("MOVATrainingClips", {**coders, "folder": FOLDER, **size, "preview_clips": 4}, width=360),
        "sheet": Node("PreviewImage", {"images": ("clips", 1)}, width=360, height=200, stretch=True),
        "sound": Node("PreviewAudio", {"audio": ("clips", 2)}, width=360),
        "budget": Node("MOVATrainingBudget", ask, width=360, room=160),
        "train": Node("MOVATrainLora", {**ask, "name": "my_lora"}, width=360, room=160),
        "losses": Node(
            "LossGraphNode", {"loss": ("train", 1), "filename_prefix": "loss"}, width=360, height=260, stretch=True
        ),
    }
    columns = [
        START,
        [Area("Clips with captions", [["clips", "sheet", "sound"]])],
        [Area("What it takes", [["budget"]])],
        [Area("Training", [["train", "losses"]])],
    ]
    note = f"""# Train a LoRA

Put clips into `input/{FOLDER}`, a .txt with the caption beside each. Look and listen before it begins. Cancel when \
you like; it goes on where it stopped.

{GET_MODEL}

**A face or a voice** belongs to a person: train on it with consent only.

**Try** *parts* sound and bridge, *audio_weight* 1 and 97 pictures for a voice; 97 pictures, more steps for a face."""
    return Template(nodes, columns, note, card=Card(("drafts", "words"), "file", "LoRA"), note_height=560)


def try_lora() -> Template:
    """The same seed without it, at half and full strength, and in the low-noise expert alone."""
    parts = {f"strength_{part}": 1.0 for part in ("video", "audio", "audio_to_video", "video_to_audio")}
    properties = file_properties(LORAS["low"], LORA_PAGE, "loras")

    def lora(expert: str, strength: float) -> Node:
        chosen = {"lora_name": LORAS["low"], "expert": expert, "strength": strength, **parts}
        return Node("MOVALoraLoader", {"model": ("loader", 0), **chosen}, width=340, height=240, properties=properties)

    def beside(one: str, other: str, direction: str) -> Node:
        given = {"image1": (one, 0), "image2": (other, 0), "direction": direction, "match_image_size": True}
        return Node("ImageStitch", {**given, "spacing_width": 0, "spacing_color": "white"}, width=300)

    chosen = {"half": lora("auto", 0.5), "full": lora("auto", 1.0), "late": lora("low", 1.0)}
    made = {
        f"{name}_{kind}": make
        for name in chosen
        for kind, make in (("sampler", sampler(model=(name, 0), steps=25)), ("decode", decode(f"{name}_sampler")))
    }
    tiles = {
        "top": beside("decode", "half_decode", "right"),
        "bottom": beside("full_decode", "late_decode", "right"),
        "all": beside("top", "bottom", "down"),
        "video": create_video(("all", 0), ("full_decode", 1), ("full_decode", 2)),
    }
    columns = [
        START,
        SCENE,
        [Area("Your LoRA", [["half", "full", "late"]])],
        [Area("Size and sampling", [["conditions", "sampler"], ["half_sampler", "full_sampler", "late_sampler"]])],
        [Area("Decode", [["decode", "half_decode", "full_decode", "late_decode"]])],
        [Area("Side by side", [["top", "bottom", "all"]])],
        [Area("Save", [["video", "save"]])],
    ]
    return clip_graph(
        prefix="MOVA_try_LoRA",
        nodes={**chosen, **made, **tiles},
        inputs={"sampler": {"steps": 25}, "conditions": {"frames": 97}},
        columns=columns,
        card=Card(("file", "words"), "drafts", "4"),
        note=f"""# Try a LoRA, four times side by side

Top: without it, at half strength. Below: at full strength, and in the low-noise expert alone. One seed; the sound is \
that of full strength.

{GET_MODEL}

**LoRA.** Choose your own in all three loaders: these name a file of Wan 2.2.

**Try** the prompt with and without your calling word.""",
        note_height=540,
    )


TRAINING_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_train_lora": train_lora, "mova_try_lora": try_lora}
