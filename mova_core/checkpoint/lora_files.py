"""LoRA files: safetensors, and the .pt files of the official trainers. What a file is, its content tells."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from . import mistaken
from .files import MAX_TENSORS, read_header, read_tensors
from .lora_changes import not_one_number
from .lora_owner import short
from .lora_scale import ALPHAS, Scales, scales
from .torch_file import read_torch


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """Tensors by key, and the scales that the file states for layers without an alpha."""

    tensors: Mapping[str, Tensor]
    scales: Scales = field(default_factory=Scales)


def read_lora(path: Path) -> LoraFile:
    """The tensors of a LoRA file.

    Raises:
        CheckpointError: not there, no file, damaged, of another kind, or with anything in it but tensors and settings.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
            raise OSError("it is not a file")
        with path.open("rb") as file:
            start = file.read(4)
    except (OSError, ValueError) as error:
        told, what = mistaken.absent(path), getattr(error, "strerror", None) or error
        why = (
            f"it is not a file but {told.removeprefix('is ')}"
            if told
            else f"{what}. Check the path and download it again"
        )
        raise CheckpointError(f"{path} cannot be read: {why}") from error
    if start.startswith(b"PK"):
        return _from_torch(path)
    metadata = read_header(path).metadata
    return _with_scales(read_tensors(path), metadata, path)


def _with_scales(tensors: Mapping[str, Tensor], stated: Mapping[str, Any], path: Path) -> LoraFile:
    """Tensors of layers, and the scales that are stated beside them or by a tensor for the whole file."""
    whole = {name: tensors[name] for name in ALPHAS if name in tensors and not not_one_number(tensors[name])}
    own = {name: float(alpha.reshape(())) for name, alpha in whole.items()}
    layers = {key: tensor for key, tensor in tensors.items() if key not in whole}
    return LoraFile(tensors=layers, scales=scales({**own, **stated}, str(path)))


def _from_torch(path: Path) -> LoraFile:
    content = read_torch(path)
    settings = content if isinstance(content, dict) else {}
    inner = [value for value in settings.values() if isinstance(value, dict) and _tensors(value)]
    alone = inner[0] if len(inner) == 1 and not _tensors(settings) else content  # {"model": ..., "step": 7}
    tensors = settings.get("lora_state_dict", settings.get("state_dict", alone))
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path} holds {type(content).__name__}, not tensors by name. Is it lora_weights.pt?")
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(tensors)} tensors, far more than a LoRA. Choose lora_weights.pt")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {short(str(key))!r} is {type(value).__name__}, not a tensor. Choose lora_weights.pt, "
                "not lora_config.pt or a training state"
            )
    beside = {} if tensors is content else {name: settings[name] for name in ("alpha", "rank") if name in settings}
    return _with_scales(tensors, beside, path)


def _tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())
