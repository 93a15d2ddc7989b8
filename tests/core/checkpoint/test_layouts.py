"""Quantised weights of other makers: each layout seen in public is read right, or refused by its name."""

import json

import pytest
import torch
from torch import Tensor

from mova_core.checkpoint.layouts import logical_shapes, notes, refuse_foreign, with_formats
from mova_core.checkpoint.quantization import configuration, dequantized, marked
from mova_core.errors import CheckpointError
from tests.fixtures.layouts import E4M3, E5M2, KEY, LAYER, LAYOUTS, by_tensor

STEP = {E4M3: 2**-4, E5M2: 2**-3}  # half a step of a value


def weight(rows: int = 48, columns: int = 64) -> Tensor:
    """Rows and columns of very different sizes, so that a scale in the wrong place shows."""
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    return w * torch.logspace(0, 2, rows)[:, None] * torch.logspace(0, 1, columns)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("sides", [(48, 64), (64, 64), (200, 160)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_right(layout, sides, dtype):
    w = weight(*sides)
    stored = LAYOUTS[layout](w, dtype)
    read = with_formats(stored, {}, "a file")
    assert not [key for key in read if "scaled_fp8" in key or "input" in key]
    (back,) = [value for key, value in dequantized(read, torch.float32).items() if key == KEY]
    error = (back.float() - w).abs()
    floor = 2.0**-9 * w.abs().max() / 400  # float8's smallest step, where a scale serves many
    assert (error <= (STEP[dtype] + 2**-8) * w.abs() + floor).all()
    assert tuple(back.shape) == sides
    if "block" not in layout:
        assert read[KEY] is stored[KEY]  # kept as it is, in ComfyUI's format
        config = configuration(read[f"{LAYER}.comfy_quant"], LAYER)
        assert config["format"] == {E4M3: "float8_e4m3fn", E5M2: "float8_e5m2"}[dtype]
        assert config["full_precision_matrix_mult"] is True
        assert read[f"{LAYER}.weight_scale"].shape == ((sides[0], 1) if "row" in layout else ())


def test_a_mark_with_scales_that_its_format_does_not_mean_is_read_by_what_they_are():
    for layout in ("by row, 1-D", "by square block"):
        w = weight(64, 64)  # square: a wrong axis would not be noticed by its shape
        stored = LAYOUTS[layout](w, E4M3)
        name = next(key for key in stored if key != KEY)
        stored = {
            KEY: stored[KEY],
            f"{LAYER}.weight_scale": stored[name],
            f"{LAYER}.comfy_quant": marked({"format": "float8_e4m3fn"}),
        }
        back = dequantized(with_formats(stored, {}, "a file"), torch.float32)[KEY].float()
        assert (back - w).norm() < 0.04 * w.norm()


def test_a_table_in_the_header_is_a_mark():
    stored = by_tensor(weight(), E4M3)
    table = {"_quantization_metadata": json.dumps({"layers": {LAYER: {"format": "float8_e4m3fn"}}})}
    read = with_formats(stored, table, "a file")
    assert configuration(read[f"{LAYER}.comfy_quant"], LAYER) == {"format": "float8_e4m3fn"}
    for damaged in ("{", "[]", '{"layers": 5}', '{"layers": {"a": {}}}', "[" * 100_000):
        with pytest.raises(CheckpointError, match="damaged"):
            with_formats(stored, {"_quantization_metadata": damaged}, "a file")


def test_int8_with_scales_and_without_a_mark_is_comfyuis_int8():
    w = weight()
    scale = w.abs().amax(1, keepdim=True) / 127
    stored = {KEY: torch.round(w / scale).to(torch.int8), f"{LAYER}.weight_scale": scale.flatten()}
    back = dequantized(with_formats(stored, {}, "a file"), torch.float32)[KEY]
    assert (back - w).norm() < 0.01 * w.norm()


def test_scales_of_what_is_no_matrix_are_multiplied_in():
    values = torch.randn(3, 4, 1, 2, 2).to(E4M3)
    stored = {"patch_embedding.weight": values, "patch_embedding.weight_scale": torch.tensor(0.25)}
    read = with_formats(stored, {}, "a file")
    assert read.keys() == {"patch_embedding.weight"}
    assert torch.equal(read["patch_embedding.weight"].float(), values.float() * 0.25)


def test_plain_weights_and_those_without_scales_are_left_alone():
    plain = {
        KEY: weight().bfloat16(),
        "blocks.0.modulation": torch.ones(1, 6, 4),
        "head.head.weight": weight().to(E4M3),
    }
    read = with_formats(plain, {}, "a file")
    assert read.keys() == plain.keys()
    assert all(read[key] is value for key, value in plain.items())
    ones = {KEY: plain[KEY], f"{LAYER}.scale_weight": torch.ones(())}
    assert with_formats(ones, {}, "a file").keys() == {KEY}


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (torch.ones(64), E4M3),
        (torch.ones(7, 9), E4M3),
        (torch.ones(2, 2, 2), E4M3),
        (torch.ones(48, 8), torch.int8),  # int8 in blocks
        (torch.tensor(2.0), torch.bfloat16),
        (torch.ones(48, 4), torch.uint8),
    ],
)
def test_a_layout_that_is_not_known_is_refused_by_layer_and_shape(scale, dtype):
    stored = {KEY: weight().to(dtype), f"{LAYER}.weight_scale": scale}
    with pytest.raises(CheckpointError, match=r"a file: blocks\.0\.ffn\.0 is .* layout that is not known.*Choose"):
        with_formats(stored, {}, "a file")


