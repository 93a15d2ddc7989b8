"""The audio tower's weights between the sound's own steps: brought once for all of them, where they lie elsewhere.

A step of the picture is followed by several of the sound alone, each through the same layers. The activations and layers
on their way that the picture needed are gone by then, and so many bytes of the audio tower stay in their place until the
next picture, so that its streamed weights cross once a step and not once a pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import comfy.ops
import torch
from comfy.ops import CastWeightBiasOp
from torch import Tensor, nn

from ....mova_core.model.audio_only import staying
from .weights import WeightAndBias, placed, resident

Layer = Sequence[nn.Module]


@dataclass
class StayingWeights:
    """Of one run: which layers are there, by the identity of their first module."""

    layers: frozenset[int] = frozenset()
    stack: ExitStack = field(default_factory=ExitStack)

    def bring(self, layers: Sequence[Layer], room: float, device: torch.device) -> None:
        """As many of `layers` as fit, the first ones; they are left alone where they are there already."""
        wanted = layers[: staying(layers, room)]
        names = frozenset(id(layer[0]) for layer in wanted)
        if names == self.layers:
            return
        self.release()
        for layer in wanted:
            self.stack.enter_context(resident(layer, device))
            self.stack.enter_context(_apart(layer, device))
        self.layers = names

    def release(self) -> None:
        """Give their room back."""
        self.layers = frozenset()
        self.stack.close()


@contextmanager
def _apart(layer: Layer, device: torch.device) -> Iterator[None]:
    """Weights under dynamic VRAM that have no place of their own, out of the buffer which the next transfer may take."""
    modules: dict[int, CastWeightBiasOp] = {id(m): m for root in layer for m in root.modules() if hasattr(m, "_v")}
    lent = [module for module in modules.values() if module._prefetch["signature"] is None]
    with placed(lent, partial(_copied, device)):
        yield


def _copied(device: torch.device, module: CastWeightBiasOp) -> WeightAndBias:
    bias: Tensor | None = module.bias
    kinds = module.weight.dtype, device, None if bias is None else bias.dtype
    weight, bias = comfy.ops.resolve_cast_module_with_vbar(module, *kinds, None, False)
    return weight.clone(), None if bias is None else bias.clone()
