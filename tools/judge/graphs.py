"""The graph of one clip and of its reading."""

from argparse import Namespace

from tools.judge.scenes import CFG, DISTILLED, FPS, NEGATIVE, SIZE, STEPS, TINY_SIZE, Scene
from tools.routes.comfyui import BuiltGraph, image_to_video_audio


def size_of(chosen: Namespace) -> dict[str, int]:
    """Width, height and frames."""
    standard = SIZE if chosen.model else TINY_SIZE
    return {name: getattr(chosen, name) or value for name, value in standard.items()}


def steps_of(chosen: Namespace, level: str) -> int:
    """Steps of the picture."""
    return STEPS[level] if level == "max" else chosen.steps or STEPS[level]


def graph(scene: Scene, level: str, folder: str, chosen: Namespace, heard: str | None) -> BuiltGraph:
    """The clip and its reading, API format; the sampler is the node "sample"."""
    size, steps = size_of(chosen), steps_of(chosen, level)
    clip = {"prompt": scene.prompt, "negative": NEGATIVE, "fps": FPS, "cfg": CFG, "steps": steps, "seed": scene.seed}
    made = image_to_video_audio(folder, "judge.png", **clip, **size)
    if not scene.pictured:
        del made["image"], made["start"]["inputs"]["first_frame"]
    if level != "full":
        streams = {name: ["start", at] for at, name in enumerate(("positive", "negative", "latent"))}
        fast = {"model": ["load", 0], "teacher": ["load", 0], "seed": scene.seed, "steps": steps, "quality": level}
        made["sample"] = {"class_type": "MOVAFastSampler", "inputs": {**streams, **fast}}
    if level in DISTILLED:
        _distil(made, chosen)
    said = {"prompt": scene.prompt, **({} if heard is None else {"recognised": heard})}
    reading = {"images": ["decode", 0], "audio": ["decode", 1], "fps": ["decode", 2], **said}
    made["meter"] = {"class_type": "MOVAMeter", "inputs": reading}
    made["reading"] = {"class_type": "PreviewAny", "inputs": {"source": ["meter", 0]}}
    return made


def _distil(made: BuiltGraph, chosen: Namespace) -> None:
    """LoRAs before the fast sampler, one an expert."""
    strengths = ("", "_video", "_audio", "_audio_to_video", "_video_to_audio")
    before = ["load", 0]
    for expert, file in (("high", chosen.lora_high), ("low", chosen.lora_low)):
        values = {f"strength{part}": 1.0 for part in strengths}
        inputs = {"model": before, "lora_name": file.name, "expert": expert, **values}
        made[f"lora-{expert}"] = {"class_type": "MOVALoraLoader", "inputs": inputs}
        before = [f"lora-{expert}", 0]
    made["sample"]["inputs"]["model"] = before
