"""PyTorch's .pt files, read as tensors, text and numbers. No unpickler runs, so nothing that a file carries can.

A .pt file is a zip, not compressed, of a program for Python's unpickler (`data.pkl`) and of the tensors' bytes. The
program of a file of tensors needs thirty instructions and a handful of names. They are followed here; anything else
refuses the file. Tensors are views of the mapped file: reading makes nothing larger than the list of them.
"""

import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_AXES, MAX_TENSORS

MAX_PROGRAM = 4 * 2**20  # bytes; the official trainers' largest file has under one million
MAX_CONTAINERS = 8 * MAX_TENSORS  # a tensor takes sixteen: tuples, marks, what the program remembers
END_OF_ZIP = 65_536 + 1024  # bytes at a zip's end where it says how long its list is
MOST_NUMBERS = 2**48  # numbers of one tensor
DAMAGED = (zipfile.BadZipFile, struct.error, OverflowError)
STORAGE_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
NARROW = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "uint16", "uint32", "uint64")
# What a program may name, and what it is here.
KNOWN_NAMES = {("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()}
KNOWN_NAMES |= {("torch", name): getattr(torch, name) for name in NARROW}
KNOWN_NAMES |= {("torch", str(dtype).removeprefix("torch.")): dtype for dtype in STORAGE_DTYPES.values()}
KNOWN_NAMES[("torch.storage", "UntypedStorage")] = torch.uint8


@dataclass(frozen=True)
class _Bytes:
    """A tensor's storage: its dtype, its entry in the archive, how many numbers it has."""

    dtype: torch.dtype
    entry: str
    count: int


def read_torch(path: Path) -> Any:
    """What a .pt file of tensors holds: dictionaries, lists, text and numbers, with tensors mapped from the file.

    Raises:
        CheckpointError: it is no .pt file, is damaged, or holds anything else.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            of_others = [name for name in entries if not name.endswith("/")] if not _programs(entries) else []
            program, folder = (b"", "") if of_others else _program(archive, entries, path.stat().st_size)
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, *DAMAGED) as error:
        raise CheckpointError(f"{path} is not a whole .pt file ({error!s:.120}). Download it again") from error
    if of_others:
        names = ", ".join(map(repr, (name[-80:] for name in of_others[:3])))
        raise CheckpointError(f"{path} is a zip archive ({names}{', ...' if of_others[3:] else ''}). Unpack it")
    try:
        return _Reader(program, path, {name.removeprefix(folder): entry for name, entry in entries.items()}).value()
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, *DAMAGED) as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged; nothing of it was run ({error!s:.120}). "
            "Load it with the program that made it and save its tensors as safetensors"
        ) from error


def _check_directory(path: Path) -> None:
    """Refuse a list of entries that would be ten times its size in memory once zipfile has read it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_OF_ZIP))
        end = file.read(END_OF_ZIP)
    stated = [
        struct.unpack_from("<I", end, found.end() + 8) for found in re.finditer(rb"PK\x05\x06(?=.{18})", end, re.DOTALL)
    ]
    stated += [
        struct.unpack_from("<Q", end, found.end() + 36)
        for found in re.finditer(rb"PK\x06\x06(?=.{44})", end, re.DOTALL)
    ]
    if any(MAX_PROGRAM < size != 0xFFFFFFFF for (size,) in stated):
        raise ValueError("it lists far more than a LoRA's tensors")


def _programs(entries: Iterable[str]) -> list[str]:
    return [name for name in entries if name.endswith("data.pkl")]


def _program(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], size: int) -> tuple[bytes, str]:
    """The program and the folder that it lies in, once the archive holds no more than the file does."""
    listed = archive.infolist()
    programs = _programs(entries)
    packed = any(
        entry.compress_type or entry.flag_bits & 1 or entry.compress_size != entry.file_size for entry in listed
    )
    if len(programs) != 1 or packed or len(listed) != len(entries) or sum(entry.file_size for entry in listed) > size:
        raise ValueError("a zip archive, but not one that PyTorch writes; choose lora_weights.pt")
    folder = programs[0].removesuffix("data.pkl")
    if entries[programs[0]].file_size > MAX_PROGRAM:
        raise ValueError(f"it lists far more than a LoRA's tensors: {entries[programs[0]].file_size} bytes of names")
    order = entries.get(f"{folder}byteorder")
    if order is not None and order.file_size < 16 and archive.read(order) == b"big":
        raise ValueError("written on a machine of the other byte order")
    return archive.read(programs[0]), folder


