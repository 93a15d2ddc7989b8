"""Which file is it, and which expert? Marks that cost a few megabytes of reading, not seventy gigabytes."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_HEADER

SAMPLE = 2**20  # bytes of tensors read at the beginning, in the middle and at the end


def fingerprint(path: Path) -> str:
    """First 16 hex digits of a SHA-256 over a safetensors file's size, its header, and three samples of its tensors.

    Files that differ in size, in a tensor's name, shape, type or place, in the metadata, or in what the samples hold,
    have different fingerprints. Equal ones do not prove that every weight is equal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            header = file.read(min(int.from_bytes(start, "little"), MAX_HEADER))
            digest = hashlib.sha256(size.to_bytes(8, "little") + start + header)
            begin = file.tell()
            for place in (begin, max(begin, (begin + size) // 2), max(begin, size - SAMPLE)):
                file.seek(place, os.SEEK_SET)
                digest.update(file.read(SAMPLE))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Check the path") from error
    return digest.hexdigest()[:16]


def expert_fingerprint(head_modulation: Tensor) -> str:
    """A name for an expert that its precision does not change: a hash of a small weight that stays in bfloat16."""
    values = head_modulation.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
    return hashlib.sha256(values).hexdigest()[:16]
