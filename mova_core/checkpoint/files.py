"""Safetensors files and published folders: headers read and checked first, tensors mapped, nothing executed.

A header is trusted for nothing: its length, its JSON, its names, its offsets are all checked against the file.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from ..errors import CheckpointError

MAX_HEADER = 64 * 2**20  # bytes; the largest published MOVA header is under 200 kB
MAX_TENSORS = 100_000
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}

Read = Callable[[Path], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says it holds."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        CheckpointError: not there, not safetensors, truncated, or a header that does not describe the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06") or start[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
                raise CheckpointError(
                    f"{path} is a pickled PyTorch file, which can carry code; only .safetensors is read. "
                    "Download the safetensors version or convert it yourself"
                )
            if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
                raise CheckpointError(_damaged(path, f"{size} bytes with a header of {length}"))
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Check the path and download it again"
        ) from error
    try:
        entries = json.loads(text, object_pairs_hook=_no_duplicates)
        return _checked(entries, size - 8 - length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(_damaged(path, f"its header is wrong: {error}")) from error


def _damaged(path: Path, what: str) -> str:
    return f"{path} is not a whole safetensors file ({what}). Delete it and download it again"


def _checked(entries: dict[str, Any], data_size: int) -> Header:
    metadata = entries.pop("__metadata__", None) or {}
    if not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata values must be text")
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"{len(entries)} tensors")
    spans = []
    for name, entry in entries.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError(f"{name}: shape and offsets must be whole numbers")
        if math.prod(shape) * BITS[entry["dtype"]] != 8 * (end - begin):
            raise ValueError(f"{name}: {entry['dtype']} {shape} does not fill bytes {begin} to {end}")
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"tensor data overlaps or has a gap at byte {position}")
        position = end
    if position != data_size:
        raise ValueError(f"it describes {position} bytes of tensors, the file has {data_size}")
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    return Header(shapes=shapes, dtypes={name: entry["dtype"] for name, entry in entries.items()}, metadata=metadata)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, mapped from disk rather than copied."""
    read_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: not there, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > MAX_HEADER:
            raise CheckpointError(f"{path} is too large to be a configuration file")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Is the download complete?") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object. Download it again")
    return value


def component_files(folder: Path) -> list[Path]:
    """The safetensors files of one component's folder: all shards its index names, or the single file.

    Raises:
        CheckpointError: no folder, no weights, a missing shard, or an index that points elsewhere.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is missing. A MOVA folder holds video_dit, video_dit_2, audio_dit, dual_tower_bridge"
        )
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        singles = sorted(folder.glob("*.safetensors"))
        if len(singles) != 1:
            found = ", ".join(p.name for p in sorted(folder.iterdir())) or "nothing"
            raise CheckpointError(f"{folder} should hold one .safetensors file or an index of shards; it holds {found}")
        return singles
    shards = read_json(indices[0]).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{indices[0]} has no weight_map of file names. Download it again")
    names = sorted(set(shards.values()))
    for name in names:
        if name != os.path.basename(name) or name in ("", ".", "..") or "\\" in name:  # noqa: PTH119, a name, not a path
            raise CheckpointError(
                f"{indices[0]} names {name!r}, which is not a file beside it. Download the index again"
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} shards: {', '.join(missing)}. Resume the download"
        )
    return [folder / name for name in names]


def component_header(folder: Path) -> Header:
    """The joined headers of a component's files.

    Raises:
        CheckpointError: a file is damaged, or two shards hold the same tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for path in component_files(folder):
        header = read_header(path)
        twice = shapes.keys() & header.shapes.keys()
        if twice:
            raise CheckpointError(f"{path} holds {min(twice)} a second time. Delete {folder} and download it again")
        shapes |= header.shapes
        dtypes |= header.dtypes
        metadata |= header.metadata
    return Header(shapes=shapes, dtypes=dtypes, metadata=metadata)


def component_tensors(folder: Path, read: Read = read_tensors) -> dict[str, Tensor]:
    """Every tensor of a component, from all its shards; headers are checked before `read` opens anything."""
    component_header(folder)
    return {name: tensor for path in component_files(folder) for name, tensor in read(path).items()}
