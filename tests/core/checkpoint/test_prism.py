"""Prism, a relative of MOVA: a key table and a configuration, and the model is the same."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from mova_core.checkpoint.family import HIGH, LOW, PRISM, parts, relative
from mova_core.checkpoint.files import component_tensors
from mova_core.checkpoint.load import inspect, load_joint
from mova_core.checkpoint.quantization import dequantized
from mova_core.checkpoint.single import compose, composed_tensors
from mova_core.errors import CheckpointError
from tests.fixtures.prism import prism_name, prism_weights, row_scaled, write_prism
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.golden import key_table, needs_golden

FUSED = 2  # layers of the tiny audio tower


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("published") / "tiny")


@needs_golden
def test_every_published_name_is_found_again_once():
    table = {
        part: key_table(name)
        for part, name in {
            "video_dit": "video_dit (== video_dit_2)",
            "video_dit_2": "video_dit (== video_dit_2)",
            "audio_dit": "audio_dit",
            "dual_tower_bridge": "dual_tower_bridge",
        }.items()
    }
    names = {prism_name(part, key, 30): (part, key) for part, keys in table.items() for key in keys}
    assert len(names) == 3735  # as many as the published file holds
    assert Counter(name.split(".")[0] for name in names)["fusion_blocks"] == 30 * 78
    assert relative(names) is PRISM
    assert parts(names) == {part: {key: (part, key) for key in keys} for part, keys in table.items()}


def test_prism_is_the_joint_model_with_its_own_defaults(tiny, tmp_path):
    composed = compose(write_prism(tmp_path / "prism.safetensors", prism_weights(tiny, FUSED)))
    assert composed.model == inspect(tiny).model
    assert (composed.scheduler.shift, composed.audio_shift, composed.scheduler.boundary) == (9.0, 7.0, 0.9)
    assert composed.kin == "Prism"
    assert composed.notes == ()
    for part, which in ((HIGH, "high"), (LOW, "low")):
        wanted, found = load_joint(tiny, which, torch.bfloat16).state_dict(), composed_tensors(composed, part)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_row_scaled_float8_becomes_comfyuis_format_with_a_scale_a_row(tiny, tmp_path):
    composed = compose(write_prism(tmp_path / "fp8.safetensors", row_scaled(prism_weights(tiny, FUSED))))
    tensors = composed_tensors(composed, HIGH)
    assert tensors["blocks.0.self_attn.q.weight"].dtype == torch.float8_e4m3fn
    assert tensors["blocks.0.self_attn.q.weight_scale"].shape == (256, 1)
    plain, wanted = dequantized(tensors, torch.float32), component_tensors(tiny / HIGH)
    for key, value in wanted.items():
        assert (plain[key].float() - value.float()).norm() < 0.04 * value.float().norm(), key


def test_prism_and_mova_are_not_mixed(tiny, tmp_path):
    prism = write_prism(tmp_path / "prism.safetensors", prism_weights(tiny, FUSED))
    from mova_core.checkpoint.convert import convert

    files = {f.metadata["mova"]: f.path for f in convert(tiny, tmp_path / "models", parts=["video_dit_2", "shared"])}
    with pytest.raises(CheckpointError, match="different models"):
        compose(prism, files["video_dit_2"], files["shared"])


def test_a_prism_file_with_a_layer_missing_is_refused(tiny, tmp_path):
    weights = prism_weights(tiny, FUSED)
    weights = {key: value for key, value in weights.items() if not key.startswith("fusion_blocks.1.a2v")}
    composed = compose(write_prism(tmp_path / "prism.safetensors", weights))
    assert composed.model.bridge.layers == 1  # it says so itself, and what is left over is found when it is loaded
    from mova_core.checkpoint.load import assign
    from mova_core.model.mova import Mova

    with pytest.raises(CheckpointError, match="unknown"):
        assign(Mova(composed.model, device="meta"), composed_tensors(composed, HIGH), "prism")
