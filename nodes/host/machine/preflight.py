"""This machine and this MODEL in the terms of mova_core.preflight, and a short measurement of one block."""

import time
from dataclasses import replace

import comfy.model_management
import comfy.sd
import torch
from torch import nn

from ....mova_core.estimate import CHUNKED, FULL, Throughput, block_work, fit_throughput
from ....mova_core.model.tower import Block
from ....mova_core.ops import cast
from ....mova_core.preflight import ClipPlan, Disk, Machine, report
from ....mova_core.shapes import latent_frames
from ....mova_core.text import CONTEXT_ROWS
from ..checks import frame_rate
from ..joint_latents import video_shape
from ..keys import run_options
from ..model import memory, sparse
from ..model.base_model import check_model
from ..model.bridge_cache import Keeping
from ..model.runtime import runtime
from ..patching.patcher import MovaPatcher
from ..types import Latent

ENOUGH = 0.03  # seconds of one pass that a clock can be trusted with
FEWEST_TOKENS, MOST_TOKENS = 256, 16384  # tokens of a measured pass
ROUNDS = 3
SAMPLE = 2**28  # bytes copied to measure the link


def preflight(
    model: MovaPatcher, latent: Latent, vae: comfy.sd.VAE | None, steps: int, cfg: float, measure: bool, disk: Disk
) -> str:
    """The report for sampling `latent` with `model`, and decoding it with `vae`.

    Raises:
        ShapeError: the MODEL is not MOVA, or the LATENT not a joint one.
    """
    check_model(model)
    base, shape, options = model.model, video_shape(latent), model.model_options.get("transformer_options", {})
    capacity = memory.capacity(model.load_device)
    eight_bits = Keeping(eight_bits=run_options(options).eight_bits).compact(
        base.get_dtype_inference(), model.load_device
    )
    plan = ClipPlan(
        config=base.sizes,
        shape=shape,
        fps=frame_rate(latent),
        audio_grid=base.latent_format.audio_grid,
        steps=steps,
        evaluations=1 if cfg == 1 else 2,
        weights=sum(p.numel() * p.element_size() for p in base.diffusion_model.parameters()),
        layer=base.layer_bytes,
        element=base.element,
        rows=sparse.whole_queries(run_options(options).chunks or FULL, options),
        attended=sparse.attended(run_options(options).sparse, latent_frames(shape.frames)),
        untold=sparse.is_comfys(options),
        kept_element=1 if eight_bits else base.element,
        **memory.kernels(),
    )
    if run_options(options).chunks is None and plan.required > capacity:
        plan = replace(plan, rows=sparse.whole_queries(CHUNKED, options))
    machine = Machine(
        device=comfy.model_management.get_torch_device_name(model.load_device),
        capacity=capacity,
        memory=memory.host_capacity(),
        link=link_rate(model.load_device) if measure else None,
    )
    decode = None
    if isinstance(vae, comfy.sd.VAE):  # one of another kind may not tell
        samples = latent["samples"].unbind()[0]
        decode = float(vae.memory_used_decode(samples.shape, vae.vae_dtype))
    return report(plan, machine, measured_speed(model, plan.load.video) if measure else None, decode, disk)


def measured_speed(model: MovaPatcher, tokens: int) -> Throughput:
    """Of one block of the video tower with random weights, at two lengths that this device takes a moment for."""
    base, device = model.model, model.load_device
    comfy.model_management.free_memory(base.layer_bytes + 2**30, device)
    block = Block(  # of plain layers: ComfyUI's have no weights under dynamic VRAM before a file is loaded into them
        base.sizes.video, "video", ops=cast, device=device, dtype=base.get_dtype_inference()
    ).requires_grad_(False)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)
    few = min(FEWEST_TOKENS, tokens)
    seconds = block_seconds(block, model, few)
    while seconds < ENOUGH and 2 * few <= min(MOST_TOKENS, tokens):
        few *= 2
        seconds = block_seconds(block, model, few)
    passes = [(few, seconds), (2 * few, block_seconds(block, model, 2 * few))]
    return fit_throughput(*((block_work(base.sizes.video, count), taken) for count, taken in passes))


def block_seconds(block: Block, model: MovaPatcher, tokens: int) -> float:
    """The shortest of a few passes over `tokens` tokens, after one that warms up."""
    sizes, device, dtype = model.model.sizes.video, model.load_device, model.model.get_dtype_inference()
    make = torch.Generator(device=device).manual_seed(0)
    x = torch.randn(1, tokens, sizes.width, generator=make, device=device, dtype=dtype)
    context = torch.randn(1, CONTEXT_ROWS, sizes.width, generator=make, device=device, dtype=dtype)
    time_embedding = torch.zeros(1, 6, sizes.width, device=device)
    options = model.model_options.get("transformer_options", {})
    run = runtime(dict(sparse.beside_video(options)), context, 1.0)  # ComfyUI's sparse attention begins at some length
    angles = torch.zeros(tokens, sizes.head_width // 2, device=device)
    rope = run.rotary.table(angles.cos(), angles.sin())
    taken = []
    for _ in range(1 + ROUNDS):
        comfy.model_management.synchronize()
        begun = time.perf_counter()
        block(x.clone(), time_embedding, rope, context, run)
        comfy.model_management.synchronize()
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def link_rate(device: torch.device) -> float | None:
    """Bytes a second from pinned host memory to a CUDA device; None for others."""
    if not comfy.model_management.is_device_cuda(device):
        return None
    source = torch.empty(SAMPLE, dtype=torch.uint8, pin_memory=True)
    taken = []
    for _ in range(1 + ROUNDS):
        comfy.model_management.synchronize()
        begun = time.perf_counter()
        source.to(device, non_blocking=True)
        comfy.model_management.synchronize()
        taken.append(time.perf_counter() - begun)
    return SAMPLE / min(taken[1:])
