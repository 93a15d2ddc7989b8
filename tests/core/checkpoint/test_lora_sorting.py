"""What else stands in public LoRA files: 8-bit halves, several adapters, odd alphas, unknown kinds and prefixes.

Each was reported for neighbours or is written by a trainer: adapters of student and critic in one file, ai-toolkit's
`transformer_1` (a file before it is parted), expressions in PEFT's patterns (axolotl #3673, peft #2195) and diffusers'
`^`, PiSSA without its base (peft #2184), MLX's transposed halves, 8-bit halves with a scale beside them.
"""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint.lora import parse
from mova_core.checkpoint.lora_files import read_lora
from mova_core.checkpoint.lora_names import expert_in_name
from mova_core.checkpoint.lora_scale import scales
from mova_core.errors import CheckpointError
from tests.fixtures.lora_files import FFN, PRE, RANK, SHAPES, Q, dense, halves, only, random
from tests.golden import relative_error


def lora(layer: str = Q, before: str = "", ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight")):
    return {f"{before}{layer}{end}": half for end, half in zip(ends, halves(layer), strict=True)}


# --- halves of 8 bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
@pytest.mark.parametrize("name", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("by_row", [False, True])
def test_halves_of_8_bits_are_their_numbers_times_their_scales(dtype, name, by_row):
    file, wanted = {}, {}
    for end, half in zip(("lora_down", "lora_up"), halves(Q), strict=True):
        largest = half.abs().amax(1, keepdim=True) if by_row else half.abs().amax()
        scale = largest / 100
        stored = (half / scale).round().to(dtype)
        file |= {f"{Q}.{end}.weight": stored, f"{Q}.{end}.{name}": scale}
        wanted[end] = stored.double() * scale.double()
    assert relative_error(dense(only(file)), wanted["lora_up"] @ wanted["lora_down"]) < 1e-6


@pytest.mark.parametrize("scale", [torch.ones(2), torch.ones(RANK, 2), torch.ones((), dtype=torch.int64)])
def test_a_scale_that_does_not_fit_leaves_its_layer_out(scale):
    file = lora(Q) | {f"{Q}.lora_A.weight_scale": scale} | lora(FFN)
    read = parse(file | {f"{Q}.lora_A.weight": torch.ones(RANK, 6, dtype=torch.int8)}, SHAPES)
    assert [change.parameter for change in read.changes] == [f"{FFN}.weight"]
    assert all("with a scale" in reason for reason in read.dropped.values())


def test_a_scale_without_8_bits_leaves_its_layer_out():
    read = parse(lora(Q) | {f"{Q}.lora_A.weight_scale": torch.tensor(2.0)} | lora(FFN), SHAPES)
    assert [change.parameter for change in read.changes] == [f"{FFN}.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_a_change_of_zeros_alone_is_known_as_one(dtype):
    down, up = (half.to(dtype) for half in halves(Q))
    a, b = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
    assert not only({a: down, b: up}).is_nothing
    late = torch.zeros_like(up.float()).index_fill(0, torch.tensor([len(up) - 1]), 1.0).to(dtype)
    assert not only({a: down, b: late}).is_nothing
    assert only({a: down, b: torch.zeros_like(up)}).is_nothing
    assert only({a: torch.zeros_like(down), b: up}).is_nothing
    magnitude = {f"{Q}.lora_magnitude_vector": torch.ones(SHAPES[f"{Q}.weight"][0])}
    assert not only({a: down, b: torch.zeros_like(up)} | magnitude).is_nothing
    assert only({f"{Q}.diff_b": torch.zeros(SHAPES[f"{Q}.bias"], dtype=dtype)}).is_nothing


@pytest.mark.parametrize(
    "key", ["lora_B.bias", "lora_A.weight_scale", "lora_magnitude_vector", "diff", "lora_A.weight"]
)
def test_complex_numbers_leave_their_layer_or_part_out(key):
    file = lora(Q) | {f"{Q}.{key}": torch.complex(torch.ones(2), torch.ones(2))} | lora(FFN)
    read = parse(file, SHAPES)
    assert f"{Q}.{key}" in read.dropped
    assert f"{FFN}.weight" in {change.parameter for change in read.changes}


# --- adapters --------------------------------------------------------------------------------------------------------


def adapter(name: str, layer: str = Q):
    return lora(layer, ends=(f".lora_A.{name}.weight", f".lora_B.{name}.weight"))


def test_of_several_adapters_the_default_is_applied_and_the_others_named():
    file = adapter("critic") | adapter("default") | adapter("critic", FFN)
    read = parse(file, SHAPES)
    (change,) = read.changes
    wanted = file[f"{Q}.lora_B.default.weight"].double() @ file[f"{Q}.lora_A.default.weight"].double()
    assert relative_error(dense(change), wanted) < 1e-12
    assert set(read.dropped.values()) == {"of the adapter 'critic'; 'default' is applied"}


def test_several_adapters_without_a_default_are_refused():
    with pytest.raises(CheckpointError, match=r"holds 2 adapters \('student', 'critic'\).*Save one of them alone"):
        parse(adapter("student") | adapter("critic"), SHAPES)


# --- alpha -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["alpha", "lora_alpha", "network_alpha", "alpha.default", "lora_A.alpha"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_alpha_of_any_name_and_kind_of_number_is_read(key, dtype, shape):
    assert only(lora() | {f"{Q}.{key}": torch.full(shape, 6, dtype=dtype)}).scale == 2.0


@pytest.mark.parametrize("alpha", [torch.ones(4), torch.ones(0), torch.tensor(2 + 1j), torch.tensor(True)])
def test_what_is_no_alpha_leaves_its_layer_out(alpha):
    read = parse(lora() | {f"{Q}.alpha": alpha} | lora(FFN), SHAPES)
    assert [change.parameter for change in read.changes] == [f"{FFN}.weight"]
    assert all("its alpha" in reason for reason in read.dropped.values())
    assert len(read.dropped) == 3


@pytest.mark.parametrize("name", ["alpha", "lora_alpha", "network_alpha"])
def test_one_alpha_for_the_whole_file_is_read(tmp_path, name):
    save_file(lora() | {name: torch.tensor(6.0)}, tmp_path / "x.safetensors")
    read = read_lora(tmp_path / "x.safetensors")
    (change,) = parse(read.tensors, SHAPES, scales=read.scales).changes
    assert (change.scale, list(parse(read.tensors, SHAPES).dropped)) == (2.0, [])


# --- patterns --------------------------------------------------------------------------------------------------------


def stated(**settings: object):
    return {"lora_adapter_metadata": json.dumps({**PRE, **{f"transformer.{k}": v for k, v in settings.items()}})}


@pytest.mark.parametrize(
    "name",
    [
        f"^{Q}",
        f"^{Q}$",
        r"blocks\.0\.self_attn\.q",
        r".*\.self_attn\.(q|k)",
        r".*self_attn.*",
        r"blocks\.\d+\.self_attn\.[qkv]",
        r"blocks\.[0-9]+\.self_attn\.(?:q|k)$",
        "self_attn.q|ffn.0",
    ],
)
@pytest.mark.parametrize("write", [str, lambda layer: layer.replace(".", "_")])
def test_patterns_are_read_as_peft_reads_them(name, write):
    down, up = halves(Q)
    file = {f"transformer.{write(Q)}.lora_A.weight": down, f"transformer.{write(Q)}.lora_B.weight": up}
    assert only(file, stated(alpha_pattern={name: 12})).scale == 4.0
    assert only(file, stated(rank_pattern={name: 12})).scale == 0.5
    down, up = halves(FFN)
    other = {f"transformer.{write(FFN)}.lora_A.weight": down, f"transformer.{write(FFN)}.lora_B.weight": up}
    assert only(other, stated(alpha_pattern={name: 12})).scale == 2.0


@pytest.mark.parametrize(
    "name", ["(((", "(a+)+", "(.*)*", ".*.*.*", "a{9999}", "(?=x)", r"\1", "*", "[a", "x" * 501 + ".*"]
)
def test_an_expression_that_is_not_read_refuses_the_file_by_name(name):
    with pytest.raises(CheckpointError, match=r"in the alpha_pattern of its header, which is not read") as refused:
        scales(stated(alpha_pattern={name: 2}), "x")
    assert len(str(refused.value)) < 400


def test_expressions_for_every_layer_of_a_large_file_take_no_time():
    read = scales(stated(alpha_pattern={f".*x.*{n}y": n for n in range(1, 20)}), "x")
    start = time.process_time()
    for n in range(1000):
        read.of(f"transformer.{'x' * 60}.blocks.{n}.self_attn.q", 4)
    assert time.process_time() - start < 2.0
    with pytest.raises(CheckpointError, match="30 expressions"):
        scales(stated(alpha_pattern={f".*{n}": n for n in range(1, 31)}), "x")


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "PiSSA"])
def test_a_lora_of_changed_base_weights_is_refused(begun):
    with pytest.raises(CheckpointError, match=f"begun as {begun}.*changes the model's own weights.*Convert it"):
        scales(stated(init_lora_weights=begun), "x")


@pytest.mark.parametrize("begun", [True, False, "gaussian", "eva", "orthogonal", None])
def test_other_ways_to_begin_change_nothing(begun):
    assert only(lora(before="transformer."), stated(init_lora_weights=begun)).scale == 2.0


def test_the_scale_of_a_text_encoder_is_not_the_models():
    said = {"lora_adapter_metadata": json.dumps({"text_encoder.r": 4, "text_encoder.lora_alpha": 64})}
    assert only(lora(before="transformer."), said).scale == 1.0


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["net.", "wan.", "student.", "model.net.", "backbone."])
def test_prefixes_of_other_trainers_are_passed_over(before):
    assert only(lora(before=before)).expert is None


