"""MOVA in ComfyUI: video and sound denoised in one pass, as native nodes."""

import logging
import sys
from typing import Any

WEB_DIRECTORY = "./web"  # the nodes' help pages, under web/docs
NEEDED = "0.33.0"


def found_version() -> str:
    """The version of the ComfyUI that is loading this pack, as it states it."""
    return str(getattr(sys.modules.get("comfyui_version"), "__version__", "of unknown version"))


async def comfy_entrypoint() -> Any:
    """ComfyUI calls this once. The nodes are imported here: merely looking at the package must do nothing.

    Raises:
        ImportError: this ComfyUI lacks something the pack needs; the message says which version was found.
    """
    try:
        from .nodes import MovaExtension
    except Exception as error:
        # ComfyUI logs the message alone; the traceback says which of its parts this pack could not find.
        message = (
            f"the MOVA nodes could not be loaded: {error}. This is ComfyUI {found_version()}, and they need {NEEDED} "
            "or newer. Update ComfyUI; if it is new enough, install the pack's requirements.txt in its Python"
        )
        logging.getLogger("mova").exception(message)
        raise ImportError(message) from error
    return MovaExtension()