@dataclass
class _Reader:
    """Follows a program. `stack` is what it has made since the last mark; `marks` the stacks below."""

    program: bytes
    path: Path
    entries: dict[str, zipfile.ZipInfo]
    position: int = 0
    containers: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    mapped: Tensor | None = None
    read: dict[str, Tensor] = field(default_factory=dict)

    def value(self) -> Any:
        while True:
            code = self.take(1)[0]
            if code == ord("."):
                return self.stack.pop()
            if code not in OPCODES:
                raise ValueError(f"instruction {code:#04x} at byte {self.position - 1}")
            OPCODES[code](self)

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.program):
            raise ValueError("its list of contents ends too early")
        self.position += count
        return self.program[self.position - count : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, form: str) -> str:
        return self.take(self.number(form)).decode("utf-8")

    def line(self) -> str:
        end = self.program.index(b"\n", self.position)
        text = self.take(end - self.position).decode("utf-8")
        self.position += 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def count(self) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise ValueError("it lists far more than a LoRA's tensors")

    def made(self, container: Any) -> None:
        self.count()
        self.push(container)

    def remember(self, place: int) -> None:
        if place not in self.memo:
            self.count()
        self.memo[place] = self.stack[-1]

    def last(self, count: int) -> list[Any]:
        values = self.stack[len(self.stack) - count :]
        if len(values) != count:
            raise ValueError("an instruction has too few values")
        del self.stack[len(self.stack) - count :]
        return values

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def mark(self) -> None:
        self.count()
        self.marks.append(self.stack)
        self.stack = []

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2 or not all(type(key) in (str, int) for key in values[::2]):
            raise ValueError("a dictionary with other keys than names")
        target.update(zip(values[::2], values[1::2]))

    def append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("a list that is none")
        self.stack[-1].extend(values)

    def name(self, module: str, name: str) -> None:
        known = KNOWN_NAMES.get((module, name)) or CALLS.get((module, name))
        if known is None:
            raise ValueError(f"it names {module:.60}.{name:.60}")
        self.push(known)

    def call(self) -> None:
        function, arguments = self.last(2)
        if function not in CALLS.values() or type(arguments) is not tuple:
            raise ValueError("a call of what cannot be called")
        self.made(function(self, *arguments))

    def state(self) -> None:
        """A state dictionary's own notes (`_metadata`), which are of no use here."""
        target, _ = self.last(2)
        if type(target) is not dict:
            raise ValueError("an object with a state of its own")
        self.push(target)

    def storage(self) -> None:
        (value,) = self.last(1)
        kind, dtype, key, _, count = value
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(key) is not str or type(count) is not int:
            raise ValueError("a tensor without a place in the file")
        self.push(_Bytes(dtype, f"data/{key}", count))

    def tensor(self, bytes_: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        """A view of the file; `rest` is requires_grad and hooks, then the dtype in the third form of the call."""
        if type(bytes_) is not _Bytes or type(size) is not tuple or type(stride) is not tuple:
            raise ValueError("a tensor in an unknown form")
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > MAX_AXES or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor with an impossible shape")
        dtype = next((value for value in rest if isinstance(value, torch.dtype)), bytes_.dtype)
        flat = self._flat(bytes_, dtype)
        furthest = offset + sum((n - 1) * step for n, step in zip(size, stride))
        if (0 not in size and furthest >= len(flat)) or max(*numbers, math.prod(size)) >= MOST_NUMBERS:
            raise ValueError(f"a tensor reaches beyond its {len(flat)} numbers")
        if 0 in size:
            return torch.empty(size, dtype=dtype)
        return flat.as_strided(size, stride, flat.storage_offset() + offset)

    def _flat(self, bytes_: _Bytes, dtype: torch.dtype) -> Tensor:
        """A storage's numbers, of one axis."""
        raw = self._raw(bytes_.entry)
        if bytes_.count * bytes_.dtype.itemsize != len(raw) or len(raw) % dtype.itemsize:
            raise ValueError(f"{bytes_.entry} has {len(raw)} bytes, not those of {bytes_.count} numbers")
        return raw.view(dtype)

    def _raw(self, name: str) -> Tensor:
        """An entry's bytes: of the mapped file, or copied, once, where they begin at no multiple of 8."""
        if name not in self.read:
            if self.mapped is None:
                size = self.path.stat().st_size
                self.mapped = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8)
            entry = self.entries[name]
            head = bytes(self.mapped[entry.header_offset : entry.header_offset + 30].tolist())
            mark, *lengths = struct.unpack("<4s22xHH", head)
            start = entry.header_offset + 30 + sum(lengths)
            if mark != b"PK\x03\x04" or start + entry.file_size > len(self.mapped):
                raise ValueError(f"{name} is not where it should be")
            raw = self.mapped[start : start + entry.file_size]
            self.read[name] = raw.clone() if start % 8 else raw
        return self.read[name]

    def parameter(self, tensor: Any, *_: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise ValueError("a parameter without a tensor")
        return tensor

    def dictionary(self, *arguments: Any) -> dict[Any, Any]:
        if arguments:
            raise ValueError("a dictionary in an unknown form")
        return {}

    def size(self, numbers: Any) -> tuple[Any, ...]:
        if type(numbers) is not tuple:
            raise ValueError("a size that is none")
        return numbers


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Reader.tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _Reader.tensor,
    ("torch._utils", "_rebuild_parameter"): _Reader.parameter,
    ("collections", "OrderedDict"): _Reader.dictionary,
    ("torch", "Size"): _Reader.size,
}
OPCODES: dict[int, Callable[[_Reader], Any]] = {
    0x80: lambda r: r.take(1),  # protocol
    0x95: lambda r: r.take(8),  # frame
    ord("}"): lambda r: r.made({}),
    ord("]"): lambda r: r.made([]),
    ord(")"): lambda r: r.push(()),
    ord("N"): lambda r: r.push(None),
    0x88: lambda r: r.push(True),
    0x89: lambda r: r.push(False),
    ord("K"): lambda r: r.push(r.number("<B")),
    ord("M"): lambda r: r.push(r.number("<H")),
    ord("J"): lambda r: r.push(r.number("<i")),
    0x8A: lambda r: r.push(int.from_bytes(r.take(r.number("<B")), "little", signed=True)),
    ord("G"): lambda r: r.push(r.number(">d")),
    ord("X"): lambda r: r.push(r.text("<I")),
    0x8C: lambda r: r.push(r.text("<B")),
    ord("q"): lambda r: r.remember(r.number("<B")),
    ord("r"): lambda r: r.remember(r.number("<I")),
    0x94: lambda r: r.remember(len(r.memo)),
    ord("h"): lambda r: r.push(r.memo[r.number("<B")]),
    ord("j"): lambda r: r.push(r.memo[r.number("<I")]),
    ord("("): lambda r: r.mark(),
    ord("t"): lambda r: r.made(tuple(r.since_mark())),
    0x85: lambda r: r.made(tuple(r.last(1))),
    0x86: lambda r: r.made(tuple(r.last(2))),
    0x87: lambda r: r.made(tuple(r.last(3))),
    ord("s"): lambda r: r.set_items(r.last(2)),
    ord("u"): lambda r: r.set_items(r.since_mark()),
    ord("a"): lambda r: r.append(r.last(1)),
    ord("e"): lambda r: r.append(r.since_mark()),
    ord("c"): lambda r: r.name(r.line(), r.line()),
    0x93: lambda r: r.name(*r.last(2)),
    ord("R"): lambda r: r.call(),
    ord("b"): lambda r: r.state(),
    ord("Q"): lambda r: r.storage(),
}
