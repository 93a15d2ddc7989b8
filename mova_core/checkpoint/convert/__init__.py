"""A published folder -> single files in ComfyUI's model folders, in a chosen precision, and back."""

from .command import main
from .work import convert, manifest_path, restore, verify

__all__ = ["convert", "main", "manifest_path", "restore", "verify"]
