"""LoRA files read back by the pack's own reader, states bit for bit, and nothing lost when a disk is full."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mova_core.checkpoint.files import read_header
from mova_core.checkpoint.lora import choose, parse
from mova_core.checkpoint.lora_files import read_lora
from mova_core.errors import CheckpointError
from mova_core.model.mova import Mova
from mova_core.training import files
from mova_core.training.adapters import part_of
from tests.fixtures.tiny_model import TINY
from tests.fixtures.training import parameters
from tests.fixtures.vanishing import at_every_look

SHAPES = {key: tuple(tensor.shape) for key, tensor in Mova(TINY, device="meta").state_dict().items()}


def save(folder: Path, *parts: str, alpha: float = 3.0, **more: Any) -> list[Path]:
    state = parameters(*parts)
    metadata = files.lora_metadata("face", state, 2, alpha, {"seed": 7, "optimizer": "adamw"}, 0.0)
    return files.save_lora(folder / "face.safetensors", state, alpha, metadata, **more)


@pytest.mark.parametrize("parts", [("high",), ("low", "audio"), ("high", "low", "audio", "bridge")], ids="+".join)
def test_our_loader_reads_what_was_trained_and_no_more(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (path,) = save(tmp_path, *parts)
    lora = parse(read_lora(path).tensors, SHAPES, name=path.name)
    state = parameters(*parts)
    assert not lora.dropped
    assert len(lora.changes) == len(state) // 2
    assert {c.expert for c in lora.changes if c.part == "video"} == {p for p in parts if p in ("high", "low")}
    for change in lora.changes:
        assert change.scale == 1.5
        prefix = {"high": "video_dit.", "low": "video_dit_2.", None: ""}[change.expert]
        down = state[f"{prefix}{change.parameter.removesuffix('.weight')}.lora_A.weight"]
        assert torch.equal(change.tensors["down"], down.detach().bfloat16())
    assert {part_of(key) for key in read_header(path).shapes} == set(parts)


def test_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    (path,) = save(tmp_path)
    told = read_header(path).metadata
    assert (told["rank"], told["alpha"], told["ss_network_dim"], told["ss_network_alpha"]) == ("2", "3", "2", "3.0")
    assert (told["ss_output_name"], told["ss_seed"], told["ss_optimizer"]) == ("face", "7", "adamw")
    assert json.loads(told["ss_network_args"])["parts"] == ["high", "low", "audio", "bridge"]
    assert told["modelspec.title"] == "face"
    assert told["modelspec.architecture"] == "mova/lora"


def test_diffsynths_naming_is_a_file_a_component_that_says_which_it_is(tmp_path: Path) -> None:
    paths = save(tmp_path, naming="diffsynth")
    assert [p.name for p in paths] == [
        f"face_{c}.safetensors" for c in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge")
    ]
    for path, expert in zip(paths[:2], ("high", "low"), strict=True):
        tensors = read_lora(path).tensors
        assert "blocks.0.self_attn.q.lora_A.weight" in tensors
        lora, _ = choose(parse(tensors, SHAPES, name=path.name), "auto", path.name)
        assert {change.expert for change in lora.changes} == {expert}
        assert {change.scale for change in lora.changes} == {1.0}
        up = parameters()[f"{'video_dit' if expert == 'high' else 'video_dit_2'}.blocks.0.ffn.0.lora_B.weight"]
        assert torch.equal(tensors["blocks.0.ffn.0.lora_B.weight"], (1.5 * up.detach()).bfloat16())
    for path, part in zip(paths[2:], ({"audio"}, {"audio_to_video", "video_to_audio"}), strict=True):
        assert {c.part for c in parse(read_lora(path).tensors, SHAPES, name=path.name).changes} == part


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a/b": torch.randn(3, 4), "c": torch.tensor(7), "d": torch.zeros(2, dtype=torch.int8)}
    files.save_state(tmp_path / "s.safetensors", tensors, {"step": 3, "losses": [0.1]})
    found, state = files.load_state(tmp_path / "s.safetensors")
    assert state == {"step": 3, "losses": [0.1]}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_another_file_is_no_state(tmp_path: Path) -> None:
    (path,) = save(tmp_path)
    with pytest.raises(CheckpointError, match="no state"):
        files.load_state(path)


@pytest.mark.parametrize("where", ["room", "write"])
def test_a_full_disk_leaves_what_was_saved(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = save(tmp_path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if where == "room":
        monkeypatch.setattr(files.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 10})())
    else:
        monkeypatch.setattr("os.fsync", full)
    with pytest.raises(files.DiskError, match=r"free|No space"):
        save(tmp_path, alpha=5.0)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["face.safetensors"]


def test_a_state_that_vanishes_while_it_is_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.safetensors"
    save = partial(files.save_state, path, {"a": torch.ones(3)}, {"step": 3})
    for place in (path, path.parent):
        found = [kept for _, kept in at_every_look(place, save, lambda: files.kept_state(path))]
        assert found
        assert all(kept is None or kept[1] == {"step": 3} for kept in found)
    path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="it is a folder"):
        files.kept_state(path)


def test_what_a_killed_save_left_goes_with_the_next(tmp_path: Path) -> None:
    save(tmp_path)
    left = tmp_path / ".face.safetensors.99999999.part"
    left.write_bytes(b"half")
    other = tmp_path / ".another.safetensors.99999998.part"
    other.write_bytes(b"half")
    save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "face.safetensors"]
