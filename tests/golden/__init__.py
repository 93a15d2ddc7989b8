"""Tensors computed by the official code on tiny random weights; README.md here says how.

Those in this folder are enough for every claim. A larger set may lie in MOVA_GOLDEN, else in ../shared/golden beside
the checkout: tests of its own files skip, saying so, where it is absent.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
LARGER = Path(os.environ.get("MOVA_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
PRISM, TRAINED = LARGER.parent / "golden_prism", LARGER.parent / "golden_train"
CHECKPOINT = HERE / "tiny_hf"

Test = TypeVar("Test", bound=Callable[..., Any])


def _larger(folder: Path) -> pytest.MarkDecorator:
    reason = f"NOT CHECKED AGAINST THE LARGER SET OF OFFICIAL TENSORS: no {folder} (set MOVA_GOLDEN)"
    return pytest.mark.skipif(not folder.is_dir(), reason=reason)


def needs_larger(test: Test) -> Test:
    """Skip a test, saying so, where the larger set is absent."""
    return _larger(LARGER)(test)


def needs_trained(test: Test) -> Test:
    """Skip a test, saying so, where the larger set of training's tensors is absent."""
    return _larger(TRAINED)(test)


def larger(*values: Any, folder: Path = LARGER) -> Any:
    """A case of `pytest.mark.parametrize` that lies in the larger set alone."""
    return pytest.param(*values, marks=_larger(folder))


SETS = [pytest.param(HERE, id="here"), pytest.param(LARGER, id="larger", marks=_larger(LARGER))]
"""Cases of `pytest.mark.parametrize` for files that both sets have: the folder they are read from."""


def where(name: str) -> Path:
    """The folder that holds a file: this one, else the larger set."""
    return HERE if (HERE / f"{name}.safetensors").is_file() else LARGER


def tensors(name: str, folder: Path | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every tensor of <name>.safetensors, here or in the larger set, and the `config` of its header."""
    with safe_open((folder or where(name)) / f"{name}.safetensors", framework="pt") as file:
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
        return held, json.loads((file.metadata() or {}).get("config", "{}"))


def codec_weights(style: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of the golden codec in float32, with its sizes: `here`, or in a style of file of the larger set."""
    if style != "here":
        weights, header = tensors(f"e_dac_weights_{style}")
        return weights, header["audio_vae"]
    folder = CHECKPOINT / "audio_vae"
    weights, _ = tensors("diffusion_pytorch_model", folder)
    sizes = json.loads((folder / "config.json").read_text())
    return {k: v.float() for k, v in weights.items()}, {k: v for k, v in sizes.items() if not k.startswith("_")}


def key_table(component: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a published file. Layers that are alike are written once, with their numbers' range."""
    found: dict[str, tuple[int, ...]] = {}
    for pattern, shape in json.loads((HERE / "published_keys.json").read_text())[component]:
        before, mark, rest = pattern.partition("{")
        count, _, after = rest.partition("}")
        for key in [f"{before}{n}{after}" for n in range(int(count))] if mark else [pattern]:
            found[key] = tuple(shape)
    return found


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs||, in float64; shapes must agree exactly."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
