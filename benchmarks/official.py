"""The official pipeline's forward, as benchmarks/gpu.py measures ours. Needs its source, no checkpoint.

    python -m benchmarks.official --repo PATH [--size 360p|720p] [--resident] [--group] [--cap GIB]

PATH is a checkout of OpenMOSS/MOVA; diffusers, transformers, einops and accelerate must be installed. One video expert,
the audio tower and the bridge of the published size get random bf16 weights and run `MOVA.inference_single_step` as it
is, resident on the card without a cap, then under the cap with the group offloading that `--offload group` of its
scripts/inference_single.py asks for. A run that does not fit is a row saying so. Copied bytes are those of the weights,
each of which one forward takes to the device once; they are not counted on the way.

Modules that this forward does not enter are replaced by empty ones, so what they need may be missing: yunchang
(attention over several GPUs), ftfy (prompts), the registries, the audio VAE. The pipeline is made by its own
constructor, without VAEs, text encoder and second expert. Its attention is what the official code finds installed, else
torch's. `--warm-frames` lets a short clip do the compiling where a full forward takes minutes.

`--tiny --device cpu` runs small towers in float32, offloading without streams. With `--resident` it also compares the
velocities with mova_core's on the same weights: times of two different computations would not be comparable.
"""

import argparse
import dataclasses
import importlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from mova_core.checkpoint.load import assign
from mova_core.config import MOVA, MovaConfig
from mova_core.estimate import Workload, work
from mova_core.model.mova import Mova
from mova_core.shapes import DEFAULT_FPS, VideoShape
from tests.fixtures.published_configs import bridge_config, tower_config

from .against import SIZES
from .gpu import GIB, HEADING, Measured, synchronize
from .official_pipeline import from_file
from .peak import FRAMES, SIZE_360P, SIZE_720P, Clip

CLIPS = {"360p": SIZE_360P, "720p": SIZE_720P}
UNUSED = ("ftfy", "mova.diffusion.models.dac_vae", "mova.registry", "yunchang", "yunchang.kernels")


def load(repo: Path) -> Any:
    """The module of the official pipeline. Its package is left aside: that imports the training code too."""
    importlib.import_module("diffusers.pipelines")  # before the empty modules: it asks which packages are installed
    sys.path.insert(0, str(repo))
    sys.modules.update({name: MagicMock(name=name) for name in UNUSED})
    return from_file(repo, "mova/diffusion/pipelines/pipeline_mova.py")


def pipeline(official: Any, config: MovaConfig, made_on: torch.device, home: torch.device, dtype: torch.dtype) -> Any:
    """The official pipeline with random weights in `home`: described on meta, each made on `made_on`."""
    audio_config = tower_config("WanAudioModel", config.audio) | {"vae_type": "dac"}
    with torch.device("meta"):
        parts = {
            "video_dit": official.WanModel.from_config(tower_config("WanModel", config.video)),
            "audio_dit": official.WanAudioModel.from_config(audio_config),
            "dual_tower_bridge": official.DualTowerConditionalBridge.from_config(bridge_config(config)),
        }
    video, audio, joint = parts.values()
    video.freqs = sys.modules[type(video).__module__].precompute_freqs_cis_3d(config.video.head_width)
    audio.freqs = sys.modules[type(audio).__module__].precompute_freqs_cis_1d(config.audio.head_width)
    joint.rotary = type(joint.rotary)(base=joint.rotary.base, dim=joint.rotary.dim).to(home)
    make = torch.Generator(device=made_on).manual_seed(0)
    for part in parts.values():
        fill(part.requires_grad_(False).eval(), make, home, dtype)
    vae = MagicMock(hop_length=960, sample_rate=48000)
    vae.config.scale_factor_spatial, vae.config.scale_factor_temporal = 8, 4
    absent = dict.fromkeys(("text_encoder", "tokenizer", "scheduler", "video_dit_2"))
    return official.MOVA(video_vae=vae, audio_vae=vae, **absent, **parts)


def fill(model: nn.Module, make: torch.Generator, home: torch.device, dtype: torch.dtype) -> None:
    """Random weights like trained ones in scale, norms about 1."""
    for module in model.modules():
        for name, meta in module.named_parameters(recurse=False):
            values = torch.randn(meta.shape, generator=make, device=make.device, dtype=dtype) * 0.02
            if "norm" in name or isinstance(module, nn.LayerNorm | nn.RMSNorm):
                values += 1
            setattr(module, name, nn.Parameter(values.to(home), requires_grad=False))


def random_inputs(clip: Clip, config: MovaConfig, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of `Mova.forward`, as benchmarks/gpu.py draws them."""
    torch.manual_seed(0)
    empty = clip.inputs(config, dtype)
    drawn = {name: torch.randn(meta.shape, device=device).to(meta.dtype) for name, meta in empty.items()}
    return {name: x.abs() * 500 if x.ndim == 1 else x for name, x in drawn.items()}  # timesteps are 0..1000


def forward(pipe: Any, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """One evaluation of both towers, as the official sampling loop asks for it."""
    result: tuple[Tensor, Tensor] = pipe.inference_single_step(
        visual_dit=pipe.video_dit,
        visual_latents=torch.cat([given["video_latents"], given["condition"]], dim=1),
        audio_latents=given["audio_latents"],
        context=given["context"],
        timestep=given["video_timestep"],
        audio_timestep=given["audio_timestep"],
        video_fps=DEFAULT_FPS,
    )
    return result


def difference(pipe: Any, config: MovaConfig, clip: Clip, device: torch.device, dtype: torch.dtype) -> float:
    """Relative difference of the official velocities from mova_core's, the larger of the two."""
    weights = dict(pipe.video_dit.state_dict())
    for part in ("audio_dit", "dual_tower_bridge"):
        weights |= {f"{part}.{name}": tensor for name, tensor in getattr(pipe, part).state_dict().items()}
    model = Mova(config, device="meta", dtype=dtype)
    assign(model, weights, "the official pipeline")
    given = random_inputs(clip, config, device, dtype)
    pairs = zip(model(**given, fps=DEFAULT_FPS), forward(pipe, given), strict=True)
    return max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)


