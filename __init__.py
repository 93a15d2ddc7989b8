"""MOVA in ComfyUI: video and sound denoised in one pass, as native nodes."""

import logging
from typing import Any


async def comfy_entrypoint() -> Any:
    """ComfyUI calls this once. The nodes are imported here: merely looking at the package must do nothing."""
    try:
        from .nodes import MovaExtension
    except Exception:
        # ComfyUI logs the message alone; the traceback says which of its parts this pack could not find.
        logging.getLogger("mova").exception("the MOVA nodes could not be loaded; they need ComfyUI 0.33 or newer")
        raise
    return MovaExtension()
