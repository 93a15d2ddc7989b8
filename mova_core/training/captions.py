"""A folder of recordings and what is said of each: a text beside it, or one list.

Texts are .txt or .caption, lists .csv, .jsonl or upstream's metadata.json. Hidden files are nobody's recordings.
"""

import codecs
import csv
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MovaError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".wmv", ".gif")
FILE_COLUMNS = ("file_name", "file", "filename", "file_path", "video", "video_path", "path", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
CAPTION_SUFFIXES = (".txt", ".caption")  # the latter is what trainers of pictures write
TABLES = (",", ";", "\t")  # between the cells of a .csv, by the language of who saved it
NOT_TRAINED = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".heic",
    ".wav",
    ".mp3",
    ".flac",
    ".m4a",
    ".aac",
)
MOST_TEXT = 2**22  # bytes of a caption file or list
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what Windows calls Unicode text
NAMED = 5  # recordings named in a message
LONGEST_PATH = 300  # characters of a path that a message repeats


@dataclass(frozen=True)
class CaptionedFile:
    """A file, and its caption as it was written."""

    path: Path
    caption: str


def recordings(folder: Path, default: str = "") -> list[CaptionedFile]:
    """Every recording of `folder`, by name; `default` is the caption of those that have none.

    Raises:
        MovaError: no folder, no recording, a recording without a caption, or a list that fits them not.
    """
    if not os.path.isdir(folder):  # noqa: PTH112, Path.is_dir raises where the path is too long or forbidden
        named = str(folder) if len(str(folder)) <= LONGEST_PATH else f"{str(folder)[:LONGEST_PATH]}..."
        raise MovaError(f"there is no folder {named}; put the clips into one, a .txt of the same name beside each")
    files = [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not files:
        raise MovaError(f"{folder} holds no video ({', '.join(SUFFIXES)}); put the clips there, not in a folder below")
    listed = _listed(folder)
    found = [CaptionedFile(path, listed.get(_key(path.name)) or _beside(path) or default.strip()) for path in files]
    missing = [each.path.name for each in found if not each.caption]
    if missing:
        raise MovaError(
            f"{len(missing)} of {len(files)} clips have no caption ({_few(missing)}): write a .txt of the same name "
            "beside each, or a captions.csv with the columns file and caption, or give a default caption"
        )
    strangers = sorted(listed.keys() - {_key(path.name) for path in files})
    if strangers:
        raise MovaError(f"the list of captions in {folder} names {_few(strangers)}, which {folder.name} does not hold")
    return found


def left_out(folder: Path) -> list[str]:
    """Names of what somebody may believe is trained on and is not: pictures, sounds, links that lead nowhere."""
    kinds = (*SUFFIXES, *NOT_TRAINED)
    found = [path for path in _entries(folder) if path.suffix.lower() in kinds]
    return [path.name for path in found if path.suffix.lower() in NOT_TRAINED or not path.exists()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name. Beside each file of a disk that a Mac wrote to there may be a hidden `._` file."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise MovaError(f"{folder} cannot be read: {error.strerror or error}") from error


def _key(name: str) -> str:
    """A file's name, however its accents are composed: disks and tables differ in that."""
    return unicodedata.normalize("NFC", name)


def _beside(path: Path) -> str:
    """`clip.txt`, `clip.mp4.txt` and the like, in letters of any case."""
    wanted = {f"{name}{kind}".lower() for name in (path.stem, path.name) for kind in CAPTION_SUFFIXES}
    found = [each for each in _entries(path.parent) if each.name.lower() in wanted]
    said = [text for each in found if (text := _read(each).strip())]
    if len(set(said)) > 1:
        raise MovaError(f"{path.name} has {len(said)} captions ({_few([each.name for each in found])}); keep one")
    return said[0] if said else ""


def _listed(folder: Path) -> dict[str, str]:
    """File name -> caption, of the one list in the folder."""
    kinds = (".csv", ".jsonl")
    lists = [path for path in _entries(folder) if path.suffix.lower() in kinds or path.name == "metadata.json"]
    if len(lists) > 1:
        raise MovaError(f"{folder} holds {len(lists)} lists of captions ({_few([p.name for p in lists])}); keep one")
    if not lists:
        return {}
    rows = _csv_rows(lists[0]) if lists[0].suffix.lower() == ".csv" else _json_rows(lists[0])
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        name, caption = (_value(row, columns, lists[0], number) for columns in (FILE_COLUMNS, CAPTION_COLUMNS))
        name = _key(Path(name.replace("\\", "/")).name)
        if found.get(name, caption) != caption:
            raise MovaError(f"{lists[0].name} has two captions for {name}; keep one")
        found[name] = caption
    return found


def _value(row: Mapping[str, Any], columns: tuple[str, ...], path: Path, number: int) -> str:
    cells = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    for column in columns:
        if isinstance(cells.get(column), str):
            return str(cells[column]).strip()
    raise MovaError(
        f"row {number} of {path.name} has the columns {', '.join(cells) or 'none'}; wanted file and caption "
        f"(or {', '.join(columns)})"
    )


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    lines = _read(path).splitlines(keepends=True)
    mark = max(TABLES, key=lambda each: lines[0].count(each) if lines else 0)
    try:
        rows = list(csv.DictReader(lines, strict=True, delimiter=mark))
    except csv.Error as error:
        raise MovaError(f"{path.name} is no table of comma separated values ({error}); save it as CSV again") from error
    for number, row in enumerate(rows, 1):
        if None in row:
            raise MovaError(
                f"row {number} of {path.name} has more cells than columns: put captions with {mark!r} in quotes"
            )
    return rows


def _json_rows(path: Path) -> list[dict[str, Any]]:
    text = _read(path)
    try:
        lines = path.suffix.lower() == ".jsonl"
        rows = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MovaError(f"{path.name} is not JSON ({error!s:.100})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MovaError(f'{path.name} must be a list of {{"video_path": ..., "caption": ...}}')
    return rows


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_TEXT:
            raise MovaError(f"{path.name} is too large to be captions ({path.stat().st_size} bytes)")
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw[:2] in UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise MovaError(f"{path.name} is not text in UTF-8; save it so") from error
    except OSError as error:
        raise MovaError(f"{path} cannot be read: {error.strerror or error}") from error


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
