"""A folder of clips and what is said of each; every way in which that goes wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mova_core.errors import MovaError
from mova_core.training.captions import left_out, recordings


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


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("metadata__jsonl", '{"file_name": "a.mp4", "text": "one"}\n\n{"file_name": "b.MOV", "text": "two"}\n'),
        ("c__csv", "file;caption\r\na.mp4;one\r\nb.MOV;two\r\n"),
        ("c__CSV", "file\tcaption\na.mp4\tone\nb.MOV\ttwo\n"),
        ("c__csv", "file|caption\na.mp4|one\nb.MOV|two\n"),
        ("c__csv", "file,caption,,\na.mp4,one,,\nb.MOV,two,,\n,,,\n,,,,,\n"),
        ("c__csv", "file,caption\ra.mp4,one\rb.MOV,two\r"),
        ("metadata__JSON", '[{"file": "a.mp4", "caption": "one"}, {"file": "b.MOV", "caption": "two"}]'),
    ],
)
def test_lists_as_other_programs_write_them(tmp_path: Path, name: str, rows: str) -> None:
    assert told(folder(tmp_path, **{name: rows})) == {"a.mp4": "one", "b.MOV": "two"}


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\n"], ids=["line", "next", "tab", "newline"])
def test_a_caption_of_several_lines_is_one(tmp_path: Path, mark: str) -> None:
    rows = [{"file": "a.mp4", "caption": f"one{mark}more"}, {"file": "b.MOV", "caption": "two"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert told(folder(tmp_path, c__jsonl=lines))["a.mp4"] == f"one{mark}more"
    (tmp_path / "c.jsonl").unlink()
    assert (
        told(folder(tmp_path, c__csv=f'file,caption\na.mp4,"one{mark}more"\nb.MOV,two\n'))["a.mp4"] == f"one{mark}more"
    )


@pytest.mark.parametrize("beside", ["a.caption", "a.mp4.txt", "A.TXT", "a.mp4.caption"])
def test_texts_as_other_trainers_call_them(tmp_path: Path, beside: str) -> None:
    (folder(tmp_path, b__txt="two") / beside).write_text("one")
    assert told(tmp_path)["a.mp4"] == "one"


def test_text_of_windows_and_accents_of_a_mac(tmp_path: Path) -> None:
    (tmp_path / "Cafe\u0301 1.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_bytes("file,caption\nCaf\u00e9 1.mp4,a café\n".encode("utf-16"))
    assert list(told(tmp_path).values()) == ["a café"]
    (tmp_path / "list.csv").unlink()
    (tmp_path / "Caf\u00e9 1.txt").write_text("another")
    assert list(told(tmp_path).values()) == ["another"]


def test_what_lies_beside_clips_is_no_clip(tmp_path: Path) -> None:
    for name in ("._a.mp4", ".DS_Store", "Thumbs.db", "cover.jpg", "voice.WAV", "._cover.jpg"):
        (folder(tmp_path, a__txt="one", b__txt="two") / name).write_bytes(b"x")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    (tmp_path / "linked clip.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "linked clip.txt").write_text("three")
    assert told(tmp_path) == {"a.mp4": "one", "b.MOV": "two", "linked clip.mp4": "three"}
    for name in ("more", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "more" / "camera.MTS").write_bytes(b"x")
    (tmp_path / "c.txt").write_text("of a clip that is gone")
    assert left_out(tmp_path) == ["c.txt", "cover.jpg", "gone.mp4", "more/", "voice.WAV"]


@pytest.mark.parametrize("suffix", [".3gp", ".MTS", ".m2ts", ".ts", ".vob", ".ogv", ".mxf"])
def test_files_of_cameras_are_recordings(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    assert told(tmp_path, "one") == {f"a{suffix}": "one"}


def test_the_folder_is_read_once_however_many_clips_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (tmp_path / f"{number}.mp4").write_bytes(b"x")
        (tmp_path / f"{number}.txt").write_text("one")
    read, real = [], Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: read.append(self) or real(self))
    assert len(told(tmp_path)) == 20
    assert len(read) == 1


def test_a_default_for_those_without(tmp_path: Path) -> None:
    assert told(folder(tmp_path, a__txt="one"), " the rest ") == {"a.mp4": "one", "b.MOV": "the rest"}


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (lambda p: p / "none", "there is no folder"),
    "a file": (lambda p: folder(p) / "a.mp4", "there is no folder"),
    "too long": (lambda p: p / ("x" * 400), "there is no folder"),
    "empty": (lambda p: p, "holds no video"),
    "no captions": (lambda p: folder(p), "2 of 2 clips have no caption .a.mp4, b.MOV"),
    "empty caption": (lambda p: folder(p, a__txt=" \n", b__txt="two"), "1 of 2 clips have no caption .a.mp4"),
    "zeros": (lambda p: folder(p, a__txt="o\0n\0e\0", b__txt="two"), "a.txt holds zero bytes"),
    "not text": (lambda p: _bytes(folder(p, b__txt="two")), "not text in UTF-8"),
    "no columns": (lambda p: folder(p, x__csv="one,two\na.mp4,x\n"), "row 1 of x.csv has the columns one, two"),
    "strangers": (lambda p: folder(p, x__csv="file,caption\na.mp4,x\nb.MOV,y\nc.mp4,z\n"), "names c.mp4"),
    "two captions": (lambda p: folder(p, x__csv="file,caption\na.mp4,x\na.mp4,y\n"), "two captions for a.mp4"),
    "two lists": (lambda p: folder(p, x__csv="a", y__csv="b"), "holds 2 lists"),
    "commas": (lambda p: folder(p, x__csv="file,caption\na.mp4,a man, walking\n"), "row 1 of x.csv has more cells"),
    "two texts": (lambda p: folder(p, a__txt="one", a__caption="uno", b__txt="two"), "a.mp4 has 2 captions"),
    "no json lines": (lambda p: folder(p, x__jsonl="{"), "x.jsonl is not JSON"),
    "no table": (lambda p: folder(p, x__csv='file,caption\n"a.mp4,x\n'), "no table"),
    "no json": (lambda p: folder(p, metadata__json="{"), "not JSON"),
    "no list": (lambda p: folder(p, metadata__json='{"a": 1}'), "must be a list"),
}


def _bytes(path: Path) -> Path:
    (path / "a.txt").write_bytes(b"caf\xe9")
    return path


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    make, says = BAD[case]
    with pytest.raises(MovaError, match=says):
        recordings(make(tmp_path))