@pytest.mark.parametrize(
    ("before", "expert"),
    [
        ("diffusion_model.transformer_1.", "high"),
        ("diffusion_model.transformer_2.", "low"),
        ("high.", "high"),
        ("low_noise_transformer.", "low"),
        ("high_noise_model.transformer.", "high"),
        ("model_low.", "low"),
        ("expert_high_noise.", "high"),
    ],
)
def test_prefixes_that_name_an_expert_are_read(before, expert):
    assert only(lora(before=before)).expert == expert


def test_both_experts_of_ai_toolkit_in_one_file_reach_both():
    file = lora(before="diffusion_model.transformer_1.") | lora(before="diffusion_model.transformer_2.")
    assert {change.expert for change in parse(file, SHAPES).changes} == {"high", "low"}


def test_a_prefix_that_is_not_known_is_named():
    with pytest.raises(CheckpointError, match="its name begins with 'other_model', which is not known"):
        parse(lora(before="other_model."), SHAPES)


@pytest.mark.parametrize(
    "ends",
    [
        (".lora_a", ".lora_b"),
        (".lora_a.weight", ".lora_b.weight"),
        (".loraA.weight", ".loraB.weight"),
        (".lora_down", ".lora_up"),
    ],
)
def test_halves_have_names_in_every_spelling(ends):
    assert only(lora(ends=ends)).form == "lora"


