"""A file's mark changes with what is read of it, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint.fingerprint import fingerprint
from mova_core.errors import CheckpointError


def written(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> str:
    save_file(tensors, path, metadata=metadata)
    return fingerprint(path)


def test_a_copy_under_another_name_has_the_same_fingerprint(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(3)}
    assert written(tmp_path / "one.safetensors", tensors) == written(tmp_path / "two.safetensors", tensors)


def test_values_names_and_metadata_change_the_fingerprint(tmp_path: Path) -> None:
    plain = {"a": torch.arange(6.0)}
    marks = [
        written(tmp_path / "plain", plain),
        written(tmp_path / "value", {"a": torch.arange(6.0) + 1}),
        written(tmp_path / "name", {"b": torch.arange(6.0)}),
        written(tmp_path / "shape", {"a": torch.arange(6.0).reshape(2, 3)}),
        written(tmp_path / "told", plain, {"made_by": "me"}),
    ]
    assert len(set(marks)) == len(marks)


def test_a_cut_file_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    whole = written(path, {"a": torch.arange(6.0)})
    path.write_bytes(path.read_bytes()[:-4])
    assert fingerprint(path) != whole


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        fingerprint(tmp_path / "gone.safetensors")
