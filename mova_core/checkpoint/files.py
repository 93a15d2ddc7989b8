"""Safetensors files and published folders: headers read and checked first, tensors mapped, nothing executed.

safetensors itself checks a header against its file. Before that come what it does not look at: a size cap, names that
occur twice, shapes that no memory could have, and what the file is if it is none.
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError
from . import mistaken

MAX_HEADER = 8 * 2**20  # bytes; the largest published MOVA header is under 200 kB
MAX_TENSORS = 30_000  # the whole of MOVA has 4500
MAX_AXES = 16
MAX_VALUES = 2**60  # of one tensor, an empty axis counted as 1: beyond it is damage, and torch cannot count
MAX_NAME = 1000  # characters of a tensor's name
SHARD = re.compile(r"[\w\- ][\w\-. ]{0,199}", re.ASCII)  # a plain name on every system, never a path
PICKLES = (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
AGAIN = "download it again"

Read = Callable[[Path], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says it holds."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: Path, remedy: str = AGAIN) -> Header:
    """The header of a safetensors file, checked against the file's size; `remedy` is how to get another.

    Raises:
        CheckpointError: not there, not safetensors, truncated, or a header that does not describe the file.
    """
    text, data_size = _header_text(path, remedy)
    try:
        check_header(text, data_size)
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a mapping
            shapes = {name: tuple(found.get_shape()) for name, found in slices.items()}
            dtypes = {name: found.get_dtype() for name, found in slices.items()}
            return Header(shapes=shapes, dtypes=dtypes, metadata=dict(file.metadata() or {}))
    except OSError as error:
        raise CheckpointError(_unreadable(path, error, remedy)) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(_damaged(path, f"its header is wrong: {error!s:.200}", remedy)) from error


def _header_text(path: Path, remedy: str) -> tuple[bytes, int]:
    """The JSON of a header, and the bytes that follow it. A file that is something else is called what it is."""
    try:
        size = _file_size(path)
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if 2 <= length <= min(size - 8, MAX_HEADER):
                text = file.read(length)
                if waiting := mistaken.reserved(path):
                    raise CheckpointError(
                        f"{path} is being downloaded, or was cut off: {waiting} lies beside it. Resume the download "
                        "with the tool that began it"
                    )
                return text, size - 8 - length
            start += file.read(1016)
    except OSError as error:
        raise CheckpointError(_unreadable(path, error, remedy)) from error
    raise CheckpointError(_not_safetensors(path, start, size, length, remedy))


def _not_safetensors(path: Path, start: bytes, size: int, length: int, remedy: str) -> str:
    if waiting := mistaken.unfinished(path):
        return f"{path} is not finished: {waiting} lies beside it. Resume the download with the tool that began it"
    if start.startswith(b"PK") and b"/data.pkl" not in start and b"data.pkl" not in start:
        return f"{path} is a zip archive, or a pickled PyTorch file. Unpack it, or download the safetensors version"
    if start.startswith(PICKLES):
        return (
            f"{path} is a pickled PyTorch file, which can carry code, and is not read. "
            "Download the safetensors version or convert it yourself"
        )
    told = mistaken.content(start, size)
    return f"{path} {told}" if told else _damaged(path, f"{size} bytes with a header of {length}", remedy)


def _file_size(path: Path) -> int:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
        raise OSError("it is not a file")
    return state.st_size


def _unreadable(path: Path, error: OSError, remedy: str = AGAIN) -> str:
    told = mistaken.absent(path)
    if told and remedy == AGAIN:
        return f"{path} cannot be read as a file: it is not a file but {told.removeprefix('is ')}"
    waiting = mistaken.unfinished(path)
    if waiting:
        return f"{path} is not finished: {waiting} lies beside it. Resume the download with the tool that began it"
    what = "it is a folder" if is_folder(path) else error.strerror or error
    return f"{path} cannot be read: {what}. Check the path and {remedy}"


def _damaged(path: Path, what: str, remedy: str = AGAIN) -> str:
    return f"{path} is not a whole safetensors file ({what}). Delete it and {remedy}"


def check_header(text: bytes, data_size: int) -> None:
    """Refuse a header, the JSON `text` before `data_size` bytes of tensors, for what safetensors does not look at.

    Raises:
        ValueError: too many tensors or axes, a name twice, a shape beyond any memory, or a file cut off.
    """
    if text.count(b"{") + text.count(b"[") > 4 * MAX_TENSORS:  # three a tensor: refused before objects are made
        raise ValueError(f"more than {MAX_TENSORS} tensors")
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            _check_shape(name, entry["shape"])
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if end != data_size:
            cut = "it was cut off" if end > data_size else "something was written behind it"
            raise ValueError(f"it describes {end} bytes of tensors, the file has {data_size}: {cut}")
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error


def _check_shape(name: str, shape: list[int]) -> None:
    if len(name) > MAX_NAME:
        raise ValueError(f"a tensor's name has {len(name)} characters")
    if len(shape) > MAX_AXES or math.prod(max(1, n) for n in shape) > MAX_VALUES:
        raise ValueError(f"{name:.100} must have a shape of at most {MAX_AXES} axes that some memory could hold")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, mapped from disk rather than copied.

    Raises:
        CheckpointError: see `read_header`.
    """
    read_header(path)
    return read_some(path)