# --- kinds -----------------------------------------------------------------------------------------------------------

UNKNOWN = (
    "hra_u",
    "randlora_lambda",
    "delora_lambda",
    "c3a_kernel",
    "bone_block",
    "road_theta",
    "scalar",
    "lora_scale",
)
UNKNOWN += ("lora_xs.weight", "vblora_logits", "gralora_A", "on_input", "bias_indices", "lokr_w1.weight_scale")
NAMED = {
    "oft_r.default.weight": "OFT",
    "glora.a1": "GLoRA",
    "boft_R": "BOFT",
    "lora_E.weight": "AdaLoRA",
    "ia3_l": "IA3",
}
NAMED |= {"vera_lambda_b": "VeRA", "hada_t1.weight": "Tucker", "modules_to_save.default.weight": "whole new"}


@pytest.mark.parametrize(("kind", "said"), [*((k, f"a kind that is not known ({k})") for k in UNKNOWN), *NAMED.items()])
def test_half_of_a_form_that_is_not_known_is_not_applied(kind, said):
    read = parse(lora(Q) | {f"{Q}.{kind}": random(2, 2)} | lora(FFN), SHAPES)
    assert [change.parameter for change in read.changes] == [f"{FFN}.weight"]
    assert len(read.dropped) == 3
    assert all(said in reason for reason in read.dropped.values())
    with pytest.raises(CheckpointError) as refused:
        parse({f"{Q}.{kind}": random(2, 2)}, SHAPES)
    assert said in str(refused.value)
    assert "no such layer" not in str(refused.value)


