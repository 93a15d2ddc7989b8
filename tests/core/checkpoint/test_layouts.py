"""Quantised weights of other makers: each layout seen in public is read right, or refused by its name."""

import json
import random

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
    return w * torch.logspace(-2, 0, rows)[:, None] * torch.logspace(0, 1, columns)


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


@pytest.mark.parametrize("name", ["", "int8_blockwise"])
def test_int8_by_block_becomes_bfloat16(name):
    w = weight()
    scale = w.view(3, 16, 4, 16).abs().amax((1, 3)) / 127
    full = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
    stored = {KEY: torch.round(w / full).to(torch.int8), f"{LAYER}.weight_scale": scale}
    mark = {f"{LAYER}.comfy_quant": marked({"format": name, "group_size": 16})} if name else {}
    read = with_formats(stored | mark, {}, "a file")
    assert read.keys() == {KEY}
    assert (read[KEY].float() - w).norm() < 0.01 * w.norm()


@pytest.mark.parametrize("layout", ["by row, 1-D", "by square block"])
def test_marks_of_other_converters_say_no_more_than_the_shape_of_the_scale(layout):
    w = weight(64, 64)
    stored = {key.replace("weight_scale_inv", "weight_scale"): t for key, t in LAYOUTS[layout](w, E4M3).items()}
    for kind in ("rowwise", "blockwise"):
        mark = {f"{LAYER}.comfy_quant": marked({"format": f"float8_e4m3fn_{kind}", "group_size": 16})}
        back = dequantized(with_formats(stored | mark, {}, "a file"), torch.float32)[KEY].float()
        assert (back - w).norm() < 0.04 * w.norm()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e8m0fnu])
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_scales_that_are_exponents_are_read_as_such(dtype, name):
    """MXFP8 as others store it: a byte for 32 columns, without ComfyUI's mark (omlx #2159)."""
    w = weight()
    power = torch.ceil(torch.log2(w.view(48, 2, 32).abs().amax(2) / 448))
    values = (w.view(48, 2, 32) / torch.exp2(power)[:, :, None]).view(48, 64).to(E4M3)
    scale = (power + 127).to(dtype) if dtype == torch.uint8 else torch.exp2(power).to(dtype)
    back = with_formats({KEY: values, f"{LAYER}.{name}": scale}, {}, "a file")[KEY].float()
    assert (back - w).norm() < 0.04 * w.norm()


@pytest.mark.parametrize("name", ["scale", "scales", "weight.scale", "weight_scales", "w_scale", "dequant_scale"])
def test_a_scale_by_other_names_is_read(name):
    w = weight()
    stored = by_tensor(w, E4M3, name)
    back = dequantized(with_formats(stored, {}, "a file"), torch.float32)[KEY].float()
    assert (back - w).norm() < 0.04 * w.norm()
    assert logical_shapes({key: tuple(t.shape) for key, t in stored.items()}, {}) == {KEY: (48, 64)}


@pytest.mark.parametrize(
    "stored", [by_tensor(weight(), E4M3), LAYOUTS["by row"](weight(), E4M3)], ids=["tensor", "row"]
)
def test_scales_that_are_lost_or_their_own_inverse_are_told_by_the_numbers(stored):
    name = f"{LAYER}.weight_scale"
    with pytest.raises(
        CheckpointError, match=r"ffn\.0 holds weights up to [34]\d\d, .* scales are not in the file\. Choose"
    ):
        with_formats({KEY: stored[KEY]}, {}, "a file")
    with pytest.raises(CheckpointError, match=r"not in the file, unless 'blocks\.0\.ffn\.0\.odd_name' is one"):
        with_formats({KEY: stored[KEY], f"{LAYER}.odd_name": stored[name]}, {}, "a file")
    with pytest.raises(CheckpointError, match="its scales divide where they should multiply"):
        with_formats({KEY: stored[KEY], name: 1 / stored[name]}, {}, "a file")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", ["by tensor", "by row", "by block of a row", "by square block"])
def test_a_scale_that_is_not_finite_is_refused_before_sampling(layout, value):
    stored = LAYOUTS[layout](weight(), E4M3)
    (name,) = stored.keys() - {KEY}
    stored[name] = stored[name].reshape(-1).index_fill(0, torch.tensor(0), value).view(stored[name].shape)
    with pytest.raises(CheckpointError, match="a scale that is NaN or infinite"):
        with_formats(stored, {}, "a file")


@pytest.mark.parametrize("part", ["pre_quant_scale", "weight_scale_2", "weight_zeros", "weight_codebook"])
@pytest.mark.parametrize("dtype", [E4M3, torch.int8, torch.bfloat16])
def test_what_would_change_the_numbers_is_not_passed_over(part, dtype):
    stored = {KEY: torch.ones(48, 64).to(dtype), f"{LAYER}.{part}": torch.full((64,), 2.0)}
    stored |= {f"{LAYER}.weight_scale": torch.tensor(1.0)}
    with pytest.raises(CheckpointError, match=f"with {part} beside it, which is not read"):
        with_formats(stored, {}, "a file")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e8m0fnu])
