"""What training writes: LoRA files that every loader reads, and the state that a run is taken up from.

A file is whole or not there: it is written under another name, brought to the disk, and then renamed. The file that was
there before stays until that moment.

LoRA keys are the official trainer's, with an `.alpha` a layer, which ComfyUI's and kohya's loaders read: without one
they take alpha for the rank. In DiffSynth-Studio's naming each component has a file of its own, its keys begin below
the component, and its name says which it is; its files have no alpha, so the scale is in lora_B.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.files import is_folder, read_header, read_tensors
from ..checkpoint.whole_file import sweep, write_whole
from ..errors import CheckpointError, MovaError
from .adapters import KEY, TRAINED_PARTS, part_of

STATE_MARK = "mova_state"  # key of a state file's metadata: its settings and counts
FORMAT = "1"
SUFFIX = ".safetensors"
SPARE = 2**20  # bytes beside the tensors


class DiskError(MovaError):
    """A file could not be written; what was there before is untouched."""


def lora_tensors(parameters: Mapping[str, Tensor], alpha: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a LoRA file holds, on the CPU: the parameters in `dtype`, and each layer's alpha."""
    found = {name: tensor.detach().to("cpu", dtype, copy=True).contiguous() for name, tensor in parameters.items()}
    layers = dict.fromkeys(key["layer"] for name in parameters if (key := KEY.fullmatch(name)))
    return found | {f"{layer}.alpha": torch.tensor(float(alpha)) for layer in layers}


def save_lora(
    path: Path, parameters: Mapping[str, Tensor], alpha: float, metadata: Mapping[str, str], naming: str = "official"
) -> list[Path]:
    """Write the LoRA in bfloat16 and return the files: one, or with "diffsynth" naming one a component.

    Raises:
        DiskError: no room, or no right to write there.
    """
    if naming == "official":
        write(path, lora_tensors(parameters, alpha, torch.bfloat16), metadata)
        return [path]
    told = {**metadata, "alpha": metadata["rank"], "ss_network_alpha": metadata["rank"]}
    written = []
    for prefix in TRAINED_PARTS.values():
        own = {k.removeprefix(prefix): _scaled(k, t, alpha) for k, t in parameters.items() if k.startswith(prefix)}
        if own:
            component = path.with_name(f"{path.stem}_{prefix.rstrip('.')}{SUFFIX}")
            write(component, own, told)
            written.append(component)
    return written


def _scaled(key: str, tensor: Tensor, alpha: float) -> Tensor:
    """In bfloat16 on the CPU, lora_B times alpha / rank."""
    factor = alpha / tensor.shape[1] if ".lora_B." in key else 1.0
    return (factor * tensor.detach().cpu()).to(torch.bfloat16).contiguous()


def lora_metadata(
    name: str, parameters: Mapping[str, Tensor], rank: int, alpha: float, settings: Mapping[str, Any], started: float
) -> dict[str, str]:
    """What a LoRA file says of itself: rank and alpha, kohya's `ss_` entries, and ModelSpec's.

    `settings` are the run's, by the names that kohya's trainers write without `ss_`; `started` is in Unix seconds.
    """
    parts = [part for part in TRAINED_PARTS if any(part_of(key) == part for key in parameters)]
    told = {"output_name": name, "network_dim": rank, "network_alpha": alpha, "network_module": "mova.lora"}
    told |= {"training_started_at": started, "training_finished_at": time.time(), "base_model_version": "mova"}
    told |= {"network_args": {"parts": parts}, **settings}
    spec = {
        "sai_model_spec": "1.0.0",
        "architecture": "mova/lora",
        "implementation": "https://github.com/OpenMOSS/MOVA",
        "title": name,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "prediction_type": "v",
    }
    return {
        "format": "pt",
        "rank": str(rank),
        "alpha": f"{alpha:g}",
        **{f"ss_{key}": value if isinstance(value, str) else json.dumps(value) for key, value in told.items()},
        **{f"modelspec.{key}": value for key, value in spec.items()},
    }


def save_state(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors as they are, and what else a run needs to go on, as JSON.

    Raises:
        DiskError: as `save_lora`.
    """
    write(path, tensors, {"format": FORMAT, STATE_MARK: json.dumps(state)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote.

    Raises:
        CheckpointError: it is damaged, or no state of a run.
    """
    header = read_header(path, "begin anew")
    try:
        state = json.loads(header.metadata[STATE_MARK])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no state of a MOVA training run; delete it to begin anew") from error
    return {name: tensor.clone() for name, tensor in read_tensors(path).items()}, state


def kept_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_state` wrote; None where nothing is there, or was removed this very moment.

    Raises:
        CheckpointError: as `load_state`.
    """
    try:
        return load_state(path)
    except CheckpointError:
        if os.path.lexists(path):
            raise
        return None


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, whole or not at all; tensors of a device are brought to the host one at a time.

    Raises:
        DiskError: no room, or no right to write there.
    """
    try:
        check_room(path.parent, sum(tensor.nbytes for tensor in tensors.values()) + SPARE)
        sweep(path)
        write_whole(path, tensors, metadata)
    except CheckpointError as error:
        raise DiskError(
            f"{error!s:.300}. Nothing that was saved before is lost. Make room or choose another place, and run again: "
            "it goes on"
        ) from error


def check_room(folder: Path, needed: float) -> None:
    """Accept a folder whose disk has room for so many bytes; a folder that is not there yet is its parent's disk.

    Raises:
        DiskError: it has not.
    """
    there = next(place for place in (folder, *folder.parents) if is_folder(place))
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # it has just gone; the write says what else is wrong
        return
    if free < needed:
        raise DiskError(
            f"{folder} has {free / 2**30:.2f} GiB free, {needed / 2**30:.2f} are needed; make room or lower the rank"
        )
