"""A change of a LoRA file as what ComfyUI applies to a weight: one of its own adapters, or a whole difference."""

from collections.abc import Callable, Sequence

import comfy.weight_adapter
import torch

from ....mova_core.checkpoint.lora_changes import LoraChange


class DecomposedAdapter(comfy.weight_adapter.WeightAdapterBase):
    """DoRA: the weight with the inner adapter's change, along an axis given the magnitudes of the file.

    As PEFT, LyCORIS and OneTrainer compute it: the direction is that of the changed weight. ComfyUI's `dora_scale` divides
    by the unchanged weight's length where magnitudes are of the output axis, which every PEFT file's are.
    """

    name = "dora"

    def __init__(
        self, loaded_keys: set[str], weights: tuple[comfy.weight_adapter.WeightAdapterBase, torch.Tensor]
    ) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights  # ComfyUI moves what is in here, the inner adapter's own too

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: tuple[int, int, int] | None,
        function: Callable[[torch.Tensor], torch.Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weight moved by `strength` towards the decomposed one, in place, computed in float32."""
        inner, magnitude = self.weights
        changed = inner.calculate_weight(weight.to(torch.float32, copy=True), key, 1.0, 1.0, None, function)
        magnitude = magnitude.to(weight.device, torch.float32)
        axes = [axis for axis in range(weight.ndim) if magnitude.shape[axis] == 1]
        length = changed.norm(dim=axes or None, keepdim=True)
        changed *= magnitude / length.clamp_min(torch.finfo(torch.float32).tiny)
        return weight.copy_(torch.lerp(weight.float(), changed, strength))


def adapter(
    change: LoraChange, shape: Sequence[int]
) -> comfy.weight_adapter.WeightAdapterBase | tuple[str, tuple[torch.Tensor]]:
    """The change as ComfyUI's patch of a parameter of this shape."""
    t = change.tensors
    if change.form == "diff":
        whole = t["diff"].reshape(shape)
        return ("diff", (whole if change.scale == 1 else whole.float() * change.scale,))
    alpha = None if change.rank is None else change.scale * change.rank  # ComfyUI divides it by the rank again
    if change.form == "lora":
        made = comfy.weight_adapter.LoRAAdapter(set(), (t["up"], t["down"], alpha, None, None, None))
    elif change.form == "loha":
        halves = (t["hada_w1_a"], t["hada_w1_b"], alpha, t["hada_w2_a"], t["hada_w2_b"], None, None, None)
        made = comfy.weight_adapter.LoHaAdapter(set(), halves)
    else:
        flat = {name: tensor.flatten(1) for name, tensor in t.items()}  # a convolution's factor as a matrix
        one, two, *factors = (flat.get(f"lokr_{name}") for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b"))
        made = comfy.weight_adapter.LoKrAdapter(set(), (one, two, alpha, *factors, None, None))
    return made if change.magnitude is None else DecomposedAdapter(set(), (made, change.magnitude))
