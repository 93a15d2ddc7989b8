"""Joint latents on disk: what is read is what was written, and everything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.errors import CheckpointError
from mova_core.kept.latents import LATENT_MARK, JointLatent, read_latent, write_latent

NOISE = torch.Generator().manual_seed(0)
VIDEO, AUDIO = torch.randn(2, 16, 3, 6, 10, generator=NOISE), torch.randn(2, 128, 19, generator=NOISE)
LATENT = JointLatent(video=VIDEO, audio=AUDIO, fps=23.976, audio_rate=50.0, origin={"made_by": "a test"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masks", [0, 1, 2])
def test_what_is_read_is_what_was_written(tmp_path: Path, dtype: torch.dtype, masks: int) -> None:
    kept = JointLatent(
        video=VIDEO.to(dtype),
        audio=AUDIO.to(dtype),
        fps=23.976,
        audio_rate=43.066,
        masks=(torch.ones(1, 1, 3, 6, 10), torch.zeros(1, 1, 19))[:masks],
        batch_index=(4, 5),
        origin={"made_by": "a test"},
    )
    write_latent(tmp_path / "new" / "a.safetensors", kept)
    read = read_latent(tmp_path / "new" / "a.safetensors")
    assert torch.equal(read.video, kept.video)
    assert read.audio is not None
    assert torch.equal(read.audio, AUDIO.to(dtype))
    assert [torch.equal(a, b) for a, b in zip(read.masks, kept.masks, strict=True)] == [True] * masks
    assert (read.fps, read.audio_rate, read.batch_index, read.origin) == (23.976, 43.066, (4, 5), kept.origin)


def test_a_file_replaces_another_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_latent(tmp_path / "a.safetensors", LATENT)
    write_latent(tmp_path / "a.safetensors", JointLatent(video=VIDEO + 1, audio=AUDIO, fps=24.0))
    assert torch.equal(read_latent(tmp_path / "a.safetensors").video, VIDEO + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_disk_that_takes_nothing_is_said_and_the_old_file_stays(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    write_latent(path, LATENT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_latent(path, JointLatent(video=VIDEO + 1, audio=AUDIO, fps=24.0))
    assert torch.equal(read_latent(path).video, VIDEO)
    assert [left.name for left in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_latent(tmp_path / "file" / "a.safetensors", LATENT)


def test_a_stock_latent_of_the_picture_is_read_scaled_as_the_stock_node_does(tmp_path: Path) -> None:
    save_file({"latent_tensor": VIDEO, "latent_format_version_0": torch.tensor([])}, tmp_path / "new.latent")
    save_file({"latent_tensor": VIDEO}, tmp_path / "old.latent")
    new, old = read_latent(tmp_path / "new.latent"), read_latent(tmp_path / "old.latent")
    assert torch.equal(new.video, VIDEO)
    assert new.audio is None
    assert torch.equal(old.video, VIDEO / 0.18215) or torch.allclose(old.video, VIDEO / 0.18215)


@pytest.mark.parametrize(
    ("tensors", "notes", "says"),
    [
        ({"weight": VIDEO}, {}, "no latent: it holds weight"),
        ({"latent_tensor": torch.randn(1, 4, 8, 8)}, {}, r"\(1, 4, 8, 8\)"),
        ({"latent_tensor": torch.full((1, 16, 1, 2, 2), float("nan"))}, {}, "NaN"),
        ({"video": VIDEO}, {LATENT_MARK: "1"}, "lacks audio"),
        ({"video": VIDEO, "audio": AUDIO[:1]}, {LATENT_MARK: "1"}, "joint latent"),
        ({"video": VIDEO, "audio": AUDIO * float("inf")}, {LATENT_MARK: "1"}, "its sound"),
        ({"video": VIDEO.int(), "audio": AUDIO}, {LATENT_MARK: "1"}, "floating point"),
        ({"video": VIDEO, "audio": AUDIO}, {LATENT_MARK: "1", "frame_rate": "nan"}, "out of range"),
        ({"video": VIDEO, "audio": AUDIO}, {LATENT_MARK: "1", "frame_rate": "fast"}, "fast"),
        ({"video": VIDEO, "audio": AUDIO}, {LATENT_MARK: "1", "batch_index": "7"}, "header was changed"),
        ({"video": VIDEO, "audio": AUDIO}, {LATENT_MARK: "1", "batch_index": "[-1]"}, "out of range"),
        ({"video": VIDEO, "audio": AUDIO}, {LATENT_MARK: "1", "origin": "[[["}, "a.safetensors"),
        ({"video": VIDEO, "audio": AUDIO, "mask": AUDIO * float("nan")}, {LATENT_MARK: "1"}, "its mask"),
    ],
    ids=range(13),
)
def test_what_is_no_latent_is_refused_by_name(tmp_path: Path, tensors, notes, says) -> None:
    save_file(tensors, tmp_path / "a.safetensors", metadata=notes)
    with pytest.raises(CheckpointError, match=says):
        read_latent(tmp_path / "a.safetensors")


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    write_latent(tmp_path / "a.safetensors", LATENT)
    whole = (tmp_path / "a.safetensors").read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b.safetensors").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_latent(tmp_path / "b.safetensors")
