"""What comes in through ComfyUI's own types: latents, conditionings, models."""

from collections.abc import Callable, Mapping
from typing import cast

from comfy.hooks import HookGroup
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mova_core.errors import MovaError, ShapeError
from ...mova_core.inputs.latents import check_batch_index, check_finite, check_masks
from ...mova_core.inputs.numbers import real, told, whole
from ...mova_core.inputs.tensors import check_dense
from ...mova_core.shapes import DEFAULT_FPS, FPS_RANGE
from .joint_latents import streams
from .keys import AUDIO_CONTEXT, AUDIO_RATE, AUDIO_STEPS
from .model import prism
from .model.base_model import check_model
from .types import Conditioning, Latent, Values

AUDIO_RATES = 1.0, 100_000.0
ONE_STREAM = {
    "area": "an area of the picture",
    "mask": "a mask",
    "gligen": "GLIGEN boxes",
    "control": "a ControlNet",
}
"""What may lie on a CONDITIONING and ComfyUI lays over the latent as if it were one picture."""
NUMBERS = {"strength", "mask_strength", "start_percent", "end_percent"}
NEVER_NONE = {*NUMBERS, *ONE_STREAM, "hooks"}  # ComfyUI reads these wherever they are there
OF_COMFYUI = {"model_conds", "uuid", "latent_shapes", "denoise_mask"}
TENSORS = {"concat_latent_image", "concat_mask", AUDIO_CONTEXT}
PARTS_OF_CONDITIONING = {
    "cross_attn": "the prompt in this conditioning",
    "concat_latent_image": "the first frame in this conditioning",
    "concat_mask": "the mask of the first frames in this conditioning",
    AUDIO_CONTEXT: "the prompt of the sound in this conditioning",
}


def check_latent(value: object) -> Latent:
    """Accept a joint LATENT whose streams, mask, noise and frame rate can be worked with.

    Raises:
        MovaError: it is none, holds NaN, a mask beyond 0..1, or states noise or a frame rate that cannot be.
    """
    if not isinstance(value, Mapping) or not _stacks(value.get("samples")):
        raise ShapeError(f"{told(value)} is no LATENT; connect that of 'MOVA Image to Video+Audio'")
    latent = cast(Latent, dict(value))
    parts = streams(latent)
    for name, part in zip(("the picture of this latent", "the sound of this latent"), parts):
        check_finite(name, part)
    mask = value.get("noise_mask")
    if mask is not None and not _stacks(mask):
        raise ShapeError(f"the noise mask of this latent is {told(mask)}; set it with 'MOVA Mask'")
    if mask is not None:
        check_masks(mask.unbind() if getattr(mask, "is_nested", False) else [mask], parts)
    if value.get("batch_index") is not None:
        check_batch_index(value["batch_index"], len(parts[0]))
    frame_rate(latent)
    audio_rate(latent)
    return latent


def _stacks(value: object) -> bool:
    """A tensor, or ComfyUI's nested tensor of several."""
    parts = value.tensors if isinstance(value, NestedTensor) else [value]
    return bool(parts) and all(isinstance(part, Tensor) for part in parts or ())


def frame_rate(latent: Mapping[str, object], what: str = "latent") -> float:
    """Pictures a second of a joint LATENT, or of the values of a CONDITIONING; 24 where nothing in it says.

    Raises:
        MovaError: it states an impossible one.
    """
    stated = latent.get("frame_rate", prism.frame_rate(latent))
    try:
        return real(DEFAULT_FPS if stated is None else stated, *FPS_RANGE)
    except MovaError as error:
        raise MovaError(f"the frame rate of this {what}: {error}") from None


def audio_rate(latent: Latent) -> float | None:
    """Audio steps a second of a LATENT, where it says.

    Raises:
        MovaError: it states an impossible number.
    """
    try:
        stated = latent.get(AUDIO_RATE)
        return None if stated is None else real(stated, *AUDIO_RATES)
    except MovaError as error:
        raise MovaError(f"the audio steps a second of this latent: {error}") from None


