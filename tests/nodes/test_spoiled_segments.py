"""A long clip on disk, spoiled in every way: refused in words before anything is written, or joined right."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from safetensors.torch import save_file

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import FPS, Run

pytestmark = needs_comfy

FRAMES, OVERLAP, HEIGHT, WIDTH, RATE = 9, 5, 32, 48, 48000
SAMPLES = int(RATE * FRAMES / FPS)
Spoil = Callable[[Path], None]


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def put(path: Path, entries: Any, data: bytes) -> None:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edited(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """The header of part 1 with a change."""

    def spoil(folder: Path) -> None:
        entries, data = header(folder / "001.safetensors")
        put(folder / "001.safetensors", change(entries) or entries, data)

    return spoil


def noted(key: str, value: Any) -> Spoil:
    def change(entries: dict[str, Any]) -> None:
        entries["__metadata__"][key] = value
        if value is None:
            del entries["__metadata__"][key]

    return edited(change)


def shaped(name: str, *shape: int) -> Spoil:
    return edited(lambda entries: entries[name].update(shape=list(shape)))


def cut(count: int) -> Spoil:
    """Part 1 without its last bytes."""

    def spoil(folder: Path) -> None:
        path = folder / "001.safetensors"
        path.write_bytes(path.read_bytes()[:-count])

    return spoil


def filled(content: bytes) -> Spoil:
    return lambda folder: (folder / "001.safetensors").write_bytes(content) and None


def stored(**changes: Any) -> Spoil:
    """Part 1 made of other tensors, by another writer."""

    def spoil(folder: Path) -> None:
        tensors = {
            "pictures": torch.zeros(FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8),
            "sound": torch.zeros(1, SAMPLES),
        }
        notes = {"mova_segment": "1", "fps": str(FPS), "sample_rate": str(RATE)}
        for name, value in changes.items():
            (tensors if isinstance(value, torch.Tensor) else notes)[name] = value
        save_file(tensors, folder / "001.safetensors", metadata=notes)

    return spoil


def beside(name: str) -> Spoil:
    return lambda folder: (folder / name).write_bytes(b"left over") and None


def removed(*names: str) -> Spoil:
    return lambda folder: [(folder / f"{name}.safetensors").unlink() for name in names] and None


def moved(old: str, new: str) -> Spoil:
    return lambda folder: (folder / f"{old}.safetensors").rename(folder / f"{new}.safetensors") and None


def replaced(make: Callable[[Path], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "001.safetensors").unlink()
        make(folder / "001.safetensors")

    return spoil


def refused() -> Iterator[tuple[str, Spoil]]:
    for count in (1, 7, 100, 50000):
        yield f"the last {count} bytes are gone", cut(count)
    for count in (0, 1, 7, 8, 9, 60, 200, 400, 5000):
        yield f"{count} bytes are left", lambda folder, n=count: os.truncate(folder / "001.safetensors", n)
    for content in (
        b"",
        b"\0" * 5000,
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1",
        b"PK\3\4" * 99,
    ):
        yield f"the file is {content[:12]!r}", filled(content)
    for length in (0, 1, 2**20, 2**40, 2**64 - 1):
        yield f"a header of {length} bytes is stated", filled(length.to_bytes(8, "little") + b"{}" * 50)
    for text in (b"[]", b"null", b"{", b'{"a":1}', b"[" * 5000, b"\xff\xfe{}", b'{"pictures":{},"sound":{}}'):
        yield f"the header is {text[:20]!r}", edited(lambda entries, text=text: text)
    yield "a byte more lies behind", lambda folder: (folder / "001.safetensors").open("ab").write(b"x") and None
    for value in (
        None,
        "nan",
        "inf",
        "0",
        "-24",
        "1e300",
        "x",
        "",
        "24.0.0",
        "0.5",
        "121",
        "30.0",
        "9" * 5000,
        24,
        ["24"],
    ):
        yield f"fps is {str(value)[:9]}", noted("fps", value)
    for value in (None, "-1", "48000.5", "x", "", "1e9", "7999", "384001", "9" * 5000, "44100", "0", "nan", 48000):
        yield f"the sample rate is {str(value)[:9]}", noted("sample_rate", value)
    for value in (None, "", "2", 1):
        yield f"the mark is {value!r}", noted("mova_segment", value)
    yield "no metadata", edited(lambda entries: {k: v for k, v in entries.items() if k != "__metadata__"})
    yield "metadata is a list", edited(lambda entries: entries | {"__metadata__": []})
    for kind in ("I8", "BOOL", "F8_E4M3"):
        yield f"pictures are {kind}", edited(lambda entries, kind=kind: entries["pictures"].update(dtype=kind))
    for kind in ("I32", "U32"):
        yield f"sound is {kind}", edited(lambda entries, kind=kind: entries["sound"].update(dtype=kind))
    yield "sound is half", stored(sound=torch.zeros(1, SAMPLES, dtype=torch.float16))
    yield "sound is double", stored(sound=torch.zeros(1, SAMPLES, dtype=torch.float64))
    yield "pictures are float", stored(pictures=torch.zeros(FRAMES, HEIGHT, WIDTH, 3))
    yield "sides are swapped", shaped("pictures", FRAMES, WIDTH, HEIGHT, 3)
    yield "twice the pictures of half the size", shaped("pictures", 2 * FRAMES, HEIGHT // 2, WIDTH, 3)
    yield "the channels come first", shaped("pictures", FRAMES, 3, HEIGHT, WIDTH)
    yield "pictures of one axis", shaped("pictures", FRAMES * HEIGHT * WIDTH * 3)
    yield "pictures of five axes", shaped("pictures", 1, FRAMES, HEIGHT, WIDTH, 3)
    for shape in ((-1, HEIGHT, WIDTH, 3), (2**40, 2**40, 1, 3), (FRAMES, HEIGHT, WIDTH, 4), (0, HEIGHT, WIDTH, 3)):
        yield f"pictures of shape {shape}", shaped("pictures", *shape)
    yield "sound of one axis", shaped("sound", SAMPLES)
    yield "sound of three axes", shaped("sound", 1, 1, SAMPLES)
    yield "sound in as many channels as samples", shaped("sound", SAMPLES, 1)
    yield "sound of three channels", stored(sound=torch.zeros(3, SAMPLES))
    yield "a sample too few", stored(sound=torch.zeros(1, SAMPLES - 1))
    yield "no samples, but a rate", stored(sound=torch.zeros(1, 0))
    yield "sound holds NaN", stored(sound=torch.full((1, SAMPLES), float("nan")))
    yield "sound holds infinity", stored(sound=torch.full((1, SAMPLES), float("inf")))
    yield "odd height", stored(pictures=torch.zeros(FRAMES, HEIGHT - 1, WIDTH, 3, dtype=torch.uint8))
    yield "another size", stored(pictures=torch.zeros(FRAMES, HEIGHT * 2, WIDTH, 3, dtype=torch.uint8))
    yield (
        "no more pictures than the overlap",
        stored(
            pictures=torch.zeros(OVERLAP, HEIGHT, WIDTH, 3, dtype=torch.uint8),
            sound=torch.zeros(1, int(RATE * OVERLAP / FPS)),
        ),
    )
    yield "a tensor more", stored(third=torch.zeros(3))
    yield "pictures are called otherwise", edited(lambda entries: entries | {"images": entries.pop("pictures")})
    yield "sound is missing", edited(lambda entries: {k: v for k, v in entries.items() if k != "sound"})
    yield "offsets overlap", edited(lambda entries: entries["sound"].update(data_offsets=[0, 4 * SAMPLES]))
    yield "offsets run backwards", edited(lambda entries: entries["sound"].update(data_offsets=[9, 3]))
    yield "offsets are no numbers", edited(lambda entries: entries["sound"].update(data_offsets=["0", None]))
    for gone in (("000",), ("001",), ("000", "001", "002")):
        yield f"parts {gone} are deleted", removed(*gone)
    yield "a part has another number", moved("001", "003")
    yield "the numbers begin at one", moved("000", "003")
    yield "the number is written otherwise", moved("001", "1")
    yield "a folder stands in its place", replaced(Path.mkdir)
    yield "a link that leads nowhere", replaced(lambda path: path.symlink_to("nowhere"))
    yield "a link to itself", replaced(lambda path: path.symlink_to(path))
    yield "a pipe", replaced(os.mkfifo)
    yield "the folder is deleted", shutil.rmtree


def joined() -> Iterator[tuple[str, Spoil]]:
    yield "nothing was spoiled", lambda folder: None
    for name in (
        "003.part",
        ".003.safetensors.7.part",
        ".tmpAbCdEf",
        "notes.txt",
        "001 (1).safetensors",
        "0001.safetensors",
    ):
        yield f"{name} lies beside", beside(name)
    yield "a folder lies beside", lambda folder: (folder / "old").mkdir()
    yield (
        "a link to a part elsewhere",
        lambda folder: (
            shutil.move(folder / "001.safetensors", folder / "away") and (folder / "001.safetensors").symlink_to("away")
        ),
    )
    yield "the header ends in spaces", edited(lambda entries: json.dumps(entries).encode() + b" " * 32)
    yield "more notes", noted("author", "someone")
    yield "stereo", stored(sound=torch.zeros(2, SAMPLES))
    yield "5.1", stored(sound=torch.zeros(6, SAMPLES))
    yield "another rate", stored(sound=torch.zeros(1, int(44100 * FRAMES / FPS)), sample_rate="44100")
    yield "no sound", stored(sound=torch.zeros(1, 0), sample_rate="0")
    yield "louder than full scale", stored(sound=torch.full((1, SAMPLES), 3.0))
    yield "pictures behind the sound", edited(_swapped)


def _swapped(entries: dict[str, Any]) -> dict[str, Any]:
    """The same file with the keys of its header in another order."""
    return dict(reversed(entries.items()))


@pytest.fixture(scope="module")
def whole(run: Run, comfy_base: Path) -> Path:
    """The folder of a clip of three parts."""
    for index in range(3):
        images = torch.rand(FRAMES, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(index))
        audio = {"waveform": 0.1 * torch.ones(1, 1, SAMPLES), "sample_rate": RATE}
        run("MOVASaveSegment", images=images, audio=audio, fps=FPS, name="whole", index=index)
    return comfy_base / "output" / "mova_segments" / "whole"


@pytest.fixture
def spoiled(whole: Path) -> Iterator[Path]:
    folder = shutil.copytree(whole, whole.with_name("spoiled"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def join(run: Run) -> Path:
    return run("MOVAJoinSegments", name="spoiled", overlap=OVERLAP, filename_prefix="spoiled/clip")[0]


@pytest.mark.parametrize(("what", "spoil"), list(refused()), ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_refused_and_nothing_is_written(
    run: Run, pack: Pack, spoiled: Path, comfy_base: Path, what: str, spoil: Spoil
) -> None:
    spoil(spoiled)
    with pytest.raises(pack.module("mova_core.errors").MovaError) as refusal:
        join(run)
    assert 30 < len(str(refusal.value)) < 700
    written = comfy_base / "output" / "spoiled"
    assert not list(written.glob("*"))


@pytest.mark.parametrize(("what", "spoil"), list(joined()), ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_joined_right(run: Run, spoiled: Path, comfy_base: Path, what: str, spoil: Spoil) -> None:
    spoil(spoiled)
    file = comfy_base / "output" / join(run)
    with av.open(str(file)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3 * FRAMES - 2 * OVERLAP
    file.unlink()


def test_there_are_a_hundred_ways() -> None:
    assert len(list(refused())) + len(list(joined())) > 120
