"""A folder of clips and what is said of each; every way in which that goes wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mova_core.errors import MovaError
from mova_core.training.captions import recordings


def folder(path: Path, **files: str) -> Path:
    for name in ("a.mp4", "b.MOV"):
        (path / name).write_bytes(b"x")
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return path


def told(path: Path, default: str = "") -> dict[str, str]:
    return {each.path.name: each.caption for each in recordings(path, default)}


def test_a_text_beside_each_clip(tmp_path: Path) -> None:
    assert told(folder(tmp_path, a__txt=" one \n", b__txt="zwei\n\nThe audio shows rain.")) == {
        "a.mp4": "one",
        "b.MOV": "zwei\n\nThe audio shows rain.",
    }


@pytest.mark.parametrize(
    "rows",
    [
        "file,caption\na.mp4,one\nb.MOV,two\n",
        "\ufefffile_name,text\r\na.mp4,one\r\nb.MOV,two\r\n",
        'Caption,Video\none,clips/a.mp4\n"two",clips\\b.MOV\n',
    ],
)
def test_one_list_for_all(tmp_path: Path, rows: str) -> None:
    assert told(folder(tmp_path, captions__csv=rows)) == {"a.mp4": "one", "b.MOV": "two"}


def test_upstreams_list(tmp_path: Path) -> None:
    rows = [{"video_path": "videos/a.mp4", "caption": "one"}, {"video_path": "b.MOV", "caption": "two"}]
    assert told(folder(tmp_path, metadata__json=json.dumps(rows))) == {"a.mp4": "one", "b.MOV": "two"}


def test_a_default_for_those_without(tmp_path: Path) -> None:
    assert told(folder(tmp_path, a__txt="one"), " the rest ") == {"a.mp4": "one", "b.MOV": "the rest"}


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (lambda p: p / "none", "there is no folder"),
    "a file": (lambda p: folder(p) / "a.mp4", "there is no folder"),
    "too long": (lambda p: p / ("x" * 400), "there is no folder"),
    "empty": (lambda p: p, "holds no video"),
    "no captions": (lambda p: folder(p), "2 of 2 clips have no caption .a.mp4, b.MOV"),
    "empty caption": (lambda p: folder(p, a__txt=" \n", b__txt="two"), "1 of 2 clips have no caption .a.mp4"),
    "not text": (lambda p: _bytes(folder(p, b__txt="two")), "not text in UTF-8"),
    "no columns": (lambda p: folder(p, x__csv="one,two\na.mp4,x\n"), "row 1 of x.csv has the columns one, two"),
    "strangers": (lambda p: folder(p, x__csv="file,caption\na.mp4,x\nb.MOV,y\nc.mp4,z\n"), "names c.mp4"),
    "two captions": (lambda p: folder(p, x__csv="file,caption\na.mp4,x\na.mp4,y\n"), "two captions for a.mp4"),
    "two lists": (lambda p: folder(p, x__csv="a", y__csv="b"), "holds 2 lists"),
    "no table": (lambda p: folder(p, x__csv='file,caption\n"a.mp4,x\n'), "no table"),
    "no json": (lambda p: folder(p, metadata__json="{"), "not JSON"),
    "no list": (lambda p: folder(p, metadata__json='{"a": 1}'), "must be a list"),
}


def _bytes(path: Path) -> Path:
    (path / "a.txt").write_bytes(b"\xff\xfe\x00bad")
    return path


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    make, says = BAD[case]
    with pytest.raises(MovaError, match=says):
        recordings(make(tmp_path))
