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
from io import StringIO
from pathlib import Path
from typing import Any

from ..errors import MovaError

FILES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".wmv", ".asf", ".ogv", ".gif")
CAMERAS = (".3gp", ".3g2", ".mts", ".m2ts", ".ts", ".vob", ".mxf", ".dv")  # as they leave phones, cameras and discs
SUFFIXES = (*FILES, *CAMERAS)
FILE_COLUMNS = ("file_name", "file", "filename", "file_path", "video", "video_path", "path", "name")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
CAPTION_SUFFIXES = (".txt", ".caption")  # the latter is what trainers of pictures write
TABLES = (",", ";", "\t", "|")  # between the cells of a .csv, by the language of who saved it
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".dng")
SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".aiff", ".wma")
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
    entries = _entries(folder)
    files = [path for path in entries if _is_recording(path)]
    if not files:
        raise MovaError(
            f"{folder} holds no video ({', '.join(FILES[:5])} and the like); put the clips there, not in a folder below"
        )
    listed, texts = _listed(folder, entries), _texts(entries)
    found = [
        CaptionedFile(path, listed.get(_key(path.name)) or _beside(path, texts) or default.strip()) for path in files
    ]
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
    """Names of what somebody may believe is trained on and is not: pictures, sounds, texts of no clip, folders with
    clips in them, links that lead nowhere."""
    entries = _entries(folder)
    used = {name for path in entries if _is_recording(path) for name in _text_names(path)}
    kinds = (*PICTURES, *SOUNDS, *CAPTION_SUFFIXES)
    other = [path for path in entries if path.suffix.lower() in kinds and _key(path.name).lower() not in used]
    lost = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.exists()]
    return sorted([each.name for each in (*other, *lost)] + [f"{each.name}/" for each in entries if _holds_some(each)])


def _holds_some(path: Path) -> bool:
    """Whether this is a folder with recordings; what cannot be looked into is nobody's clips."""
    try:
        return path.is_dir() and any(_is_recording(each) for each in _entries(path))
    except (MovaError, OSError):
        return False


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name. Beside each file of a disk that a Mac wrote to there may be a hidden `._` file."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise MovaError(f"{folder} cannot be read: {error.strerror or error}") from error


def _key(name: str) -> str:
    """A file's name, however its accents are composed: disks and tables differ in that."""
    return unicodedata.normalize("NFC", name)


def _text_names(path: Path) -> set[str]:
    """`clip.txt`, `clip.mp4.txt` and the like, in small letters."""
    return {_key(f"{name}{kind}").lower() for name in (path.stem, path.name) for kind in CAPTION_SUFFIXES}


def _texts(entries: Iterable[Path]) -> dict[str, list[Path]]:
    """Files that may hold a caption, by their names in small letters."""
    found: dict[str, list[Path]] = {}
    for path in entries:
        if path.suffix.lower() in CAPTION_SUFFIXES:
            found.setdefault(_key(path.name).lower(), []).append(path)
    return found


def _beside(path: Path, texts: Mapping[str, list[Path]]) -> str:
    found = [each for name in sorted(_text_names(path)) for each in texts.get(name, ())]
    said = [text for each in found if (text := _read(each).strip())]
    if len(set(said)) > 1:
        raise MovaError(f"{path.name} has {len(said)} captions ({_few([each.name for each in found])}); keep one")
    return said[0] if said else ""


def _listed(folder: Path, entries: Iterable[Path]) -> dict[str, str]:
    """File name -> caption, of the one list in the folder."""
    kinds = (".csv", ".jsonl")
    lists = [path for path in entries if path.suffix.lower() in kinds or path.name.lower() == "metadata.json"]
    if len(lists) > 1:
        raise MovaError(f"{folder} holds {len(lists)} lists of captions ({_few([p.name for p in lists])}); keep one")
    if not lists:
        return {}
    rows = _csv_rows(lists[0]) if lists[0].suffix.lower() == ".csv" else _json_rows(lists[0])
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if not any(row.values()):
            continue  # as spreadsheets leave below a table
        name, caption = (_value(row, columns, lists[0], number) for columns in (FILE_COLUMNS, CAPTION_COLUMNS))
        name = _key(Path(name.replace("\\", "/")).name)
        if found.get(name, caption) != caption:
            raise MovaError(f"{lists[0].name} has two captions for {name}; keep one")
        found[name] = caption
    return found


def _value(row: Mapping[str, Any], columns: tuple[str, ...], path: Path, number: int) -> str:
    cells = {str(key).strip().lower(): value for key, value in row.items()}
    for column in columns:
        if isinstance(cells.get(column), str):
            return str(cells[column]).strip()
    raise MovaError(
        f"row {number} of {path.name} has the columns {', '.join(cells) or 'none'}; wanted file and caption "
        f"(or {', '.join(columns)})"
    )


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    text = _read(path)
    mark = max(TABLES, key=text.split("\n", 1)[0].count)
    try:
        rows = list(csv.DictReader(StringIO(text, newline=""), strict=True, delimiter=mark))
    except csv.Error as error:
        raise MovaError(f"{path.name} is no table of comma separated values ({error}); save it as CSV again") from error
    for number, row in enumerate(rows, 1):
        if any(row.get(None, ())):
            raise MovaError(
                f"row {number} of {path.name} has more cells than columns: put captions with {mark!r} in quotes"
            )
    return [{name: cell for name, cell in row.items() if name is not None} for row in rows]


def _json_rows(path: Path) -> list[dict[str, Any]]:
    text = _read(path)
    try:
        lines = path.suffix.lower() == ".jsonl"
        rows = [json.loads(line) for line in text.split("\n") if line.strip()] if lines else json.loads(text)
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
        text = raw.decode("utf-16" if raw[:2] in UTF_16 else "utf-8-sig")
        if "\0" in text:
            raise MovaError(f"{path.name} holds zero bytes; save it as text in UTF-8")
        return text
    except UnicodeDecodeError as error:
        raise MovaError(f"{path.name} is not text in UTF-8; save it so") from error
    except OSError as error:
        raise MovaError(f"{path} cannot be read: {error.strerror or error}") from error


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
