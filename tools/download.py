"""Download a MOVA model, only the files that are needed. Run again after an interruption it fetches what is missing.

    python tools/download.py MOVA-360p ComfyUI/models/diffusers/MOVA-360p --dry-run     # sizes, nothing more
    python tools/download.py MOVA-360p ComfyUI/models/diffusers/MOVA-360p
    python tools/download.py MOVA-720p DIR --skip text_encoder video_vae               # the stock files serve too

Files that are whole stay. A file that was cut off is begun again, and the list says which: huggingface_hub does not go
on within a file. Needs `pip install huggingface_hub`. A mirror is named by HF_ENDPOINT, HF_HUB_OFFLINE=1 forbids the
network, HF_TOKEN logs in; all are huggingface_hub's own. Nodes never download.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

OWNER = "OpenMOSS-Team"
AGAIN = "Run the same command again: whole files stay, and a file that was cut off is begun again."
MODELS = ("MOVA-360p", "MOVA-720p")
PARTS = ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge", "audio_vae", "video_vae", "text_encoder")
SMALL_FILES = ("model_index.json", "scheduler/*.json")
FILE_ENDINGS = ("*.safetensors", "*.json")
TOKENIZER = ("tokenizer/*.json", "tokenizer/spiece.model")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file to download: its path in the repository, and its bytes (0 where the server does not say)."""

    path: str
    size: int


def patterns(skip: tuple[str, ...]) -> list[str]:
    """The files that the nodes read, as huggingface_hub's patterns."""
    wanted = [f"{part}/{ending}" for part in PARTS if part not in skip for ending in FILE_ENDINGS]
    return [*SMALL_FILES, *wanted, *(() if "text_encoder" in skip else TOKENIZER)]


def needed(siblings: list[Any], wanted: list[str]) -> list[Item]:
    """Those of a repository's files that match, largest first."""
    items = [
        Item(path=s.rfilename, size=s.size or 0) for s in siblings if any(fnmatchcase(s.rfilename, p) for p in wanted)
    ]
    return sorted(items, key=lambda item: (-item.size, item.path))


def table(items: list[Item], folder: Path) -> str:
    """What will be downloaded, a line a file, and what is there already."""
    lines = [f"{item.size / 1e9:9.3f} GB  {item.path}{_state(item, folder)}" for item in items]
    total, missing = sum(item.size for item in items), sum(i.size for i in items if not is_there(i, folder))
    return "\n".join([*lines, f"{total / 1e9:9.3f} GB  in {len(items)} files, {missing / 1e9:.3f} GB to download"])


def _state(item: Item, folder: Path) -> str:
    if is_there(item, folder):
        return "  (there already)"
    return "  (was cut off: begun again)" if cut_off(folder, item.path) else ""


def cut_off(folder: Path, path: str = "") -> list[Path]:
    """What is left of downloads that were ended from outside: of the part that `path` lies in, or of all."""
    place = folder / ".cache" / "huggingface" / "download"
    found = sorted(place.rglob("*.incomplete")) if place.is_dir() else []
    return [left for left in found if not path or left.parent == (place / path).parent]


def is_there(item: Item, folder: Path) -> bool:
    path = folder / item.path
    return path.is_file() and path.stat().st_size == item.size


def room(folder: Path, bytes_needed: int) -> str:
    """What is wrong with the disk; empty where nothing is."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    return (
        "" if free > bytes_needed else f"{bytes_needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} are free"
    )


def download(hub: Any, repository: str, folder: Path, *, revision: str, skip: tuple[str, ...], dry_run: bool) -> int:
    """List the files, then fetch what is missing with `hub`, the module huggingface_hub. The exit status."""
    wanted = patterns(skip)
    if offline():
        print("HF_HUB_OFFLINE is set: taking what huggingface_hub's cache holds, without the list of sizes")
    else:
        info = hub.HfApi().model_info(repository, revision=revision or None, files_metadata=True)
        items = needed(info.siblings, wanted)
        if not items:
            print(f"{repository} holds none of the files of a MOVA model", file=sys.stderr)
            return 1
        print(f"{repository} at {info.sha}, from {os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}")
        print(table(items, folder), flush=True)
        lack = room(folder, sum(item.size for item in items if not is_there(item, folder)))
        if lack:
            print(lack, file=sys.stderr)
            return 1
        revision = info.sha  # every file of one state, also after an interruption
    if dry_run:
        return 0
    for left in cut_off(folder):  # nothing goes on within them
        left.unlink(missing_ok=True)
    hub.snapshot_download(repository, revision=revision or None, local_dir=folder, allow_patterns=wanted)
    print(f"done: {folder}")
    return 0


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Download a MOVA model: only the files that are needed and missing.")
    parser.add_argument("model", help=f"{' or '.join(MODELS)}, or any owner/name on the hub")
    parser.add_argument("folder", type=Path, help="where to; ComfyUI/models/diffusers/NAME is where MOVALoader looks")
    parser.add_argument("--revision", default="", help="commit, tag or branch; by default the newest")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], help="parts that are there as stock files")
    parser.add_argument("--dry-run", action="store_true", help="only list files and sizes")
    chosen = parser.parse_args(arguments)
    try:
        import huggingface_hub
    except ImportError:
        print("huggingface_hub is missing: pip install huggingface_hub", file=sys.stderr)
        return 1
    repository = f"{OWNER}/{chosen.model}" if chosen.model in MODELS else chosen.model
    skip = tuple(chosen.skip)
    try:
        return download(
            huggingface_hub, repository, chosen.folder, revision=chosen.revision, skip=skip, dry_run=chosen.dry_run
        )
    except (OSError, ValueError) as error:  # huggingface_hub's errors of network, name and rights are among these
        print(f"{repository}: {error}\n{AGAIN}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
