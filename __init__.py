"""MOVA in ComfyUI: video and sound denoised in one pass, as native nodes."""

import logging
import sys
from pathlib import Path
from typing import Any

WEB_DIRECTORY = "./web"  # help pages under web/docs, and the scripts of the page in web
NEEDED = "0.34.0"
OWN = {"ftfy"}  # of requirements.txt; all else that is imported, ComfyUI requires
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfyui_version", "folder_paths", "latent_preview", "server"}
COMFYUI |= {"node_helpers"}


def found_version() -> str:
    """The version of the ComfyUI that is loading this pack, as it states it."""
    return str(getattr(sys.modules.get("comfyui_version"), "__version__", "of unknown version"))


def culprit(error: BaseException) -> str:
    """The module that could not be imported, or lacks what was asked of it; empty where the error does not say."""
    if isinstance(error, ImportError):
        return error.name or ""
    lacks = getattr(error, "obj", None) if isinstance(error, AttributeError) else None
    return str(getattr(lacks, "__module__", None) or getattr(lacks, "__name__", ""))


def remedy(name: str) -> str:
    """What to do about a module that is missing or lacks something."""
    top = name.split(".")[0]
    if name.startswith(__name__):
        return f"{name.removeprefix(__name__).lstrip('.')} is a file of this pack: install the pack again, whole"
    if top in COMFYUI:
        return (
            f"{name} is part of ComfyUI. This is ComfyUI {found_version()}, and the MOVA nodes need {NEEDED} or newer: "
            "update ComfyUI; if it is newer than this pack, update the pack"
        )
    comfyui = Path(getattr(sys.modules.get("folder_paths"), "__file__", None) or "ComfyUI/folder_paths.py").parent
    whose, folder = ("this pack", Path(__file__).parent) if top in OWN else ("ComfyUI", comfyui)
    if top:
        return (
            f"{top} is a package that {whose} requires. Install it where ComfyUI runs, then start ComfyUI again: "
            f'"{sys.executable}" -m pip install -r "{folder / "requirements.txt"}"'
        )
    return f"This is ComfyUI {found_version()}, and the MOVA nodes need {NEEDED} or newer; the traceback says where"


async def comfy_entrypoint() -> Any:
    """ComfyUI calls this once. The nodes are imported here: merely looking at the package must do nothing.

    Raises:
        ImportError: this ComfyUI, or a package, lacks something the pack needs; the message says what to do about it.
    """
    try:
        from .nodes import MovaExtension
        from .nodes.host.newer import check_core

        check_core()
    except Exception as error:
        # ComfyUI logs the message alone; the traceback says which of its parts this pack could not find.
        message = f"the MOVA nodes could not be loaded: {error}. {remedy(culprit(error))}"
        logging.getLogger("mova").exception(message)
        raise ImportError(message) from error
    return MovaExtension()
