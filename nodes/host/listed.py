"""What ComfyUI lists in its model folders and does not open: links whose file is gone, folders with a file's ending."""

import os

import folder_paths


def in_place(kind: str, name: str) -> str | None:
    """What is listed under a name and is no file: a link whose file is gone, a folder; reading it says so."""
    inside = os.path.relpath(os.path.join("/", str(name)), "/")  # noqa: PTH118, as ComfyUI: never above the folder
    places = (os.path.join(folder, inside) for folder in folder_paths.get_folder_paths(kind))  # noqa: PTH118
    return next((place for place in places if name and os.path.lexists(place)), None)
