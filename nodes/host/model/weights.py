"""A layer's weights where it computes, for as long as it computes, however many chunks of rows use them.

resident      all of it
faulted       under dynamic VRAM: pages that no prefetch queue has brought
with_patches  under dynamic VRAM: LoRAs on weights without a place of their own on the device
placed        under dynamic VRAM: weights that somebody else has made
staged        without dynamic VRAM: copies of what ComfyUI left in host memory
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import comfy.model_management
import comfy.model_prefetch
import comfy.ops
import torch
from comfy.ops import CastWeightBiasOp
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

WeightAndBias: TypeAlias = tuple[Tensor, Tensor | None]
"""A layer's weight and bias."""


@contextmanager
def resident(layer: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Weights of `layer` that lie elsewhere, on `device`: brought and patched once, however many chunks use them.

    ComfyUI's layers would do that for every call. The copy runs beside the computation where the device can do that.
    """
    modules: list[CastWeightBiasOp] = list(
        {id(m): m for root in layer for m in root.modules() if hasattr(m, "comfy_cast_weights")}.values()
    )
    dynamic = [module for module in modules if hasattr(module, "_v")]
    plain = [module for module in modules if not hasattr(module, "_v")]
    with faulted(layer[0], dynamic, device), with_patches(dynamic, device), staged(plain, device):
        yield


@contextmanager
def faulted(layer: nn.Module, modules: list[CastWeightBiasOp], device: torch.device) -> Iterator[None]:
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
def with_patches(modules: list[CastWeightBiasOp], device: torch.device) -> Iterator[None]:
    """Weights under dynamic VRAM that have no place of their own on `device`, patched for every call of their layers.

    ComfyUI patches such a weight in place at each call: right for the first chunk of rows only.
    """
    with placed([module for module in modules if needs_patching(module)], partial(_patched, device)):
        yield


def _patched(device: torch.device, module: CastWeightBiasOp) -> WeightAndBias:
    weight, bias = module._prefetch["cast_geometry"]
    kinds = weight.dtype, device, None if bias is None else bias.dtype
    made: WeightAndBias = comfy.ops.resolve_cast_module_with_vbar(module, *kinds, None, False)
    return made


@contextmanager
def placed(modules: Sequence[CastWeightBiasOp], values: Callable[[CastWeightBiasOp], WeightAndBias]) -> Iterator[None]:
    """Under dynamic VRAM, weight and bias that `values` gives of each module, in the place of what its calls would cast."""
    for module in modules:
        module._v_weight, module._v_bias = values(module)
        module._prefetch["resident"] = True
    try:
        yield
    finally:
        for module in modules:
            module._v_weight = module._v_bias = None


def needs_patching(module: CastWeightBiasOp) -> bool:
    """Whether ComfyUI would patch this weight in its transfer buffer; quantised ones it patches in a copy."""
    names = ("weight", "bias")
    patches, others = (
        [getattr(module, f"{n}_{kind}", None) for n in names] for kind in ("lowvram_function", "function")
    )
    if module._prefetch["signature"] is not None or not any(patches) or any(others):
        return False
    return not isinstance(module._prefetch["cast_geometry"][0], QuantizedTensor)


@contextmanager
def staged(modules: list[CastWeightBiasOp], device: torch.device) -> Iterator[None]:
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
