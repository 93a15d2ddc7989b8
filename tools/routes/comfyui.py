"""The demo's clip through a real ComfyUI: the image-to-video-audio graph, a progress bar, and the file it saved."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.comfy.events import Event, ServerError
from tools.comfy.find import REPOSITORY
from tools.comfy.server import ComfyServer
from tools.routes.progress import Bar

DAY = 24 * 3600
WORK = {
    "MOVALoader": "loading",
    "MOVATextEncode": "reading the prompt",
    "MOVAImageToVideoAudio": "encoding the first frame",
    "MOVASampler": "denoising",
    "MOVADecode": "decoding",
    "SaveVideo": "saving",
}
BuiltGraph = dict[str, dict[str, Any]]


def image_to_video_audio(
    folder: str,
    image: str,
    *,
    prompt: str,
    negative: str,
    width: int,
    height: int,
    frames: int,
    fps: float,
    steps: int,
    cfg: float,
    seed: int,
) -> BuiltGraph:
    """The graph, API format."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    size = {"width": width, "height": height, "frames": frames, "fps": fps, "batch_size": 1}
    schedule = {"steps": steps, "cfg": cfg, "shift": 5.0, "audio_shift": 5.0, "sampler": "euler", "scheduler": "mova"}
    encoded = {"positive": ["text", 0], "negative": ["text", 1]}
    begun = {"positive": ["start", 0], "negative": ["start", 1], "latent": ["start", 2]}
    return {
        "image": node("LoadImage", image=image),
        "load": node("MOVALoader", folder=folder, weight_dtype="default"),
        "text": node("MOVATextEncode", clip=["load", 1], prompt=prompt, negative_prompt=negative),
        "start": node("MOVAImageToVideoAudio", **encoded, vae=["load", 2], first_frame=["image", 0], **size),
        "sample": node("MOVASampler", model=["load", 0], **begun, seed=seed, denoise=1.0, **schedule),
        "decode": node(
            "MOVADecode", latent=["sample", 0], vae=["load", 2], audio_vae=["load", 3], tile_size=0, overlap=64
        ),
        "video": node("CreateVideo", images=["decode", 0], audio=["decode", 1], fps=["decode", 2]),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="mova", format="mp4", codec="h264"),
    }


def has_accelerator() -> bool:
    """Is there a GPU that ComfyUI would use?"""
    import torch

    return bool(torch.accelerator.is_available())


def run(comfyui: Path, model: Path, image: Path, out: Path, *, cpu: bool, bar: Bar, **settings: Any) -> Path:
    """Run the graph in a ComfyUI of its own and put its MP4 at `out`.

    Raises:
        ServerError: ComfyUI did not start, or the graph failed; its folder is kept then, and named.
    """
    base = Path(tempfile.mkdtemp(prefix="mova-demo-"))
    try:
        made = _run(base, comfyui, model, image, out, cpu=cpu, bar=bar, **settings)
    except (KeyboardInterrupt, OSError):  # a failure of ComfyUI leaves its log
        shutil.rmtree(base, ignore_errors=True)
        raise
    shutil.rmtree(base, ignore_errors=True)
    return made


def _run(
    base: Path, comfyui: Path, model: Path, image: Path, out: Path, *, cpu: bool, bar: Bar, **settings: Any
) -> Path:
    paths = base / "extra_model_paths.yaml"
    paths.write_text(json.dumps({"mova_demo": {"base_path": str(model.parent), "diffusers": "."}}))
    arguments = ("--extra-model-paths-config", str(paths))
    bar.show("starting ComfyUI")
    with ComfyServer(base, pack=REPOSITORY, comfyui=comfyui, cpu=cpu, arguments=arguments) as server:
        shutil.copyfile(image, server.input / "first_frame.png")
        graph = image_to_video_audio(model.name, "first_frame.png", **settings)
        result = server.wait(server.queue(graph), timeout=DAY, watch=follow(graph, bar))
        bar.end()
        if result.status != "success":
            raise ServerError(f"ComfyUI ended with {result.status}: {result.message}\nits log is {server.log_path}")
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(next(file for file in result.files if file.suffix == ".mp4"), out)
    return out


def follow(graph: BuiltGraph, bar: Bar) -> Callable[[Event], None]:
    """Show the events of a running prompt on `bar`."""

    def watch(event: Event) -> None:
        work = WORK.get(graph.get(str(event.data.get("node")), {}).get("class_type", ""))
        if work and event.kind == "executing":
            bar.show(work)
        elif work and event.kind == "progress":
            bar.show(work, event.data["value"], event.data["max"])

    return watch
