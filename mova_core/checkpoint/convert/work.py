"""The work of a conversion: hash the sources, write what is planned, verify it, and the way back."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...errors import CheckpointError
from ..files import is_folder, read_json, read_tensors
from ..source import from_folder
from ..variants import MODEL_PARTS
from ..writer import check_space, raw, sha256, write_pieces
from .plan import PRECISION, SINGLE_FILES, USUAL, File, Origin, plan, restored, revision_of, slug, sources

CONVERT_AGAIN = "Delete it and convert again"
Say = Callable[[str], None]  # takes a line


def silent(line: str) -> None:
    """Say nothing."""


def bar(what: str, total: int, say: Say) -> tqdm:
    """Bytes done of `total`, in a line that grows; none where nothing is said."""
    return tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=say is silent)


def hashes_of(
    folder: Path, files: Iterable[Path], known: Mapping[str, Any], progress: Callable[[int], object]
) -> dict[str, dict[str, Any]]:
    """SHA-256, size and time of each file; `known` saves reading a file that has not changed since."""
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        name, state = path.relative_to(folder).as_posix(), path.stat()
        entry = {"bytes": state.st_size, "time": state.st_mtime_ns}
        old = known.get(name, {})
        same = isinstance(old, dict) and all(old.get(key) == value for key, value in entry.items())
        found[name] = old if same and "sha256" in old else {**entry, "sha256": sha256(path, progress)}
    return found


def convert(
    folder: Path | str,
    models: Path | str,
    *,
    precision: str = "bf16",
    parts: Iterable[str] = USUAL,
    name: str = "",
    revision: str = "",
    say: Say = silent,
) -> list[File]:
    """Write the single files of a published folder and a manifest; files that are there already stay.

    Raises:
        CheckpointError, ConfigError: the folder is not whole or not MOVA, a weight does not fit the precision, or the
        disk is too small, which is known before anything is written.
    """
    folder, models, parts = Path(folder), Path(models), tuple(parts)
    if any(component in MODEL_PARTS for part in parts for component in SINGLE_FILES[part][2]):
        from_folder(folder)
    name = name or folder.resolve().name
    manifest = manifest_path(models, name)
    record = read_json(manifest) if manifest.is_file() else {}
    used = sorted({path for part in parts for path in sources(folder, part)})
    with bar("reading", sum(path.stat().st_size for path in used), say) as progress:
        hashes = hashes_of(folder, used, record.get("sources", {}), progress.update)
    origin = Origin(
        folder=folder,
        name=name,
        revision=revision or revision_of(folder),
        hashes={key: entry["sha256"] for key, entry in hashes.items()},
    )
    files = [plan(origin, part, precision, models) for part in parts]
    check_space(models, sum(file.size - _begun(file.path) for file in files if not file.is_written()))
    record = {
        "model": name,
        "revision": origin.revision,
        "sources": {**record.get("sources", {}), **hashes},
        "files": record.get("files", {}),
    }
    _write_each(files, models, manifest, record, say)
    return files


def _write_each(files: list[File], models: Path, manifest: Path, record: dict[str, Any], say: Say) -> None:
    """Write what is not there yet; the manifest says of each file what it is as soon as it is whole."""
    for file in files:
        record["files"][file.path.relative_to(models).as_posix()] = {
            "bytes": file.size,
            "precision": file.metadata[PRECISION],
            "sha256": _write(file, say),
        }
        _write_small(manifest, record)


def _begun(path: Path) -> int:
    partial = path.with_name(f"{path.name}.partial")
    return partial.stat().st_size if partial.is_file() else 0


def _write(file: File, say: Say) -> str:
    there = file.is_written()
    with bar(file.path.name, file.size, say) as progress:
        if there:
            digest = sha256(file.path, progress.update)
        else:
            digest = write_pieces(file.path, file.pieces, file.metadata, progress.update)
    say(f"{file.path}: there already" if there else str(file.path))
    return digest


def _write_small(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = value if isinstance(value, bytes) else (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def verify(files: Iterable[File], manifest: Mapping[str, Any], models: Path, say: Say = silent) -> None:
    """Read written files again: header, SHA-256, and every weight converted anew from the source, bit for bit.

    Raises:
        CheckpointError: naming the file and what differs.
    """
    for file in files:
        name = file.path.relative_to(models).as_posix()
        if not file.is_written():
            raise CheckpointError(f"{file.path} is missing or has another header. Convert again")
        with bar(f"verifying {file.path.name}", 2 * file.size, say) as progress:
            if sha256(file.path, progress.update) != manifest["files"][name]["sha256"]:
                raise CheckpointError(f"{file.path} is not what was written (SHA-256 differs). {CONVERT_AGAIN}")
            _compare(file, progress.update)
        say(f"{file.path}: as converted from the source")


def _compare(file: File, progress: Callable[[int], object]) -> None:
    stored = read_tensors(file.path)
    for part in file.pieces:
        for key, made in part.make().items():
            if bytes(raw(made)) != bytes(raw(stored[key])):
                raise CheckpointError(f"{file.path}: {key} differs from its source. {CONVERT_AGAIN}")
        progress(part.size)


def restore(models: Path | str, folder: Path | str, *, say: Say = silent) -> list[File]:
    """Write the published layout from converted files. From bf16 files every weight is what it was, bit for bit.

    Raises:
        CheckpointError: see `restored`, or the disk is too small.
    """
    models, folder = Path(models), Path(folder)
    if not is_folder(models):
        raise CheckpointError(f"{models} is not a folder. Name the folder that holds the converted files")
    found = list(restored(models, folder))
    check_space(folder, sum(file.size - _begun(file.path) for file, _ in found if not file.is_written()))
    for file, small in found:
        _write(file, say)
        for path, value in small.items():
            _write_small(path, value)
    return [file for file, _ in found]


def manifest_path(models: Path, name: str) -> Path:
    """Where the manifest of the model so named lies."""
    return models / f"{slug(name)}_manifest.json"
