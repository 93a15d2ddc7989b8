"""Prism, a relative of MOVA: a key table and a configuration, and the model is the same."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint.files import component_tensors
from mova_core.checkpoint.load import assign, load_joint
from mova_core.checkpoint.quantization import FORMATS, dequantized
from mova_core.checkpoint.source import Source, from_files, from_folder, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE, HIGH, LOW, PLAIN_MOVA, PRISM, parts, variant_of
from mova_core.errors import CheckpointError
from mova_core.model.mova import Mova
from tests.fixtures.prism import prism_name, prism_weights, row_scaled, write_prism
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.golden import key_table

FUSED = 2  # layers of the tiny audio tower


def joint(source: Source, part: str) -> dict[str, torch.Tensor]:
    return joint_names(source.tensors(part, AUDIO, BRIDGE))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("published") / "tiny")


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
    assert variant_of(names, {}) is PRISM
    assert parts(names) == {part: {key: (part, key) for key in keys} for part, keys in table.items()}


def test_prism_is_the_joint_model_with_its_own_defaults(tiny, tmp_path):
    source = from_files(write_prism(tmp_path / "prism.safetensors", prism_weights(tiny, FUSED)))
    assert source.model == from_folder(tiny).model
    assert (source.scheduler.shift, source.audio_shift, source.scheduler.boundary) == (9.0, 7.0, 0.9)
    assert source.variant.name == "Prism"
    assert source.notes == ()
    for part, which in ((HIGH, "high"), (LOW, "low")):
        wanted, found = load_joint(tiny, which, torch.bfloat16).state_dict(), joint(source, part)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


@pytest.mark.parametrize(
    ("width", "height", "shift"),
    [
        (640, 352, 9.0),
        (848, 480, 9.0),
        (1280, 720, 7.0),
        (720, 1280, 7.0),
        (960, 960, 9.0),
        (1920, 1072, 9.0),
        (2560, 1440, 13.0),
    ],
)
def test_prisms_shift_follows_the_size_as_its_makers_say_and_movas_does_not(width, height, shift):
    assert PRISM.shift_at(height, width) == shift
    assert PLAIN_MOVA.shift_at(height, width) == 5.0
    assert (PRISM.audio_shift, PRISM.frames, PRISM.trained.audio_shift, PRISM.trained.frames) == (
        7.0,
        205,
        5.0,
        (49, 289),
    )


def test_row_scaled_float8_becomes_comfyuis_format_with_a_scale_a_row(tiny, tmp_path):
    source = from_files(write_prism(tmp_path / "fp8.safetensors", row_scaled(prism_weights(tiny, FUSED))))
    tensors = joint(source, HIGH)
    assert tensors["blocks.0.self_attn.q.weight"].dtype == torch.float8_e4m3fn
    assert tensors["blocks.0.self_attn.q.weight_scale"].shape == (256, 1)
    plain, wanted = dequantized(tensors, torch.float32), component_tensors(tiny / HIGH)
    for key, value in wanted.items():
        assert (plain[key].float() - value.float()).norm() < 0.04 * value.float().norm(), key


def test_int8_convrot_of_everything_in_one_file_stands_for_the_same_weights(tiny, tmp_path):
    kind, stored = FORMATS["int8_convrot"], {}
    for key, value in prism_weights(tiny, FUSED).items():
        fits = value.ndim == 2 and ("block" in key or "conditioner" in key) and not any(n % 16 for n in value.shape)
        layer, parts = key.removesuffix(".weight"), kind.quantize(value) if fits else {"weight": value}
        mark = {"comfy_quant": kind.configuration(tuple(value.shape))} if fits else {}
        stored |= {f"{layer}.{name}" if fits else key: part for name, part in (parts | mark).items()}
    source = from_files(write_prism(tmp_path / "convrot.safetensors", stored))
    assert source.variant is PRISM
    for part in (HIGH, LOW):
        plain, wanted = dequantized(source.tensors(part)[part], torch.float32), component_tensors(tiny / part)
        assert plain.keys() == wanted.keys()
        for key, value in wanted.items():
            assert (plain[key].float() - value.float()).norm() < 0.02 * value.float().norm(), key


def test_prism_and_mova_are_not_mixed(tiny, tmp_path):
    prism = write_prism(tmp_path / "prism.safetensors", prism_weights(tiny, FUSED))
    from mova_core.checkpoint.convert import convert

    files = {f.metadata["mova"]: f.path for f in convert(tiny, tmp_path / "models", parts=["video_dit_2", "shared"])}
    with pytest.raises(CheckpointError, match="different models"):
        from_files(prism, files["video_dit_2"], files["shared"])


def test_a_prism_file_with_a_layer_missing_is_refused(tiny, tmp_path):
    weights = prism_weights(tiny, FUSED)
    weights = {key: value for key, value in weights.items() if not key.startswith("fusion_blocks.1.a2v")}
    source = from_files(write_prism(tmp_path / "prism.safetensors", weights))
    assert source.model.bridge.layers == 1  # it says so itself, and what is left over is found when it is loaded
    with pytest.raises(CheckpointError, match="unknown"):
        assign(Mova(source.model, device="meta"), joint(source, HIGH), "prism")


# --- one file a component ------------------------------------------------------------------------------------------


def component_file(tiny: Path, folder: Path, component: str) -> Path:
    """A component under the published names, which says in its header what it is."""
    config = (tiny / component / "config.json").read_text()
    metadata = {"prism.component": component, "prism.config": config}
    save_file(component_tensors(tiny / component), folder / f"{component}.safetensors", metadata=metadata)
    return folder / f"{component}.safetensors"


def test_prism_in_one_file_a_component_is_the_same_model(tiny, tmp_path):
    files = [component_file(tiny, tmp_path, part) for part in (HIGH, LOW, AUDIO, BRIDGE)]
    whole = from_files(write_prism(tmp_path / "prism.safetensors", prism_weights(tiny, FUSED)))
    source = from_files(*files)
    assert source.variant is PRISM
    assert source.model == whole.model
    assert (source.scheduler, source.audio_shift, source.notes) == (whole.scheduler, whole.audio_shift, ())
    for part in (HIGH, LOW):
        found, wanted = joint(source, part), joint(whole, part)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_components_in_each_others_place_are_named(tiny, tmp_path):
    high, low, audio, bridge = (component_file(tiny, tmp_path, part) for part in (HIGH, LOW, AUDIO, BRIDGE))
    with pytest.raises(CheckpointError, match=r"low-noise expert.*Swap"):
        from_files(low, high, audio, bridge)
    with pytest.raises(CheckpointError, match="holds the audio tower of Prism; wanted here is audio tower and bridge"):
        from_files(high, low, audio)
    with pytest.raises(CheckpointError, match="holds the bridge of Prism; wanted here is the audio tower"):
        from_files(high, low, bridge, audio)
    save_file({"a": torch.ones(1)}, tmp_path / "odd.safetensors", metadata={"prism.config": "{"})
    with pytest.raises(CheckpointError, match="is not JSON"):
        from_files(tmp_path / "odd.safetensors")


def test_a_variant_says_what_it_is_run_with_and_what_it_was_trained_with():
    told = PRISM.told(9.0, 7.0)
    assert told.startswith("Prism, run with shift 9, audio_shift 7, on 205 frames (trained with 9 and 5 on 49 to 289")
    assert "shift 7 at 720p" in told
    assert PLAIN_MOVA.told(5.0, 5.0) == "MOVA, run with shift 5, audio_shift 5, on 193 frames"
