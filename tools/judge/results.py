"""What is kept in the folder of results: the clips' rows, the table and the page."""

import html
import json
import re
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from mova_core.checkpoint.files import read_json
from mova_core.checkpoint.whole_file import write_text
from mova_core.errors import MovaError
from mova_core.preflight import GIB
from tools.judge.scenes import SCENES

NAMED = {"scene", "level", "seed", "reading"}  # what each row says
STYLE = (
    "body{font:14px sans-serif}video{width:100%}p{font-weight:400}td,th{vertical-align:top;text-align:left;width:20em}"
)


def settings(chosen: Namespace) -> dict[str, Any]:
    """What a clip depends on beside scene and level: results of other settings are not gone on with."""
    files = {name: str(getattr(chosen, name) or "") for name in ("model", "image", "lora_high", "lora_low", "words")}
    return {**files, **{name: getattr(chosen, name) for name in ("width", "height", "frames", "steps")}}


def kept(chosen: Namespace) -> list[dict[str, Any]]:
    """Rows of an earlier start.

    Raises:
        MovaError: it had other settings.
    """
    found = _found(chosen)
    if found and found.get("settings") != settings(chosen):
        raise MovaError(f"{chosen.out} holds results of other settings; choose another --out")
    rows: list[dict[str, Any]] = found.get("rows", [])
    return [row for row in rows if (chosen.out / f"{row['scene']}-{row['level']}.mp4").is_file()]


def noted(chosen: Namespace) -> str:
    """What an earlier start said under the table."""
    return str(_found(chosen).get("note", ""))


def _found(chosen: Namespace) -> dict[str, Any]:
    """What rows.json holds; nothing where there is none.

    Raises:
        MovaError: it is damaged.
    """
    file = chosen.out / "rows.json"
    if not file.exists():
        return {}
    found = read_json(file)
    rows = found.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= NAMED for row in rows):
        raise MovaError(f"{file} was changed; remove it, the clips are made again")
    return found


def part(reading: str, pattern: str) -> str:
    found = re.search(pattern, reading)
    return found[1] if found else ""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line a clip. An empty cell was not measured."""
    lines = [
        "| clip | level | seed | s a step | s in all | GiB card | GiB RAM | LUFS | lips | words | parity | faults |"
    ]
    lines.append("|---" * 12 + "|")
    for row in rows:
        said = row["reading"]
        numbers = [
            "" if row["step"] is None else f"{row['step']:.2f}",
            f"{row['seconds']:.0f}",
            f"{row['card'] / GIB:.1f}" if row["card"] else "",
            f"{row['ram'] / GIB:.1f}",
        ]
        judged = [part(said, p) for p in (r"loudness (\S+)", r"lips: ([^;]+)", r"words: ([^;]+)")]
        judged += [row.get("parity", ""), part(said, r"score \S+ ([^;]+)")]
        lines.append("| " + " | ".join([row["scene"], row["level"], str(row["seed"]), *numbers, *judged]) + " |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[dict[str, Any]], levels: Sequence[str]) -> str:
    """One row a scene, its levels side by side."""
    prompts = {scene.name: scene.prompt for scene in SCENES}
    found = {(row["scene"], row["level"]): row for row in rows}
    body = "<tr><th></th>" + "".join(f"<th>{level}</th>" for level in levels) + "</tr>"
    for name in dict.fromkeys(row["scene"] for row in rows):
        cells = "".join(_cell(found.get((name, level))) for level in levels)
        body += f"<tr><th>{name}<p>{html.escape(prompts[name])}</p></th>{cells}</tr>"
    return f'<!doctype html><meta charset="utf-8"><title>MOVA</title><style>{STYLE}</style><table>{body}</table>\n'


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "<td></td>"
    clip = f"{row['scene']}-{row['level']}.mp4"
    return f'<td><video controls loop src="{clip}"></video><p>{html.escape(row["reading"])}</p></td>'


def write(chosen: Namespace, rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Rows, table and page; `note` stands under the table."""
    found = {"settings": settings(chosen), "rows": rows, "note": note}
    write_text(chosen.out / "rows.json", json.dumps(found, indent=1))
    write_text(chosen.out / "table.md", table(rows) + note)
    write_text(chosen.out / "index.html", page(rows, chosen.levels))
