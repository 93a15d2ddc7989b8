"""Weights that apply their own patches, as those of the GGUF pack do: they are dequantised when they are read, and a
patch is added then. ComfyUI's patcher would write patched values in their place, which it cannot make of packed bytes.

Such a tensor holds packed bytes and has a list `patches` of (what ComfyUI's `calculate_weight` takes, key).
"""

from typing import Any

import comfy.utils
import torch
from torch import Tensor


def patches_itself(weight: Any) -> bool:
    """Whether a weight applies its own patches."""
    return isinstance(getattr(weight, "patches", None), list) and not weight.is_floating_point()


def alias(weight: Tensor) -> Tensor:
    """The same memory as another tensor, whose patches are not the first one's."""
    new = torch.Tensor.detach(weight)
    if new is not weight and patches_itself(weight):
        new.__dict__.update(weight.__dict__)
        new.patches = []  # type: ignore[attr-defined]
    return new


class SelfPatchingWeights:
    """Mixed into a ModelPatcher class: weights that apply their own patches are given them when the model is loaded."""

    def patch_weight_to_device(self, key: str, *args: Any, **kwargs: Any) -> Any:
        weight = comfy.utils.get_attr(self.model, key)
        return weight if patches_itself(weight) else super().patch_weight_to_device(key, *args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> None:
        super().load(*args, **kwargs)
        for key, patches in self.patches.items():
            weight = comfy.utils.get_attr(self.model, key)
            if patches_itself(weight):
                weight.patches = [(patches, key)]

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        super().unpatch_model(device_to, unpatch_weights)
        for weight in self.model.parameters() if unpatch_weights else ():
            if patches_itself(weight):
                weight.patches = []
