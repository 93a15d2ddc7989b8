"""A folder of recordings and what is said of each: a .txt beside it, or one list (.csv, upstream's metadata.json)."""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MovaError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".wmv", ".gif")
FILE_COLUMNS = ("file_name", "file", "filename", "file_path", "video", "video_path", "path", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
MOST_TEXT = 2**22  # bytes of a caption file or list
NAMED = 5  # recordings named in a message
LONGEST_NAME = 300  # characters of a path that a message repeats


@dataclass(frozen=True)
class Recording:
    """A file, and its caption as it was written."""

    path: Path
    caption: str


def recordings(folder: Path, default: str = "") -> list[Recording]:
    """Every recording of `folder`, by name; `default` is the caption of those that have none.

    Raises:
        MovaError: no folder, no recording, a recording without a caption, or a list that fits them not.
    """
    if not os.path.isdir(folder):  # noqa: PTH112, Path.is_dir raises where the path is too long or forbidden
        named = str(folder) if len(str(folder)) <= LONGEST_NAME else f"{str(folder)[:LONGEST_NAME]}..."
        raise MovaError(f"there is no folder {named}; put the clips into one, a .txt of the same name beside each")
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise MovaError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not files:
        raise MovaError(f"{folder} holds no video ({', '.join(SUFFIXES)}); put the clips there, not in a folder below")
    listed = _listed(folder)
    found = [Recording(path, listed.get(path.name) or _beside(path) or default.strip()) for path in files]
    missing = [each.path.name for each in found if not each.caption]
    if missing:
        raise MovaError(
            f"{len(missing)} of {len(files)} clips have no caption ({_few(missing)}): write a .txt of the same name "
            "beside each, or a captions.csv with the columns file and caption, or give a default caption"
        )
    strangers = sorted(listed.keys() - {path.name for path in files})
    if strangers:
        raise MovaError(f"the list of captions in {folder} names {_few(strangers)}, which {folder.name} does not hold")
    return found


def _beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    return _read(text).strip() if text.is_file() else ""


def _listed(folder: Path) -> dict[str, str]:
    """File name -> caption, of the one list in the folder."""
    lists = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".csv" or p.name == "metadata.json")
    if len(lists) > 1:
        raise MovaError(f"{folder} holds {len(lists)} lists of captions ({_few([p.name for p in lists])}); keep one")
    if not lists:
        return {}
    rows = _json_rows(lists[0]) if lists[0].suffix == ".json" else _csv_rows(lists[0])
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        name, caption = (_value(row, columns, lists[0], number) for columns in (FILE_COLUMNS, CAPTION_COLUMNS))
        name = Path(name.replace("\\", "/")).name
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
    try:
        return list(csv.DictReader(_read(path).splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise MovaError(f"{path.name} is no table of comma separated values ({error}); save it as CSV again") from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise MovaError(f"{path.name} is not JSON ({error!s:.100})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MovaError(f'{path.name} must be a list of {{"video_path": ..., "caption": ...}}')
    return rows


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_TEXT:
            raise MovaError(f"{path.name} is too large to be captions ({path.stat().st_size} bytes)")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MovaError(f"{path.name} is not text in UTF-8; save it so") from error
    except OSError as error:
        raise MovaError(f"{path} cannot be read: {error.strerror or error}") from error


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
