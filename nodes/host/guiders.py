"""Guidance and bridge strength on a MODEL, in ComfyUI's terms."""

from typing import Any

from ...mova_core.sampling.bridge_strength import BridgeStrength
from .runtime import BRIDGE
from .sampling import check_model


def with_bridge_strength(model: Any, strength: BridgeStrength) -> Any:
    """A clone of `model` whose bridge works at `strength`, on top of what was set before.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    check_model(model)
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    options[BRIDGE] = [*options.get(BRIDGE, ()), strength]
    return patched
