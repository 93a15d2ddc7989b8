"""What not every ComfyUI has that this pack runs on: asked for by name when used, here and nowhere else.

Never by version: checkouts between two releases bear the number of the older one. tests/nodes/contract.py lets names of
this file be missing, and of no other.
"""

from collections.abc import Callable
from typing import Any

from ...mova_core.errors import MovaError


def resampler() -> Callable[..., Any]:
    """ComfyUI's own, or torchaudio's of the same arguments, which a ComfyUI without one of its own installs.

    Raises:
        MovaError: there is neither.
    """
    try:
        from comfy.audio import resample
    except ImportError:
        try:
            from torchaudio.functional import resample
        except (ImportError, OSError) as error:  # OSError: built for another torch
            raise MovaError(
                f"this ComfyUI has no resampler of its own, and torchaudio cannot be imported ({error}): update ComfyUI, "
                "or install the torchaudio that belongs to its torch, or give the sound at the rate that is wanted"
            ) from error
    return resample
