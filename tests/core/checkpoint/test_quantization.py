"""Weights in few bits: what comes back, how wrong it may be, and which weights stay as they are."""

import json
import math
import sys

import pytest
import torch

from mova_core.checkpoint.layouts import logical_shapes
from mova_core.checkpoint.quantization import (
    BY_NAME,
    FORMATS,
    configuration,
    dequantized,
    quantized,
    rotated,
    stored_shape,
    takes,
)
from mova_core.errors import CheckpointError
from tests.golden import key_table

# Half a step of each format against the largest value that shares its scale, or against the value itself.
STEPS = {"fp8": 2**-4, "int8": 0.5 / 127, "mxfp8": 2**-4, "nvfp4": 1 / 6 + 2**-4}
UNROTATED = tuple(STEPS)


def weight(rows=160, columns=192, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("name", UNROTATED)
def test_no_value_moves_by_more_than_half_a_step(name):
    w = weight().float()
    kind = FORMATS[name]
    blocks = {"fp8": 1, "int8": w.shape[1], "mxfp8": 1, "nvfp4": 16}[name]
    largest = w.abs().unflatten(1, (-1, blocks)).amax(dim=2, keepdim=True).expand(-1, -1, blocks).flatten(1)
    error = (kind.dequantize(kind.quantize(w)) - w).abs()
    floor = 2.0**-9 * w.abs().max() / 448  # float8's smallest step
    assert (error <= largest * STEPS[name] + floor).all()


@pytest.mark.parametrize("name", UNROTATED)
def test_values_of_the_format_come_back_exactly(name):
    kind = FORMATS[name]
    once = kind.dequantize(kind.quantize(weight()))
    assert torch.equal(kind.dequantize(kind.quantize(once)), once)


@pytest.mark.parametrize("name", ["fp8", "mxfp8"])
def test_scaling_back_in_bfloat16_is_exact(name):
    kind = FORMATS[name]
    exact = kind.dequantize(kind.quantize(weight()))
    assert torch.equal(exact.bfloat16().float(), exact)


@pytest.mark.parametrize("scale", [0.0, 2.0**-60, 1e10])
@pytest.mark.parametrize("name", UNROTATED)
def test_empty_tiny_and_huge_weights_stay_finite(name, scale):
    w = weight().float() * scale
    back = FORMATS[name].dequantize(FORMATS[name].quantize(w))
    assert torch.isfinite(back).all()
    if scale == 0:
        assert not back.any()
    else:
        assert (back - w).norm() < 0.2 * w.norm()


@pytest.mark.parametrize("name", UNROTATED)
def test_signs_survive(name):
    w = weight().float()
    back = FORMATS[name].dequantize(FORMATS[name].quantize(w))
    assert (back * w >= 0).all()


@pytest.mark.parametrize("name", FORMATS)
def test_the_storage_is_what_was_announced(name):
    kind = FORMATS[name]
    parts = kind.quantize(weight())
    assert {key: (part.dtype, tuple(part.shape)) for key, part in parts.items()} == kind.storage((160, 192))


SENSITIVE = (
    *("patch_embedding.weight", "text_embedding.0.weight", "time_embedding.2.weight", "time_projection.1.weight"),
    *("head.head.weight", "head.modulation", "blocks.0.modulation", "blocks.0.norm3.weight"),
    *("blocks.0.self_attn.norm_q.weight", "blocks.0.ffn.0.bias", "audio_to_video_conditioners.0.y_norm.weight"),
    *("shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    "encoder.block.0.layer.0.layer_norm.weight",
)
LARGE = (
    *("blocks.0.self_attn.q.weight", "blocks.39.cross_attn.o.weight", "blocks.7.ffn.0.weight", "blocks.7.ffn.2.weight"),
    *("audio_dit.blocks.0.self_attn.v.weight", "dual_tower_bridge.audio_to_video_conditioners.3.inner.k.weight"),
    *("encoder.block.3.layer.0.SelfAttention.k.weight", "encoder.block.3.layer.1.DenseReluDense.wi_1.weight"),
)


@pytest.mark.parametrize("name", FORMATS)
def test_block_matrices_are_quantised_and_sensitive_layers_are_not(name):
    assert all(takes(FORMATS[name], key, (64, 64)) for key in LARGE)
    assert not any(takes(FORMATS[name], key, (64, 64)) for key in SENSITIVE)
    assert not any(takes(FORMATS[name], key, (64, 60)) for key in LARGE)  # sides the format cannot divide


@pytest.mark.parametrize("component", ["video_dit (== video_dit_2)", "audio_dit", "dual_tower_bridge"])
def test_all_but_a_few_per_cent_of_the_published_bytes_are_quantised(component):
    table = key_table(component)
    large = sum(math.prod(shape) for key, shape in table.items() if takes(FORMATS["mxfp8"], key, shape))
    assert large > 0.93 * sum(math.prod(shape) for shape in table.values())


def shapes(tensors):
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def model():
    return {
        "blocks.0.ffn.0.weight": weight(),
        "blocks.0.ffn.0.bias": torch.randn(160),
        "blocks.0.modulation": torch.randn(1, 6, 192),
        "text_embedding.0.weight": weight(64, 64),
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_state_dict_is_quantised_by_layer_and_read_back(name):
    tensors, kind = model(), FORMATS[name]
    small = quantized(tensors, kind)
    marks = [key for key in small if key.endswith(".comfy_quant")]
    assert marks == ["blocks.0.ffn.0.comfy_quant"]
    assert json.loads(small[marks[0]].numpy().tobytes())["format"] == kind.name
    assert quantized(small, FORMATS["int8"]).keys() == small.keys()  # what is quantised already is left alone
    back = dequantized(small, torch.float32)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert back[key].shape == tensor.shape
        if key != "blocks.0.ffn.0.weight":
            assert back[key] is tensor
    assert logical_shapes(shapes(small), {"blocks.0.ffn.0": kind.name}) == {
        k: tuple(v.shape) for k, v in tensors.items()
    }
    assert stored_shape("blocks.0.ffn.0.weight", (160, 192), small) == tuple(small["blocks.0.ffn.0.weight"].shape)


def test_an_unknown_format_a_damaged_mark_and_a_missing_scale_are_named():
    small = quantized(model(), FORMATS["fp8"])
    mark = "blocks.0.ffn.0.comfy_quant"
    for text, says in (
        (b'{"format": "int3"}', "int3"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "names no format"),
    ):
        with pytest.raises(CheckpointError, match=says):
            dequantized(small | {mark: torch.tensor(list(text), dtype=torch.uint8)})
    with pytest.raises(CheckpointError, match="not JSON"):
        dequantized(small | {mark: torch.zeros(8, dtype=torch.bfloat16)})
    del small["blocks.0.ffn.0.weight_scale"]
    with pytest.raises(CheckpointError, match="weight_scale"):
        dequantized(small)


def test_formats_have_one_name_each():
    assert {kind.name for kind in FORMATS.values()} | {"float8_e5m2"} == BY_NAME.keys()  # which is read and never made


# --- ConvRot -------------------------------------------------------------------------------------------------------


def one_layer(w: torch.Tensor) -> dict[str, torch.Tensor]:
    return quantized({"blocks.0.ffn.0.weight": w}, FORMATS["int8_convrot"])


@pytest.mark.parametrize(("columns", "group"), [(512, 256), (192, 64), (48, 16)])
def test_rotation_is_its_own_inverse_and_takes_the_largest_group_that_fits(columns, group):
    w = weight(columns=columns).float()
    assert torch.allclose(rotated(rotated(w, group), group), w, atol=1e-5)
    assert not torch.allclose(rotated(w, group), w, atol=0.1)
    stated = configuration(one_layer(w)["blocks.0.ffn.0.comfy_quant"], "")
    assert stated == {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group}


def test_rotated_int8_comes_back_unrotated_and_flattens_outliers():
    w = weight(64, 512).float()
    w[:, 7] *= 40  # one column far larger, as trained weights have
    for kind, limit in (("int8_convrot", 0.02), ("int8", 0.2)):
        back = dequantized(quantized({"blocks.0.ffn.0.weight": w}, FORMATS[kind]), torch.float32)
        rest = [n for n in range(512) if n != 7]
        error = (back["blocks.0.ffn.0.weight"] - w)[:, rest].norm() / w[:, rest].norm()
        assert error < limit
    assert error > 0.03  # of int8 without the rotation


def test_the_rotation_is_the_kitchens():
    from comfy_kitchen.tensor import TensorWiseINT8Layout

    w = weight(64, 512).float()
    stored = one_layer(w)
    values, scale = (stored[f"blocks.0.ffn.0.{part}"] for part in ("weight", "weight_scale"))
    params = TensorWiseINT8Layout.Params(
        scale=scale, orig_dtype=torch.float32, orig_shape=(64, 512), convrot=True, convrot_groupsize=256
    )
    theirs = TensorWiseINT8Layout.dequantize(values, params)
    assert torch.allclose(dequantized(stored, torch.float32)["blocks.0.ffn.0.weight"], theirs, atol=1e-5)


def test_without_comfy_kitchen_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    for name in ("int8_convrot", "mxfp8", "nvfp4"):
        with pytest.raises(CheckpointError, match="pip install comfy-kitchen"):
            FORMATS[name].quantize(weight())
    FORMATS["fp8"].quantize(weight())  # needs nothing