def read_some(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The tensors of these names that a file holds, or all, mapped; of a file whose header has been read.

    Raises:
        CheckpointError: see `read_header`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            held = file.keys() if names is None else set(names) & set(file.keys())
            return {name: file.get_tensor(name) for name in held}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # it changed since, or holds types that this torch has not
        raise CheckpointError(_damaged(path, f"{error!s:.200}")) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: not there, not JSON, or not an object.
    """
    try:
        if _file_size(path) > MAX_HEADER:
            raise OSError("it is too large to be a configuration")
        content = path.read_bytes()
        value = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        told = mistaken.absent(path)
        what = f"it is not a file but {told.removeprefix('is ')}" if told else str(error.strerror or error)
        raise CheckpointError(f"{path} cannot be read: {what}. Is the download complete? Resume it") from error
    except (ValueError, RecursionError) as error:
        told = "" if content.lstrip()[:1] == b"{" else mistaken.content(content[:1024], len(content))
        text = f"{path} {told}" if told else f"{path} is not JSON ({error!s:.200}). Download it again"
        raise CheckpointError(text) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object. Download it again")
    return value


def check_small_file(path: Path) -> None:
    """Refuse what stands in place of a small file that others read, such as a tokenizer.

    Raises:
        CheckpointError: it is not there, or is a pointer, a page or the like.
    """
    try:
        size = _file_size(path)
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise CheckpointError(_unreadable(path, error)) from error
    fits = start.lstrip()[:1] in (b"{", b"[") or start[:1] == b"\x0a"  # JSON, or the protobuf of a tokenizer
    told = "" if fits else mistaken.content(start, size)
    if told:
        raise CheckpointError(f"{path} {told}")


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that no system could have is none, and no error."""
    return os.path.isdir(path)  # noqa: PTH112, Path.is_dir raises where the path is too long or forbidden


def is_file(path: Path) -> bool:
    """Whether a file is there, as `is_folder`."""
    return os.path.isfile(path)  # noqa: PTH113


def check_part(folder: Path) -> None:
    """Accept the folder of one component.

    Raises:
        CheckpointError: it is missing, or something else.
    """
    if not is_folder(folder):
        told = mistaken.absent(folder) or ("is a file, not a folder" if os.path.exists(folder) else "is missing")  # noqa: PTH110
        raise CheckpointError(f"{folder} {told}. Download that part of the MOVA folder")


def component_files(folder: Path) -> list[Path]:
    """The safetensors files of one component's folder: all shards its index names, or the single file.

    Raises:
        CheckpointError: no folder, no weights, a missing shard, or an index that points elsewhere.
    """
    check_part(folder)
    indices = _weights(folder, ".safetensors.index.json")
    if not indices:
        return [_only_file(folder)]
    shards = read_json(indices[0]).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{indices[0]} has no weight_map of file names. Download it again")
    names = sorted(set(shards.values()))
    for name in names:
        if not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{indices[0]} names {name!r:.100}, which is not a file beside it. Download the index again"
            )
    missing = [name for name in names if not os.path.exists(folder / name)]  # noqa: PTH110, as `is_folder`
    if missing:
        waiting, renamed = mistaken.leftovers(folder), mistaken.copies(folder, missing)
        told = f"It holds {waiting}" if "not finished" in waiting else "Resume the download"
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} shards: {_few(missing)}. "
            f"{f'{_few(renamed)} may be it: rename it so' if renamed else told}"
        )
    return [folder / name for name in names]


def _weights(folder: Path, ending: str) -> list[Path]:
    return sorted(p for p in folder.glob(f"*{ending}") if not mistaken.is_hidden(p.name))


def _only_file(folder: Path) -> Path:
    """The single weight file of a folder without an index."""
    singles = _weights(folder, ".safetensors")
    if len(singles) == 1:
        return singles[0]
    names = [path.name for path in singles]
    if not singles and (told := mistaken.leftovers(folder)):
        raise CheckpointError(f"{folder} holds no .safetensors file but {told}")
    if any(re.search(r"-\d{5}-of-\d{5}\.", name) for name in names):
        raise CheckpointError(
            f"{folder} holds shards ({_few(names)}) without their .index.json. Download the index too"
        )
    raise CheckpointError(
        f"{folder} should hold one .safetensors file or an index of shards; it holds "
        f"{_few(names or sorted(p.name for p in folder.iterdir()))}. "
        f"{'Keep one of them, or d' if names else 'D'}ownload it again"
    )


def _few(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:5]) + (", ..." if len(names) > 5 else "") or "nothing"


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
            name = min(twice)
            raise CheckpointError(f"{path} holds {name:.100} a second time. Delete {folder} and download it again")
        shapes |= header.shapes
        dtypes |= header.dtypes
        metadata |= header.metadata
    return Header(shapes=shapes, dtypes=dtypes, metadata=metadata)


def component_tensors(folder: Path, read: Read = read_tensors) -> dict[str, Tensor]:
    """Every tensor of a component, from all its shards; headers are checked before `read` opens anything."""
    component_header(folder)
    return {name: tensor for path in component_files(folder) for name, tensor in read(path).items()}