@pytest.mark.parametrize("kind", ["weight", "bias", "base_layer.weight", "rank", "lora_rank.default"])
def test_what_says_nothing_of_the_change_is_left_out_alone(kind):
    read = parse(lora(Q) | {f"{Q}.{kind}": random(2, 2)}, SHAPES)
    assert len(read.changes) == len(read.dropped) == 1


def test_halves_of_mlx_are_told():
    down, up = halves(FFN)
    with pytest.raises(CheckpointError, match="has transposed halves, as MLX writes them"):
        parse({f"{FFN}.lora_a": down.T, f"{FFN}.lora_b": up.T}, SHAPES)


@pytest.mark.parametrize("key", [f"{Q}.weight", f"{Q}.lora_xs", f"{Q}.hra_u", "foo.bar", "blocks.0.modulation"])
def test_no_message_says_that_a_lora_is_none_or_contradicts_itself(key):
    with pytest.raises(CheckpointError) as refused:
        parse({key: random(2, 2)}, SHAPES, name="x")
    text = str(refused.value)
    assert "no LoRA but a LoRA" not in text
    assert "nothing this package knows" not in text
    assert ("no key of it is known" in text) == ("no such layer" in text)


# --- file names ------------------------------------------------------------------------------------------------------

ABROAD = {
    "high": "\u98a8\u683c_\u9ad8\u96dc\u8a0a \u30b9\u30bf\u30a4\u30eb_\u30cf\u30a4\u30ce\u30a4\u30ba "
    "\u9ad8\u30ce\u30a4\u30ba_\u30a2\u30cb\u30e1 \uc2a4\ud0c0\uc77c_\ud558\uc774\ub178\uc774\uc988 "
    "\u0441\u0442\u0438\u043b\u044c_\u0432\u044b\u0441\u043e\u043a\u0438\u0439_\u0448\u0443\u043c "
    "estilo_alto_ruido ru\u00eddo_alto.v2 hohes-rauschen_stil bruit_\u00e9lev\u00e9 "
    "\uff28\uff29\uff27\uff28\uff3f\uff2e\uff2f\uff29\uff33\uff25 style_high_81f style_HIGH_pruned "
    "style_high(1) style_high_\u526f\u672c",
    "low": "\u98a8\u683c_\u4f4e\u96dc\u8a0a \u30b9\u30bf\u30a4\u30eb_\u30ed\u30fc\u30ce\u30a4\u30ba "
    "\u4f4e\u30ce\u30a4\u30ba \uc2a4\ud0c0\uc77c_\uc800\ub178\uc774\uc988 "
    "\u0448\u0443\u043c_\u043d\u0438\u0437\u043a\u0438\u0439_2 bajo_ruido niedriges_rauschen bruit-faible "
    "style_LOW_copy",
    "": "\u9ad8\u4f4e\u96dc\u8a0a HN_LN wan_high_lownoise high_noise_low_noise high_\u9ad8\u8ddf\u978b "
    "salto_alto \u0448\u0443\u043c\u043d\u043e high_lighting ghibli-transformer "
    "my_transformer_2 my.transformer",
}


@pytest.mark.parametrize(("name", "expert"), [(n, e) for e, names in ABROAD.items() for n in names.split()])
def test_names_of_the_world_tell_the_expert_where_they_do(name, expert):
    told = expert_in_name(f"{name}.safetensors")
    assert (told[0] if told else "") == expert
