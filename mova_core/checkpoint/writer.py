"""Safetensors files written a piece at a time: whole or not at all, and taken up again where they were cut off.

The header is known before the first weight is read, so a file larger than memory streams through one weight of it.
The file grows under the name *.partial and gets its own when it is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError

Spec = tuple[torch.dtype, tuple[int, ...]]
HEADER_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
BY_CODE = {code: dtype for dtype, code in HEADER_DTYPES.items()}
CHUNK = 2**24  # bytes read at once where a file is hashed


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some tensors that are made together: what they will be, and how to make them."""

    tensors: Mapping[str, Spec]
    make: Callable[[], Mapping[str, Tensor]]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(dtype.itemsize * prod(shape) for dtype, shape in self.tensors.values())


def header_of(pieces: Sequence[Piece], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of the file, its length included; tensors in the order of the pieces."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for piece in pieces:
        for name, (dtype, shape) in piece.tensors.items():
            if name in entries:
                raise CheckpointError(f"{name} would be in the file twice; is the source one model?")
            end = position + dtype.itemsize * prod(shape)
            entries[name] = {"dtype": HEADER_DTYPES[dtype], "shape": list(shape), "data_offsets": [position, end]}
            position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def total_size(pieces: Sequence[Piece], metadata: Mapping[str, str]) -> int:
    """Bytes of the whole file."""
    return len(header_of(pieces, metadata)) + sum(piece.size for piece in pieces)


def is_written(path: Path, pieces: Sequence[Piece], metadata: Mapping[str, str]) -> bool:
    """Whether exactly this file is there, as far as its header and its size tell."""
    header = header_of(pieces, metadata)
    if not path.is_file() or path.stat().st_size != total_size(pieces, metadata):
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def write_pieces(
    path: Path, pieces: Sequence[Piece], metadata: Mapping[str, str], progress: Callable[[int], object] = lambda n: None
) -> str:
    """Write the file and return its SHA-256. `progress` hears the bytes as they are done.

    A *.partial file of the same header is continued after its last whole piece.

    Raises:
        CheckpointError: a piece is not what it was announced to be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    header, digest = header_of(pieces, metadata), hashlib.sha256()
    with partial.open("r+b" if partial.is_file() else "w+b") as file:
        done = _resumed(file, header, pieces, digest)
        progress(file.tell())
        for piece in pieces[done:]:
            for content in _bytes(piece):
                file.write(content)
                digest.update(content)
            progress(piece.size)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)  # noqa: PTH105, the one call that replaces on every system
    return digest.hexdigest()


def _resumed(file: BinaryIO, header: bytes, pieces: Sequence[Piece], digest: Any) -> int:
    """Position the file after its last whole piece, everything before hashed; the number of those pieces."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size < len(header) or file.read(len(header)) != header:
        file.seek(0)
        file.truncate()
        file.write(header)
        digest.update(header)
        return 0
    done, position = 0, len(header)
    while done < len(pieces) and position + pieces[done].size <= size:
        position += pieces[done].size
        done += 1
    digest.update(header)
    _hash(file, digest, position - len(header))
    file.truncate(position)
    file.seek(position)
    return done


def _bytes(piece: Piece) -> list[memoryview]:
    made = piece.make()
    for name, (dtype, shape) in piece.tensors.items():
        if name not in made or (made[name].dtype, tuple(made[name].shape)) != (dtype, shape):
            found = f"{made[name].dtype} {tuple(made[name].shape)}" if name in made else "nothing"
            raise CheckpointError(f"{name} should be {dtype} {shape} but became {found}; is the source still the same?")
    return [raw(made[name]) for name in piece.tensors]


def raw(tensor: Tensor) -> memoryview:
    """The values of a tensor as a file stores them."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _hash(file: BinaryIO, digest: Any, length: int) -> None:
    while length:
        chunk = file.read(min(length, CHUNK))
        if not chunk:
            raise CheckpointError("the file became shorter while it was read; start again")
        digest.update(chunk)
        length -= len(chunk)


def sha256(path: Path, progress: Callable[[int], object] = lambda n: None) -> str:
    """SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        CheckpointError: fewer than `needed` bytes are free where `folder` is, or will be.
    """
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise CheckpointError(
            f"{needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} are free. Make room, choose fewer parts "
            "or a smaller precision"
        )
