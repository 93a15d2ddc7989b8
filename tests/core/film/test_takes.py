"""Takes on disk: whole or not at all, never replaced."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mova_core.errors import CheckpointError
from mova_core.film.decide import Known
from mova_core.film.take_checks import FIELDS
from mova_core.film.takes import (
    CLIP,
    HEADER,
    Take,
    add_signature,
    could_go,
    digest,
    end_digest,
    find,
    sweep,
    takes,
    write_take,
)
from mova_core.film.takes import END as END_FILE
from mova_core.film.takes import LATENTS as LATENTS_FILE
from tests.fixtures.vanishing import at_every_look

END = {"pictures": torch.zeros(5, 16, 16, 3, dtype=torch.uint8), "sound": torch.zeros(1, 10)}
LATENTS = {"video": torch.ones(1, 16, 2, 2, 2), "audio": torch.ones(1, 128, 11)}


def clip(path: Path) -> None:
    path.write_bytes(b"clip")


def put(film: Path, prompt: str = "a", write: object = clip) -> Take:
    take = Take(
        shot="one", number=0, frames=5, held=0, height=16, width=16, fps=24.0, sample_rate=48000,
        end=end_digest(END["pictures"], END["sound"]), content={"prompt": prompt},
        mean=(1.0, 2.0, 3.0), spread=(1.0, 1.0, 1.0),
    )  # fmt: skip
    return write_take(film, take, LATENTS, END, write)  # type: ignore[arg-type]


def test_a_take_is_read_as_it_was_written(tmp_path: Path) -> None:
    take = put(tmp_path)
    assert takes(tmp_path) == [take]
    assert take.digest == digest({"prompt": "a"})
    assert torch.equal(take.latents()[0], LATENTS["video"])
    assert [put(tmp_path, name).number for name in "bc"] == [2, 3]


def test_the_same_take_again_leaves_the_first(tmp_path: Path) -> None:
    first = put(tmp_path)
    put(tmp_path, write=lambda path: path.write_bytes(b"another"))
    assert (first.folder / CLIP).read_bytes() == b"clip"
    assert len(list((tmp_path / "one").iterdir())) == 1


def test_the_same_take_of_a_quicker_process_is_taken(tmp_path: Path) -> None:
    def meanwhile(path: Path) -> None:
        clip(path)
        if not takes(tmp_path):
            made = put(tmp_path / "elsewhere")
            made.folder.rename(tmp_path / "one" / made.digest)

    assert put(tmp_path, write=meanwhile) == takes(tmp_path)[0]


def test_nothing_is_left_of_a_take_that_the_disk_did_not_take(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        put(tmp_path, write=full)
    assert list((tmp_path / "one").iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day_and_no_sooner(tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.999999.part" for name in ("old", "new")]
    for folder in left:
        folder.mkdir()
    os.utime(left[0], (time.time() - 90000,) * 2)
    sweep(tmp_path)
    assert [folder.exists() for folder in left] == [False, True]


def test_another_way_of_writing_the_graph_is_added_once(tmp_path: Path) -> None:
    take = put(tmp_path)
    for _ in range(2):
        add_signature(find(tmp_path, take.id), {"model": "x"})
    assert find(tmp_path, take.id).signatures == [{"model": "x"}]


def test_what_could_go_is_what_the_film_does_not_use(tmp_path: Path) -> None:
    made = [put(tmp_path, name) for name in "abc"]
    assert could_go(tmp_path, [made[1]], 0) == []
    assert could_go(tmp_path, [made[1]], 1.0) == []
    assert could_go(tmp_path, [made[1]], 1e-9) == [made[0], made[2]]


def test_a_take_that_is_gone_is_named(tmp_path: Path) -> None:
    take = put(tmp_path)
    (take.folder / CLIP).unlink()
    with pytest.raises(CheckpointError, match=f"the take one/{take.digest} of {tmp_path.name} is gone or not whole"):
        find(tmp_path, take.id)
    assert put(tmp_path) == replace(take, number=1)


def test_a_name_of_any_length_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as told:
        find(tmp_path, f"one/{'x' * 20000}")
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("gone", ["film", "film/one", "take"])
def test_a_take_that_vanishes_while_it_is_looked_at_does_not_count(tmp_path: Path, gone: str) -> None:
    film = tmp_path / "film"
    take = put(film)

    def look() -> tuple[int, str]:
        found = takes(film)
        counted = len(found)
        could_go(film, [], 1e-9)
        add_signature(take, {"model": "x"})
        take.bytes()
        try:
            take.pictures(), find(film, take.id)
        except CheckpointError as refused:
            return counted, str(refused)
        return counted, ""

    place = take.folder if gone == "take" else tmp_path / gone
    told = [made for _, made in at_every_look(place, lambda: put(film), look)]
    assert {count for count, _ in told} == {0, 1}
    assert {said for _, said in told} <= {
        "",
        f"the take {take.id} of film is gone or not whole; run the film again to make it",
    }


@pytest.mark.parametrize("gone", ["film", "film/one", "film/two"])
def test_a_take_is_put_on_disk_though_its_folder_vanishes_meanwhile(tmp_path: Path, gone: str) -> None:
    """Whole, or named as gone where it went when it was done."""
    film = tmp_path / "film"

    def make() -> None:
        put(film, "another")
        (film / "two").mkdir(exist_ok=True)

    def again() -> str:
        try:
            return put(film, write=slow).id
        except CheckpointError as refused:
            return str(refused)

    def slow(path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"clip")

    told = [made for _, made in at_every_look(tmp_path / gone, make, again)]
    name = f"one/{digest({'prompt': 'a'})}"
    assert set(told) <= {name, f"the take {name} of film is gone or not whole; run the film again to make it"}
    assert told.count(name) > len(told) / 2


WRONG = (None, True, -1, 0.5, 10**400, float("nan"), "x", "9" * 5000, [], {}, [1], {"a": 1}, [None] * 3, "\ud800")


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_header_that_says_what_no_take_could_be_does_not_count(tmp_path: Path, name: str) -> None:
    """Some of these are a right text, or an empty list of texts: then all that reads the take goes on."""
    take = put(tmp_path)
    header = take.folder / HEADER
    whole = json.loads(header.read_text())
    for wrong in WRONG:
        header.write_text(json.dumps({**whole, name: wrong}))
        for found in takes(tmp_path):
            assert could_go(tmp_path, [found], 1e-9) == []
            Known.of([found])
            if name != "end":
                assert found.pictures().shape == (5, 16, 16, 3)
    header.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
    assert takes(tmp_path) == []


@pytest.mark.parametrize("file", [END_FILE, LATENTS_FILE])
def test_what_was_changed_in_a_take_is_named_and_never_used(tmp_path: Path, file: str) -> None:
    take = put(tmp_path)
    path = take.folder / file
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    spoiled = [
        whole[:start] + b"\xff\xff\xff\x7f" + whole[start + 4 :],
        whole[:-9],
        whole + b"x",
        b"",
        whole[:start] * 2,
    ]
    for content in spoiled:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="Delete this take's folder; it is made again"):
            take.latents() if file == LATENTS_FILE else take.sound()
    path.write_bytes(whole)
    take.latents(), take.sound(), take.pictures()