@pytest.mark.parametrize(
    ("key", "maker"),
    [
        (f"{KEY}.absmax", "bitsandbytes"),
        (f"{KEY}.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        (f"{LAYER}.SCB", "bitsandbytes"),
        (f"{KEY}._data", "optimum-quanto"),
        (f"{LAYER}.qweight", "GPTQ or AWQ"),
        (f"{LAYER}.wscales", "Nunchaku"),
        (f"{LAYER}.weight_packed", "compressed-tensors"),
        (f"{LAYER}._weight_qdata", "torchao"),
        (f"{LAYER}.W_q", "HQQ"),
    ],
)
def test_formats_that_no_layer_reads_are_refused_by_their_makers_name(key, maker):
    with pytest.raises(CheckpointError, match=f"quantised by {maker}"):
        refuse_foreign({"blocks.0.modulation": (1, 6, 4), key: (4, 4)}, "a file")
    refuse_foreign({KEY: (4, 4), f"{LAYER}.weight_scale": (4, 1)}, "a file")


def test_formats_of_newer_comfyuis_say_what_they_lack():
    for name, there in (("awq_w4a16", "weight_scale"), ("asym_w4a8_int8", "weight_s_rel"), ("nvfp4", "weight_scale")):
        stored = {
            KEY: torch.zeros(8, 8, dtype=torch.int8),
            f"{LAYER}.{there}": torch.ones(8, 1),
            f"{LAYER}.comfy_quant": marked({"format": name}),
        }
        with pytest.raises(CheckpointError, match=f"is {name} without its weight_"):
            with_formats(stored, {}, "a file")
    odd = {KEY: torch.zeros(8, 8, dtype=torch.int8), f"{LAYER}.weight_scale": torch.ones(8, 1)}
    for group in (256, 3, "x", 0):
        mark = marked({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group})
        with pytest.raises(CheckpointError, match="groups of"):
            with_formats(odd | {f"{LAYER}.comfy_quant": mark}, {}, "a file")


def test_packed_weights_have_twice_the_columns_and_wishes_for_attention_are_no_weights():
    shapes = {
        KEY: (8, 8),
        f"{LAYER}.weight_scale": (8,),
        f"{LAYER}.comfy_quant": (40,),
        "blocks.0.self_attn.comfy_attention.config": (33,),
    }
    assert logical_shapes(shapes, {LAYER: "convrot_w4a4"}) == {KEY: (8, 16)}
    assert logical_shapes(shapes, {LAYER: "int8_tensorwise"}) == {KEY: (8, 8)}
    assert "asks for an attention kernel" in notes(shapes, {}, "x.safetensors")[0]
    blocks = {KEY: (64, 64), f"{LAYER}.scale_weight": (64, 8, 1)}
    assert "unpacked to bfloat16" in notes(blocks, {KEY: "F8_E4M3"}, "x.safetensors")[0]
