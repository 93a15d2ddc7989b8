"""Safetensors files and published folders: headers read and checked first, tensors mapped, nothing executed.

A header is trusted for nothing: its length, its JSON, its names, its offsets are all checked against the file.
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError

MAX_HEADER = 8 * 2**20  # bytes; the largest published MOVA header is under 200 kB
MAX_TENSORS = 30_000  # the whole of MOVA has 4500
MAX_AXES = 16
SHARD = re.compile(r"[\w\- ][\w\-. ]{0,199}", re.ASCII)  # a plain name on every system, never a path
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}
PICKLES = (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Read = Callable[[Path], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says it holds."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        CheckpointError: not there, not safetensors, truncated, or a header that does not describe the file.
    """
    try:
        size = _file_size(path)
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
                if start.startswith(PICKLES):
                    raise CheckpointError(
                        f"{path} is a pickled PyTorch file, which can carry code; only .safetensors is read. "
                        "Download the safetensors version or convert it yourself"
                    )
                raise CheckpointError(_damaged(path, f"{size} bytes with a header of {length}"))
            text = file.read(length)
    except OSError as error:
        what = error.strerror or error
        raise CheckpointError(f"{path} cannot be read: {what}. Check the path and download it again") from error
    try:
        return parse_header(text, size - 8 - length)
    except ValueError as error:
        raise CheckpointError(_damaged(path, f"its header is wrong: {error!s:.200}")) from error


def _file_size(path: Path) -> int:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
        raise OSError("it is not a file")
    return state.st_size


def _damaged(path: Path, what: str) -> str:
    return f"{path} is not a whole safetensors file ({what}). Delete it and download it again"


def parse_header(text: bytes, data_size: int) -> Header:
    """The header whose JSON is `text`, checked against the `data_size` bytes of tensors that follow it.

    Raises:
        ValueError: it is not JSON, or does not describe exactly these bytes.
    """
    try:
        if text.count(b"{") + text.count(b"[") > 4 * MAX_TENSORS:  # three a tensor: refused before objects are made
            raise ValueError(f"more than {MAX_TENSORS} tensors")
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        return _checked(entries, data_size)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _checked(entries: dict[str, Any], data_size: int) -> Header:
    metadata = entries.pop("__metadata__", None) or {}
    if not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata values must be text")
    spans = []
    for name, entry in entries.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if not isinstance(shape, list) or len(shape) > MAX_AXES:
            raise ValueError(f"{name} must have a shape of at most {MAX_AXES} axes")
        if not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end)):
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
    """Every tensor of a safetensors file, mapped from disk rather than copied.

    Raises:
        CheckpointError: see `read_header`.
    """
    read_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (SafetensorError, OSError) as error:  # it changed since, or safetensors is stricter still
        raise CheckpointError(_damaged(path, f"{error!s:.200}")) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: not there, not JSON, or not an object.
    """
    try:
        if _file_size(path) > MAX_HEADER:
            raise OSError("it is too large to be a configuration")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = error.strerror or error
        raise CheckpointError(f"{path} cannot be read: {what}. Is the download complete? Resume it") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error!s:.200}). Download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object. Download it again")
    return value


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that no system could have is none, and no error."""
    return os.path.isdir(path)  # noqa: PTH112, Path.is_dir raises where the path is too long or forbidden


def component_files(folder: Path) -> list[Path]:
    """The safetensors files of one component's folder: all shards its index names, or the single file.

    Raises:
        CheckpointError: no folder, no weights, a missing shard, or an index that points elsewhere.
    """
    if not is_folder(folder):
        raise CheckpointError(
            f"{folder} is missing. Download the whole MOVA folder: video_dit, video_dit_2, audio_dit, dual_tower_bridge"
        )
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        singles = sorted(folder.glob("*.safetensors"))
        if len(singles) != 1:
            raise CheckpointError(
                f"{folder} should hold one .safetensors file or an index of shards; "
                f"it holds {_few([p.name for p in sorted(folder.iterdir())])}. Download it again"
            )
        return singles
    shards = read_json(indices[0]).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{indices[0]} has no weight_map of file names. Download it again")
    names = sorted(set(shards.values()))
    for name in names:
        if not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{indices[0]} names {name!r:.100}, which is not a file beside it. Download the index again"
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} shards: {_few(missing)}. Resume the download"
        )
    return [folder / name for name in names]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "nothing"


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
    return checked_tensors(folder, read)


def checked_tensors(folder: Path, read: Read) -> dict[str, Tensor]:
    """`component_tensors` of a folder whose headers have just been checked."""
    return {name: tensor for path in component_files(folder) for name, tensor in read(path).items()}
