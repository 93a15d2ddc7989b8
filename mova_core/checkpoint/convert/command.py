"""One command: a published folder -> single files in ComfyUI's model folders, in a chosen precision, and back.

    python -m mova_core.checkpoint.convert FOLDER MODELS                     # bf16, as it was published
    python -m mova_core.checkpoint.convert FOLDER MODELS --precision fp8     # half the size
    python -m mova_core.checkpoint.convert FOLDER MODELS --precision fp8 --verify
    python -m mova_core.checkpoint.convert MODELS FOLDER --to-folder         # and back

FOLDER is a downloaded MOVA folder, MODELS is ComfyUI's `models` folder. Memory: one weight at a time. Files that are
there already are left alone, a file that was cut off is continued, and a file has its name only when it is whole.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ...errors import MovaError
from ..files import read_json
from .plan import PRECISIONS, SINGLE_FILES, USUAL, Origin, plan
from .work import Say, convert, manifest_path, restore, verify


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 where everything was done, 1 with a message where not."""
    parser = argparse.ArgumentParser(
        prog="python -m mova_core.checkpoint.convert",
        description="Convert a downloaded MOVA folder to single files in ComfyUI's model folders, or back.",
    )
    parser.add_argument("source", type=Path, help="the downloaded folder; with --to-folder the folder of single files")
    parser.add_argument("target", type=Path, help="ComfyUI's models folder; with --to-folder the folder to write")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of experts, shared and text encoder")
    parser.add_argument("--parts", nargs="+", choices=list(SINGLE_FILES), default=list(USUAL), help="only these files")
    parser.add_argument("--name", default="", help="of the model; by default the folder's name")
    parser.add_argument("--revision", default="", help="of the source; by default what the download noted")
    parser.add_argument("--verify", action="store_true", help="read every file again and compare it with the source")
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes, write nothing")
    parser.add_argument("--to-folder", action="store_true", help="the way back")
    chosen = parser.parse_args(arguments)
    try:
        _run(chosen, _say)
    except (MovaError, OSError) as error:
        _say(str(error))
        return 1
    return 0


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _run(chosen: argparse.Namespace, say: Say) -> None:
    if chosen.to_folder:
        restore(chosen.source, chosen.target, say=say)
        return
    name = chosen.name or chosen.source.resolve().name
    if chosen.dry_run:
        origin = Origin(folder=chosen.source, name=name, revision="", hashes={})
        for part in chosen.parts:
            file = plan(origin, part, chosen.precision, chosen.target)
            say(f"{file.size / 1e9:8.2f} GB  {file.path}")
        return
    files = convert(
        chosen.source,
        chosen.target,
        precision=chosen.precision,
        parts=chosen.parts,
        name=name,
        revision=chosen.revision,
        say=say,
    )
    if chosen.verify:
        verify(files, read_json(manifest_path(chosen.target, name)), chosen.target, say)
