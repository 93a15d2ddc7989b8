"""What comes in through ComfyUI's own types: latents, conditionings, models."""

from collections.abc import Mapping
from typing import cast

import comfy.model_patcher
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...mova_core.errors import MovaError, ShapeError
from ...mova_core.inputs.latents import check_batch_index, check_finite, check_mask
from ...mova_core.inputs.numbers import real, told
from ...mova_core.shapes import DEFAULT_FPS, FPS_RANGE
from .joint_latents import streams
from .keys import AUDIO_RATE
from .model import prism
from .model.base_model import check_model
from .types import Conditioning, Latent, Values

AUDIO_RATES = 1.0, 100_000.0


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
    for part in () if mask is None else mask.unbind() if getattr(mask, "is_nested", False) else [mask]:
        check_mask(part)
    if value.get("batch_index") is not None:
        check_batch_index(value["batch_index"], len(parts[0]))
    frame_rate(latent)
    return latent


def _stacks(value: object) -> bool:
    """A tensor, or ComfyUI's nested tensor of several."""
    parts = getattr(value, "tensors", None) if getattr(value, "is_nested", False) else [value]
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
        return real(latent[AUDIO_RATE], *AUDIO_RATES) if AUDIO_RATE in latent else None
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
    if not isinstance(prompt, Tensor) or prompt.ndim != 3 or not prompt.numel():
        shape = tuple(prompt.shape) if isinstance(prompt, Tensor) else told(prompt)
        raise ShapeError(f"the prompt in this conditioning is {shape}, not (1, tokens, width); use 'MOVA Text Encode'")
    check_finite("the prompt in this conditioning", prompt)
    picture = values.get("concat_latent_image")
    if picture is not None and not (isinstance(picture, Tensor) and picture.numel()):
        raise ShapeError(f"the first frame in this conditioning is {told(picture)}; use 'MOVA Image to Video+Audio'")
    if picture is not None:
        check_finite("the first frame in this conditioning", picture)
    if "frame_rate" in values:
        frame_rate(values, "conditioning")


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
    if not isinstance(model, comfy.model_patcher.ModelPatcher):
        raise ShapeError(f"{told(model)} is no MODEL; connect that of a loader")
    return model
