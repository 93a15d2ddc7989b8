"""LoRA files: safetensors, and the .pt files of the official trainers, read without running what they might carry.

A .pt file is a zip of one pickle and raw tensors. It is unpickled by torch's restricted reader, which knows tensors and
plain containers and nothing else; everything it cannot read that way is refused.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_HEADER, read_header, read_tensors


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """Tensors by key, and the alpha that the file states for all of them."""

    tensors: Mapping[str, Tensor]
    alpha: float | None


def read_lora(path: Path) -> LoraFile:
    """The tensors of a LoRA file; which kind it is, its content tells.

    Raises:
        CheckpointError: not there, damaged, of another kind, or with anything in it but tensors and settings.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        what = error.strerror or error
        raise CheckpointError(f"{path} cannot be read: {what}. Check the path and download it again") from error
    if start.startswith(b"PK"):
        return _read_torch(path)
    metadata = read_header(path).metadata
    return LoraFile(tensors=read_tensors(path), alpha=_number(metadata.get("alpha")))


def _number(value: Any) -> float | None:
    """A stated alpha, where it is a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e6 else None


def _read_torch(path: Path) -> LoraFile:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file may fail in any way, and always means the same
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged; nothing of it was run ({error!s:.120}). "
            "Load it with the program that made it and save its tensors as safetensors"
        ) from error
    settings = content if isinstance(content, dict) else {}
    tensors = settings.get("lora_state_dict", settings.get("state_dict", content))
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path} holds {type(content).__name__}, not tensors by name. Is it lora_weights.pt?")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {key!r:.80} is {type(value).__name__}, not a tensor. Choose lora_weights.pt, "
                "not lora_config.pt or a training state"
            )
    return LoraFile(tensors=tensors, alpha=_number(settings.get("alpha")) if tensors is not content else None)


def _check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"{path} is not a whole .pt file ({error!s:.120}). Download it again") from error
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if len(pickles) != 1 or packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path} is a zip archive, but not one that PyTorch writes. Choose lora_weights.pt")
    if pickles[0].file_size > MAX_HEADER:
        raise CheckpointError(f"{path} lists far more than a LoRA's tensors ({pickles[0].file_size} bytes of names)")
