"""ComfyUI's transformer_options -> how mova_core runs one forward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_prefetch
import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor, ck
from torch import Tensor, nn

from ...mova_core.estimate import NORMAL
from ...mova_core.ops import ROWS, LayerCall, Runtime, row_slices
from ...mova_core.sampling.bridge_strength import strengths_at
from .memory import asked_rows

Options = dict[str, Any]
AUDIO_SIGMA = "mova_audio_sigma"  # option: the audio's sigma, where no shift ties it to the video's
HEARING = "mova_hearing"  # option: what the audio tower heard of the video, kept or asked for (`hearing.py`)
BRIDGE = "mova_bridge"  # option: list of BridgeStrength, which multiply


class KitchenRotary:
    """ComfyUI's fused rotary kernel, on its (1, L, 1, K/2, 2, 2) table."""

    def table(self, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))[None, :, None]

    def rotate(self, x: Tensor, table: Tensor, start: int) -> Tensor:
        """In place, a few thousand tokens at a time: where the kernel is plain torch, it takes float32 copies of all."""
        for sample in x.split(1):
            for rows in row_slices(x.shape[1], ROWS):
                ck.apply_rope1_(sample[:, rows], table[:, start + rows.start : start + rows.stop])
        return x


class Layers:
    """Which layer runs, and what the host's patches want done to it."""

    def __init__(self, options: Options, context: Tensor) -> None:
        self.options, self.context = options, context
        self.replace = options.get("patches_replace", {}).get("dit", {})
        self.after = options.get("patches", {}).get("double_block", [])
        self.index = self.asked = 0

    def __call__(self, index: int, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        self.index, self.asked = index, 0
        self.options["block_index"] = index
        patch = self.replace.get(("double_block", index))
        if patch is None:
            video, audio = layer(video, audio)
        else:
            video, audio = self._replaced(patch, layer, video, audio)
        for function in self.after:
            state = {"img": video, "x": video, "vec": None, "block_index": index, "img_offset": 0}
            video = function({**state, "transformer_options": self.options})["img"]
        return video, audio

    def _replaced(self, patch: Any, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """A patch sees the video stream, as in Wan; the sound follows if and when it runs the original block."""
        sound = [audio]

        def original(args: Options) -> Options:
            picture, sound[0] = layer(args["img"], sound[0])
            return {"img": picture}

        state = {"img": video, "txt": self.context, "vec": None, "pe": None, "transformer_options": self.options}
        return patch(state, {"original_block": original})["img"], sound[0]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, site: str) -> Tensor:
        options = self.options
        if site == "video.self" and self.index in options.get("stg_self_attn_blocks", ()):
            self.asked += q.shape[1]  # queries may come a chunk at a time; each token's value answers it
            return v[:, self.asked - q.shape[1] : self.asked]
        exact = not site.endswith(".self")  # 512 and some hundred keys: a quantised kernel gains nothing there
        chosen = comfy.ldm.modules.attention.optimized_attention  # looked up late, flags and tests may change it
        kwargs = {"low_precision_attention": False} if exact else {}
        out = chosen(q, k, v, heads=heads, transformer_options=options, **kwargs)
        if site == "video.self":
            for function in options.get("patches", {}).get("attn1_output_patch", []):
                out = function(out, {**options, "n_heads": heads, "dim_head": q.shape[-1] // heads})
        return out


@contextmanager
def held(layer: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Weights of `layer` that lie elsewhere, on `device`: brought and patched once, however many chunks use them.

    ComfyUI's layers would do that for every call. The copy runs beside the computation where the device can do that.
    """
    modules = list({id(m): m for root in layer for m in root.modules() if hasattr(m, "comfy_cast_weights")}.values())
    dynamic = [module for module in modules if hasattr(module, "_v")]
    plain = [module for module in modules if not hasattr(module, "_v")]
    with brought(layer[0], dynamic, device), patched(dynamic, device), copied(plain, device):
        yield


@contextmanager
def brought(layer: nn.Module, modules: list[Any], device: torch.device) -> Iterator[None]:
    """Weights under dynamic VRAM that no queue has brought."""
    missing = [module for module in modules if not hasattr(module, "_prefetch")]
    if missing:
        fast = comfy.model_management.device_supports_non_blocking(device)
        stream = comfy.ops.cast_modules_with_vbar(missing, None, device, None, fast)
        comfy.model_management.sync_stream(device, stream)
    try:
        yield
    finally:
        comfy.model_prefetch.cleanup_prefetched_modules(layer, missing)


@contextmanager
def patched(modules: list[Any], device: torch.device) -> Iterator[None]:
    """Weights under dynamic VRAM that have no place of their own on `device`, patched for every call of their layers.

    ComfyUI patches such a weight in place at each call: right for the first chunk of rows only.
    """
    done = [module for module in modules if needs_patching(module)]
    for module in done:
        weight, bias = module._prefetch["cast_geometry"]
        module._v_weight, module._v_bias = comfy.ops.resolve_cast_module_with_vbar(
            module, weight.dtype, device, None if bias is None else bias.dtype, None, False
        )
        module._prefetch["resident"] = True
    try:
        yield
    finally:
        for module in done:
            module._v_weight = module._v_bias = None


def needs_patching(module: Any) -> bool:
    """Whether ComfyUI would patch this weight in its transfer buffer; quantised ones it patches in a copy."""
    names = ("weight", "bias")
    patches, others = (
        [getattr(module, f"{n}_{kind}", None) for n in names] for kind in ("lowvram_function", "function")
    )
    if module._prefetch["signature"] is not None or not any(patches) or any(others):
        return False
    return not isinstance(module._prefetch["cast_geometry"][0], QuantizedTensor)


@contextmanager
def copied(modules: list[Any], device: torch.device) -> Iterator[None]:
    """Weights that ComfyUI left in host memory for want of room, without dynamic VRAM."""
    management = comfy.model_management
    parameters = [(m, n, p) for m in modules for n, p in m.named_parameters(recurse=False)]
    # Quantised weights are left to ComfyUI's layers: they are no single storage, and small.
    away = [(m, n, p) for m, n, p in parameters if p.device != device and not isinstance(p, QuantizedTensor)]
    stream = management.get_offload_stream(device) if away else None
    fast = management.device_supports_non_blocking(device)
    for module, name, parameter in away:
        copy = management.cast_to(parameter, None, device, non_blocking=fast, stream=stream)
        if stream is not None:
            copy.record_stream(management.current_stream(device))
        setattr(module, name, nn.Parameter(copy, requires_grad=False))
    management.sync_stream(device, stream)
    try:
        yield
    finally:
        for module, name, parameter in away:
            setattr(module, name, parameter)


def prefetch(device: torch.device, options: Options) -> Callable[[Sequence[Sequence[nn.Module]]], Iterator[None]]:
    """Each layer's weights, once: ahead of time by ComfyUI's prefetch queue where it has one, an entry a layer."""

    def step(layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
        pop, make = comfy.model_prefetch.prefetch_queue_pop, comfy.model_prefetch.make_prefetch_queue
        queue = make([list(layer) for layer in layers], device, options)
        for layer in layers:
            pop(queue, device, layer[0])
            with held(layer, device):
                yield
        if queue is not None:
            pop(queue, device, None)
        yield

    return step


def bridge_strengths(options: Options, shift: float) -> tuple[float, float]:
    """Audio-to-video and video-to-audio strength of one forward; the flags are those of core's AV models and nodes."""
    entries = options.get(BRIDGE)
    strengths = strengths_at(entries, float(options["sigmas"][0]), shift) if entries else (1.0, 1.0)
    flags = options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True)
    return strengths[0] if flags[0] else 0.0, strengths[1] if flags[1] else 0.0


def runtime(options: Options, context: Tensor, shift: float) -> Runtime:
    """The Runtime of one forward under `options`.

    `context` is what block patches see as text; `shift` is the video schedule's, to place the forward in it.
    """
    layers = Layers(options, context)
    rope = options.get("rope_options") or {}
    axes = ("t", "y", "x")
    into_video, into_audio = bridge_strengths(options, shift)
    rows = asked_rows(options) or NORMAL
    return Runtime(
        attention=layers.attention,
        rotary=KitchenRotary(),
        prefetch=prefetch(context.device, options),
        layer=layers,
        ffn_rows=rows.feed_forward,
        query_rows=rows.queries,
        audio_to_video=into_video,
        video_to_audio=into_audio,
        rope_scale=tuple(rope.get(f"scale_{axis}", 1.0) for axis in axes),
        rope_shift=tuple(rope.get(f"shift_{axis}", 0.0) for axis in axes),
    )
