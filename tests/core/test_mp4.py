"""An MP4 that is read again: what was written, or refused in words of ours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from mova_core import mp4
from mova_core.errors import CheckpointError, ShapeError

SIZE, FRAMES = (64, 48), 9
HEAD = 1800  # bytes in which a reader finds its way: beyond them lie pictures and sound


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    noise = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 255, (FRAMES, SIZE[1], SIZE[0], 3), dtype=torch.uint8, generator=noise)
    mp4.write(path, SIZE, [pictures], torch.zeros(1, 18000), 24.0, 48000, {"prompt": {}})
    return path


def read(path: Path, start: int = 0) -> int:
    pieces = list(mp4.read(path, SIZE, FRAMES, start))
    assert all(tuple(piece.shape[1:]) == (SIZE[1], SIZE[0], 3) for piece in pieces)
    return sum(len(piece) for piece in pieces)


def test_all_pictures_come_again(clip: Path) -> None:
    assert [read(clip, start) for start in (0, 5, FRAMES)] == [FRAMES, FRAMES - 5, 0]


@pytest.mark.parametrize(("size", "frames"), [((48, 64), FRAMES), (SIZE, FRAMES - 1), (SIZE, FRAMES + 1)])
def test_another_clip_in_its_place_is_refused(clip: Path, size: tuple[int, int], frames: int) -> None:
    with pytest.raises(CheckpointError, match=r"Delete it; what it is of is made again"):
        list(mp4.read(clip, size, frames))


def test_whatever_was_changed_all_pictures_come_or_it_is_refused(clip: Path) -> None:
    whole, chance, refused = clip.read_bytes(), random.Random(5), list[str]()
    for _ in range(300):
        content = bytearray(whole)
        place, way = chance.randrange(HEAD), chance.randrange(4)
        if way == 0:
            for _ in range(chance.choice((1, 2, 8, 64))):
                content[chance.randrange(HEAD)] = chance.randrange(256)
        elif way == 1:
            del content[chance.randrange(len(content)) :]
        elif way == 2:
            del content[place : place + chance.choice((1, 4, 8))]
        else:
            content[place:place] = chance.randbytes(4)
        clip.write_bytes(content)
        try:
            assert read(clip) == FRAMES
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert max(map(len, refused)) < 700


def test_a_clip_that_is_cut_off_anywhere_is_not_whole(clip: Path) -> None:
    assert mp4.is_whole(clip, SIZE, FRAMES)
    assert not mp4.is_whole(clip, SIZE, FRAMES + 1)
    assert not mp4.is_whole(clip, (48, 64), FRAMES)
    whole = clip.read_bytes()
    for count in (1, 50, len(whole) // 2, len(whole) - HEAD // 2, len(whole)):
        clip.write_bytes(whole[:-count])
        assert not mp4.is_whole(clip, SIZE, FRAMES), count
    clip.unlink()
    assert not mp4.is_whole(clip, SIZE, FRAMES)
    clip.mkdir()
    assert not mp4.is_whole(clip, SIZE, FRAMES)


def test_a_place_where_no_file_can_be_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written"):
        mp4.write(tmp_path / "file" / "a.mp4", SIZE, [], None, 24.0, 48000, {})


def test_a_picture_of_another_size_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    pieces = [torch.zeros(1, SIZE[1], SIZE[0], 3, dtype=torch.uint8), torch.zeros(1, 32, 32, 3, dtype=torch.uint8)]
    with pytest.raises(ShapeError, match="does not fit a clip of 64 x 48"):
        mp4.write(tmp_path / "a.mp4", SIZE, pieces, None, 24.0, 48000, {})
    assert not list(tmp_path.iterdir())
