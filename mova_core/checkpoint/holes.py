"""A file of the right length that was not written to its end: download tools make room first and fill it in pieces.

Its header is whole and says what should be there; zeros stand where nothing came. A layer of zeros means nothing by
itself: some begin so. Several matrices in a row, with what lies between them, are no model's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import CheckpointError

PLACES = 16  # looked at in a file, evenly, and its end
PROBE = 4096  # bytes looked at in three places of a tensor
IN_A_ROW = 3  # matrices of zeros that are no coincidence


class TensorSpan(NamedTuple):
    """Where a tensor lies in a file, in bytes, and how many axes it has."""

    begin: int
    end: int
    axes: int


def check_written(path: Path) -> None:
    """Accept a file whose header has been read.

    Raises:
        CheckpointError: a part of it holds zeros alone.
    """
    try:
        with path.open("rb") as file:
            spans = _spans(file)
            step = max(1, len(spans) // PLACES)
            places = {*range(step // 2, len(spans), step), len(spans) - 1} if spans else set()
            rows = [_empty_around(file, spans, at) for at in places]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Download it again") from error
    for row in rows:
        if _matrices(row) >= IN_A_ROW:
            raise CheckpointError(
                f"{path} is of its full length, but only zeros stand in it from byte {row[0].begin} on: room was made "
                "and not all of it filled. Resume the download with the tool that began it, or delete it and download "
                "it again"
            )


def _spans(file: BinaryIO) -> list[TensorSpan]:
    """The tensors that are not empty, in the order of the file."""
    length = int.from_bytes(file.read(8), "little")
    spans = []
    for name, entry in json.loads(file.read(length)).items():
        if name != "__metadata__" and entry["data_offsets"][0] < entry["data_offsets"][1]:
            begin, end = entry["data_offsets"]
            spans.append(TensorSpan(8 + length + begin, 8 + length + end, len(entry["shape"])))
    return sorted(spans)


def _empty_around(file: BinaryIO, spans: Sequence[TensorSpan], at: int) -> list[TensorSpan]:
    """Tensors of zeros in a row around one place; none where the one there is not empty."""
    if not _is_empty(file, spans[at]):
        return []
    first, last = at, at + 1
    while first and _matrices(spans[first:last]) < IN_A_ROW and _is_empty(file, spans[first - 1]):
        first -= 1
    while last < len(spans) and _matrices(spans[first:last]) < IN_A_ROW and _is_empty(file, spans[last]):
        last += 1
    return list(spans[first:last])


def _matrices(spans: Sequence[TensorSpan]) -> int:
    return sum(span.axes > 1 for span in spans)


def _is_empty(file: BinaryIO, span: TensorSpan) -> bool:
    """Whether beginning, middle and end of a tensor are zeros."""
    for begin in (span.begin, (span.begin + span.end) // 2, span.end - PROBE):
        file.seek(max(span.begin, begin))
        if any(file.read(min(PROBE, span.end - max(span.begin, begin)))):
            return False
    return True
