"""What the nodes of core's Prism branch leave in a conditioning and in a LATENT, under our names.

Prism is MOVA's forward with other weights, so both packs' conditioning says the same things. `prism_reference` is
(1, 20, T, H, W) as the model takes it: four channels of mask, 1 where the latent is known, and normalised latents.
"""

import math
from collections.abc import Mapping
from typing import Any

from ....mova_core.shapes import frames_of
from ..keys import AUDIO_CONTEXT
from ..types import Values

REFERENCE = "prism_reference"
NAMES = {"prism_audio_context": AUDIO_CONTEXT, "prism_fps": "frame_rate"}


def translated(values: Values) -> Values:
    """Values of a conditioning with those of the branch under our names beside them; the branch's nodes came last."""
    return {**values, **{ours: values[theirs] for theirs, ours in NAMES.items() if theirs in values}}


def frame_rate(latent: Mapping[str, Any]) -> float | None:
    """Pictures a second of a LATENT of that branch, which holds the length of its sound; None where it does not.

    Not a number where length or rate are none. The length is rounded down to a sample: half a sample more, and rounding down gives it again.
    """
    if "num_samples" not in latent or "sample_rate" not in latent:
        return None
    frames = frames_of(latent["samples"].unbind()[0].shape[2])
    try:
        return float(latent["sample_rate"] * frames / (latent["num_samples"] + 0.5))
    except (TypeError, ValueError, ArithmeticError):
        return math.nan