def measure(
    name: str, pipe: Any, config: MovaConfig, clip: Clip, device: torch.device, *, rounds: int, warm: int, copied: int
) -> Measured:
    """The median forward of `rounds`, after one of `warm` frames; memory as benchmarks/gpu.py counts it."""
    dtype = pipe.video_dit.dtype
    given = random_inputs(clip, config, device, dtype)
    forward(pipe, random_inputs(dataclasses.replace(clip, frames=warm), config, device, dtype))
    before = 0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    taken = []
    for _ in range(rounds):
        synchronize(device)
        begun = time.perf_counter()
        velocities = forward(pipe, given)
        synchronize(device)
        taken.append(time.perf_counter() - begun)
        if not all(torch.isfinite(velocity).all() for velocity in velocities):
            raise RuntimeError(f"{name}: a velocity is not finite")
        del velocities
    seconds = statistics.median(taken)
    shape = Workload.of(VideoShape(batch=clip.batch, frames=clip.frames, height=clip.height, width=clip.width))
    cuda = device.type == "cuda"
    return Measured(
        name=name,
        seconds=seconds,
        tflops=work(config, shape).total / seconds / 1e12,
        live=torch.cuda.max_memory_allocated(device) - before if cuda else 0,
        reserved=torch.cuda.max_memory_reserved(device) if cuda else 0,
        predicted=None,
        copied=copied,
    )


def offload(pipe: Any, device: torch.device, cap: float) -> int:
    """Bind the allocator to `cap` GiB, leave the weights on the host, and return their bytes."""
    pipe.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap * GIB / total), device)
    pipe.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=device.type == "cuda",
        low_cpu_mem_usage=True,
    )
    return sum(p.nbytes for part in pipe.components.values() if isinstance(part, nn.Module) for p in part.parameters())


def rows(
    pipe: Any, config: MovaConfig, clips: Sequence[Clip], device: torch.device, given: argparse.Namespace
) -> Iterator[str]:
    """A row of the table for each mode and clip; the resident ones first, as offloading cannot be undone."""
    for mode in [name for name in ("resident", "group") if getattr(given, name)]:
        copied = offload(pipe, device, given.cap) if mode == "group" else 0
        under = f"group offload, cap {given.cap:g} GiB" if mode == "group" else "resident"
        for clip in clips:
            name = f"official, {clip.height}x{clip.width}, {under}"
            warm = given.warm_frames or clip.frames
            try:
                row = measure(name, pipe, config, clip, device, rounds=given.rounds, warm=warm, copied=copied).row()
            except torch.OutOfMemoryError as error:
                row = f"| {name} | {str(error).split('. GPU')[0]} | | | | | |"
            yield row


def attention() -> str:
    """What the official code chose; it asks in this order."""
    chosen = vars(sys.modules["mova.diffusion.models.wan_video_dit"])
    flags = {"flash-attn 3": "FLASH_ATTN_3_AVAILABLE", "flash-attn 2": "FLASH_ATTN_2_AVAILABLE"}
    flags["SageAttention"] = "SAGE_ATTN_AVAILABLE"
    return next((name for name, flag in flags.items() if chosen[flag]), "torch's attention")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="checkout of OpenMOSS/MOVA")
    parser.add_argument("--cap", type=float, default=24.0, help="GiB that torch may take while offloading")
    parser.add_argument("--size", choices=sorted(CLIPS), action="append", help="default: both")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--warm-frames", type=int, help="frames of the clip that warms up; default: the same")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--resident", action="store_true", help="weights on the device, no cap")
    parser.add_argument("--group", action="store_true", help="diffusers' group offloading under the cap")
    parser.add_argument("--tiny", action="store_true", help="small towers and clip, compared with mova_core")
    parser.add_argument("--device", default="cuda")
    chosen = parser.parse_args(given)
    if not (chosen.resident or chosen.group):
        parser.error("nothing to measure: give --resident, --group or both")
    return chosen


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return 1
    official = load(chosen.repo)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = SIZES if chosen.tiny else MOVA
    sides = [(64, 96)] if chosen.tiny else [CLIPS[size] for size in chosen.size or CLIPS]
    clips = [Clip(height=h, width=w, frames=9 if chosen.tiny else chosen.frames) for h, w in sides]
    home = device if chosen.resident else torch.device("cpu")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    with torch.no_grad():
        pipe = pipeline(official, config, device, home, dtype)
        diffusers = importlib.import_module("diffusers").__version__
        print(f"{card}, torch {torch.__version__}, diffusers {diffusers}, {attention()}\n")
        if chosen.tiny and chosen.resident:
            apart = difference(pipe, config, clips[0], device, dtype)
            print(f"velocities differ from mova_core's by {apart:.1e} (relative, {dtype})\n")
        print(HEADING)
        for row in rows(pipe, config, clips, device, chosen):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