def check_conditioning(value: object) -> Conditioning:
    """Accept a CONDITIONING: prompts with their values.

    Raises:
        ShapeError: it is none, or holds NaN.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ShapeError(f"{told(value)} is no CONDITIONING; connect that of 'MOVA Text Encode'")
    for entry in value:
        if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[1], Mapping):
            raise ShapeError("this CONDITIONING is not made of prompts and their values; use 'MOVA Text Encode'")
        _check_entry(*entry)
    return cast(Conditioning, value)


def _check_entry(prompt: object, values: Values) -> None:
    if not isinstance(prompt, Tensor) or prompt.is_nested or prompt.ndim != 3 or not prompt.numel():
        shape = tuple(prompt.shape) if isinstance(prompt, Tensor) and not prompt.is_nested else told(prompt)
        raise ShapeError(f"the prompt in this conditioning is {shape}, not (1, tokens, width); use 'MOVA Text Encode'")
    check_finite("the prompt in this conditioning", prompt)
    check_values(values)
    if own := OF_COMFYUI & values.keys():
        raise MovaError(
            f"this conditioning holds {own.pop()!r}, which is ComfyUI's to set; leave out the node that set it"
        )


def check_values(values: Mapping[str, object]) -> None:
    """Accept what lies beside a prompt in a CONDITIONING: of each the kind that whoever reads it takes for granted.

    Raises:
        MovaError: another kind, NaN, a name that is no text, or what can lie over one stream alone.
    """
    for name, value in values.items():
        if not isinstance(name, str):
            raise MovaError(f"this conditioning holds a value under {told(name)}, which is no name; leave out its node")
        if value is not None and name in ONE_STREAM:
            raise MovaError(
                f"the CONDITIONING holds {ONE_STREAM[name]} ({name!r}), which ComfyUI lays over one picture, and this latent "
                "is picture and sound together. Leave that node out; 'MOVA Mask' says what of a clip is made anew"
            )
        if value is not None or name in NEVER_NONE:
            _check_value(name, value)
    if "frame_rate" in values:
        frame_rate(values, "conditioning")


def _check_value(name: str, value: object) -> None:
    what = PARTS_OF_CONDITIONING.get(name, f"{name!r} in this conditioning")
    if name in TENSORS and not (isinstance(value, Tensor) and not value.is_nested and value.numel()):
        raise ShapeError(f"{what} is {told(value)}; it must be a tensor. Use 'MOVA Image to Video+Audio'")
    if name in ("hooks", *ONE_STREAM) and not isinstance(value, HookGroup):
        raise ShapeError(f"{what} is {told(value)}, no HOOKS; leave out the node that set it")
    if isinstance(value, Tensor) and (name in TENSORS or value.is_floating_point()):
        check_dense(what, value)
        if value.is_complex() or name == "concat_latent_image" or (value.is_floating_point() and value.numel()):
            check_finite(what, value)
    if isinstance(value, float) or name in NUMBERS:
        _check_number(what, value)
    if name == AUDIO_STEPS:
        _check_number(what, value, whole)


def _check_number(what: str, value: object, kind: Callable[[object], object] = real) -> None:
    try:
        kind(value)
    except MovaError as error:
        raise MovaError(f"{what}: {error}") from None


def checked_model(model: object) -> ModelPatcher:
    """`model`, if it is MOVA.

    Raises:
        ShapeError: the MODEL is another one.
    """
    check_model(model)
    return model


def check_patcher(model: object) -> ModelPatcher:
    """Accept any MODEL.

    Raises:
        ShapeError: something else.
    """
    if not isinstance(model, ModelPatcher) or not isinstance(model.model, BaseModel):
        raise ShapeError(f"{told(model)} is no MODEL that can be sampled with; connect that of a loader")
    return model
