"""ComfyUI's own kernels (comfy-kitchen), imported when a format needs them: quantising, packing, tiling, and back.

ComfyUI requires the package and the core alone does not, so nothing here is imported before it is used.

Axes: N output rows, K input columns of a linear layer.
"""

from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

FP4_LARGEST, FP8_LARGEST = 6.0, 448.0  # of e2m1, of float8_e4m3fn


def _kitchen() -> Any:
    try:
        import comfy_kitchen
    except ImportError as error:
        raise CheckpointError(
            "this precision is made by comfy-kitchen, which is not installed here: pip install comfy-kitchen, or use "
            "the Python that runs ComfyUI"
        ) from error
    return comfy_kitchen


def quantized_mxfp8(weight: Tensor) -> dict[str, Tensor]:
    """float8 in blocks of 32 along K, each with a power of two as scale."""
    values, scales = _kitchen().quantize_mxfp8(weight.float())
    return {"weight": values, "weight_scale": scales.view(torch.uint8)}


def plain_mxfp8(parts: dict[str, Tensor]) -> Tensor:
    scales = parts["weight_scale"].view(torch.float8_e8m0fnu)
    out: Tensor = _kitchen().dequantize_mxfp8(parts["weight"], scales, torch.float32)
    return out


def quantized_nvfp4(weight: Tensor) -> dict[str, Tensor]:
    """e2m1 in blocks of 16 along K with float8 scales, these relative to one float32 scale of the tensor."""
    whole = weight.abs().max().float() / (FP8_LARGEST * FP4_LARGEST)
    whole = whole if whole > 0 else torch.ones(())
    values, scales = _kitchen().quantize_nvfp4(weight.float(), whole)
    return {"weight": values, "weight_scale": scales, "weight_scale_2": whole}


def plain_nvfp4(parts: dict[str, Tensor]) -> Tensor:
    scales = parts["weight_scale"].view(torch.float8_e4m3fn)
    out: Tensor = _kitchen().dequantize_nvfp4(parts["weight"], parts["weight_scale_2"].float(), scales, torch.float32)
    return out


def quantized_convrot(weight: Tensor, group: int) -> dict[str, Tensor]:
    """int8 with one scale a row, of columns that were rotated in groups before."""
    from_kitchen = _kitchen()  # the layouts are a module of their own in it
    layout = from_kitchen.tensor.TensorWiseINT8Layout
    values, params = layout.quantize(weight.float(), per_channel=True, convrot=True, convrot_groupsize=group)
    return {"weight": values, "weight_scale": params.scale}
