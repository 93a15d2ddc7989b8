"""How much memory a run may take, and which path it takes for that. One decision a run, before ComfyUI makes room.

A run is planned when ComfyUI prepares sampling (`plan`, a wrapper): the size of the latent, the options on the MODEL
and the device's memory give the rows of `mova_core.estimate`. They go into the run's own transformer options, where
`runtime` finds them, and to both experts, whose `memory_required` ComfyUI asks without options.
"""

import logging
import math
from collections.abc import Callable, Sequence

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ....mova_core.config import MovaConfig
from ....mova_core.estimate import (
    CHUNKED,
    FULL,
    ChunkSizes,
    Workload,
    activations,
    choose,
    kept_keys_values,
    required,
    sound_room,
)
from ....mova_core.model.mova import Mova
from ..keys import COPIES, Options, asking, run_options
from ..patching.devices import everyone
from ..types import Executor
from .sparse import whole_queries

log = logging.getLogger("mova")
MEMORY_MODES: dict[str, ChunkSizes | None] = {"auto": None, "normal": FULL, "low": CHUNKED}

KEPT_PRECISIONS: dict[str, bool | None] = {"auto": None, "model": False, "fp8": True}
"""Whether keys and values are kept in eight bits; None: where the model has sixteen."""


def with_mode(model: ModelPatcher, mode: str, kept_precision: str = "auto") -> ModelPatcher:
    """A clone of `model` that takes the named path, or for "auto" the one that fits; and keeps keys and values so."""
    changed, asked = model.clone(), {"chunks": MEMORY_MODES[mode], "eight_bits": KEPT_PRECISIONS[kept_precision]}
    options = changed.model_options
    options["transformer_options"] = asking(options.get("transformer_options", {}), **asked)
    return changed


def capacity(device: torch.device) -> float:
    """Bytes that a forward and its streamed weights may have there, once ComfyUI has moved its models away."""
    management = comfy.model_management
    held = sum(m.model_loaded_memory() for m in management.current_loaded_models if m.device == device and m.model)
    if management.is_device_cpu(device):
        held = 0  # models in host memory are not moved away
    return float(management.get_free_memory(device) + held - management.extra_reserved_memory())


def host_capacity() -> float:
    """Bytes of host memory that a run may have: what is free, and copies of weights that ComfyUI pinned there, which it
    gives back. Weights that it pinned where they lie are not counted: they stay."""
    management = comfy.model_management
    copies = management.TOTAL_PINNED_MEMORY - sum(management.PINNED_MEMORY.values())
    return float(management.get_free_memory(torch.device("cpu")) + max(0, copies))


def plan(
    executor: Executor,
    patcher: ModelPatcher,
    noise_shape: Sequence[int],
    conds: object,
    model_options: Options | None = None,
    **more: object,
) -> object:
    """PREPARE_SAMPLING: settle the rows of this run, then let ComfyUI load what it needs."""
    assert model_options is not None, "ComfyUI gives the run's own copy"
    options = model_options.setdefault("transformer_options", {})
    model = patcher.model
    load = model.load(noise_shape)
    rows = run_options(options).chunks
    if rows is None:
        room = min(capacity(each.load_device) for each in (patcher, *patcher.get_additional_models_with_key(COPIES)))
        rows = choose(model.sizes, load, room, model.layer_bytes, model.element, **kernels())
        options |= asking(options, chunks=rows)
        if rows is CHUNKED:
            normal, low = (activations(model.sizes, load, r, model.element) / 2**30 for r in (FULL, CHUNKED))
            log.info("low-memory path: %.1f GiB of activations instead of %.1f", low, normal)
    if (whole := whole_queries(rows, options)) is not rows:
        rows = whole
        options |= asking(options, chunks=rows)
    kept = kept_bytes(patcher, load, options)
    if kept:
        spare = max(0.0, capacity(patcher.load_device) - model.required(load, rows))
        options |= asking(options, keeping_room=spare, sound_room=model.sound_room(load, rows))
        kept = min(kept, spare)
    for expert in everyone(patcher):
        if hasattr(expert.model, "rows"):
            expert.model.rows, expert.model.kept = rows, kept
    with patcher.preparing():
        return executor(patcher, noise_shape, conds, model_options=model_options, **more)


def kept_bytes(patcher: ModelPatcher, load: Workload, options: Options) -> float:
    """What a run under these options keeps for the sound's own steps, wherever it lies."""
    keeping = run_options(options).keeping
    if keeping is None:
        return 0.0
    model = patcher.model
    compact = keeping.compact(model.get_dtype_inference(), patcher.load_device)
    element = 1 if compact else model.element
    return float(keeping.conditions * kept_keys_values(model.sizes, load, element))


def kernels() -> dict[str, bool]:
    """What the estimate must know of ComfyUI's kernels: sage attention makes 8-bit copies of what it is given."""
    return {"quantised": bool(comfy.model_management.sage_attention_enabled())}


class Planned:
    """Mixed into the BaseModel: what a run on it needs. `rows` and `kept` are those of the run last planned."""

    rows: ChunkSizes = FULL
    kept: float = 0.0  # bytes on the device that it keeps between its evaluations
    diffusion_model: Mova
    get_dtype_inference: Callable[[], torch.dtype]  # the BaseModel's

    @property
    def sizes(self) -> MovaConfig:
        return self.diffusion_model.sizes

    @property
    def element(self) -> int:
        """Bytes of a value of the hidden states."""
        return comfy.model_management.dtype_size(self.get_dtype_inference())

    @property
    def layer_bytes(self) -> int:
        """Weights of the first layer, which has everything: video block, audio block, both bridge directions."""
        modules = self.diffusion_model.layer_modules()[0]
        return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())

    def load(self, shape: Sequence[int]) -> Workload:
        """Of a packed latent (B, 1, N): nearly all of N is 16 channels of 4 positions a video token."""
        tower = self.sizes.video
        tokens = math.prod(shape[1:]) / (tower.out_channels * math.prod(tower.patch))
        return Workload(video=math.ceil(tokens), audio=0, batch=shape[0])

    def memory_required(self, input_shape: Sequence[int], cond_shapes: object = None, **newer: object) -> float:
        """Bytes that a forward on the path of this run needs beside weights that stay: activations, layers in flight.

        `newer`: what newer ComfyUIs say of the attention, `memory_efficient_attention` or `model_options`. The estimate
        knows the kernels that MOVA runs on by itself (`kernels`).
        """
        return self.required(self.load(input_shape), self.rows) + self.kept

    def required(self, load: Workload, rows: ChunkSizes) -> float:
        """The same of any load on any path, without what is kept."""
        return required(self.sizes, load, rows, self.layer_bytes, self.element, **kernels())

    def sound_room(self, load: Workload, rows: ChunkSizes) -> float:
        """What the sound's own steps leave of that for its weights."""
        return sound_room(self.sizes, load, rows, self.layer_bytes, self.element, **kernels())