@pytest.mark.parametrize("key", [KEY, f"{LAYER}.bias", "blocks.0.modulation", "patch_embedding.weight"])
def test_what_is_no_number_of_a_weight_is_refused(dtype, key):
    with pytest.raises(CheckpointError, match=f"{key} is {dtype} without a scale"):
        with_formats({key: torch.ones(48, 64, dtype=dtype)}, {}, "a file")


def test_large_numbers_of_a_text_encoder_are_its_own():
    table = {"shared.weight": torch.full((48, 64), 200.0).to(E4M3)}
    assert with_formats(table, {}, "a file").keys() == table.keys()


@pytest.mark.parametrize("name", ["int8_tensorwise", "nvfp4", "mxfp8", "convrot_w4a4"])
@pytest.mark.parametrize("shape", [(), (8,)])
def test_a_format_of_matrices_on_something_else_is_refused(name, shape):
    stored = {KEY: torch.ones(shape).to(torch.int8), f"{LAYER}.comfy_quant": marked({"format": name})}
    with pytest.raises(CheckpointError, match=f"is {name}, and no matrix"):
        with_formats(stored | {f"{LAYER}.weight_scale": torch.ones(())}, {}, "a file")


def test_a_scale_of_as_many_numbers_as_rows_in_another_form_is_its_formats():
    mark = {f"{LAYER}.comfy_quant": marked({"format": "mxfp8"})}
    stored = {KEY: torch.ones(8, 32).to(E4M3), f"{LAYER}.weight_scale": torch.full((2, 4), 127, dtype=torch.uint8)}
    assert with_formats(stored | mark, {}, "a file").keys() == stored.keys() | mark.keys()


def test_two_scales_that_differ_and_a_mark_without_one_are_refused():
    stored = by_tensor(weight(), E4M3)
    twice = stored | {f"{LAYER}.scale_weight": stored[f"{LAYER}.weight_scale"].clone()}
    assert with_formats(twice, {}, "a file").keys() == with_formats(stored, {}, "a file").keys()
    with pytest.raises(CheckpointError, match="two of weight_scale, and they differ"):
        with_formats(twice | {f"{LAYER}.scale_weight": torch.tensor(7.0)}, {}, "a file")
    mark = {f"{LAYER}.comfy_quant": marked({"format": "float8_e4m3fn"})}
    with pytest.raises(CheckpointError, match="float8_e4m3fn without its weight_scale"):
        with_formats({KEY: stored[KEY]} | mark, {}, "a file")


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
        (torch.ones(48, 8, dtype=torch.uint8), torch.int8),  # exponents are of float8 alone
        (torch.ones((), dtype=torch.int64), E4M3),
        (torch.ones(1, 48), E4M3),
        (torch.zeros(0), E4M3),
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
    for dtype in ("F8_E4M3", "I8"):
        assert "unpacked to bfloat16" in notes(blocks, {KEY: dtype}, "x.safetensors")[0]


# --- any mixture -----------------------------------------------------------------------------------------------------

PARTS = ("weight", "weight_scale", "scale_weight", "weight_scale_inv", "scale", "weight.scale", "input_scale", "bias")
PARTS += ("pre_quant_scale", "weight_scale_2", "weight_zeros", "weight_s_rel", "weight_codebook", "comfy_quant")
FORMS = (
    "float8_e4m3fn",
    "float8_e5m2",
    "int8_tensorwise",
    "mxfp8",
    "nvfp4",
    "int8_blockwise",
    "awq_w4a16",
    "x",
    7,
    None,
)
SHAPES = ((), (1,), (8,), (8, 1), (8, 16), (2, 4), (2, 4, 1), (16,), (1, 16), (0,), (0, 4), (3, 3), (8, 16, 1, 2, 2))
DTYPES = (torch.float32, torch.bfloat16, E4M3, E5M2, torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64)
DTYPES += (torch.float8_e8m0fnu, torch.float8_e4m3fnuz)


def mixture(chance: random.Random) -> dict[str, Tensor]:
    file = {}
    for layer in chance.sample((LAYER, "blocks.1.self_attn.q", "patch_embedding", "blocks.0"), chance.choice((1, 2))):
        for part in chance.sample(PARTS, chance.choice((1, 2, 3))):
            if part == "comfy_quant":
                settings = {"convrot": chance.choice((True, False, "a")), "convrot_groupsize": chance.choice((16, "x"))}
                file[f"{layer}.{part}"] = marked({"format": chance.choice(FORMS)} | settings)
            else:
                numbers = torch.randn(chance.choice(SHAPES)) * chance.choice((0.01, 100, torch.nan))
                file[f"{layer}.{part}"] = numbers.to(chance.choice(DTYPES))
    return file


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_any_mixture_of_parts_is_read_or_refused_in_few_words():
    chance, read, refused = random.Random(3), 0, 0
    for _ in range(4000):
        try:
            with_formats(mixture(chance), {}, "a file")
            read += 1
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 500  # noqa: PT017, both outcomes are right
    assert min(read, refused) > 50
