"""Tensors computed by the official code on tiny random weights. They are not part of the repository.

The folder is MOVA_GOLDEN, else ../shared/golden beside the checkout; its README says where every tensor comes from.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from safetensors import safe_open
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("MOVA_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
KEY_TABLE = GOLDEN.parent / "model_keys.json"

Test = TypeVar("Test", bound=Callable[..., Any])


def needs_golden(test: Test) -> Test:
    """Mark a test or class `golden`, and skip it, saying so, where the folder is absent."""
    reason = f"NOT CHECKED AGAINST THE OFFICIAL CODE: no golden tensors in {GOLDEN} (set MOVA_GOLDEN)"
    return pytest.mark.golden(pytest.mark.skipif(not (GOLDEN / "README.md").is_file(), reason=reason)(test))


def tensors(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every tensor of GOLDEN/<name>.safetensors, and the `config` of its header."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118


def key_table(component: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a published file, as `model_keys.json` lists it."""
    return {key: tuple(shape) for key, shape in json.loads(KEY_TABLE.read_text())[component].items()}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs||, in float64; shapes must agree exactly."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
