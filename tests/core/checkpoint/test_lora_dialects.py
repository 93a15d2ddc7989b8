"""LoRAs as people have them: other forms than the plain one, scales in headers, wrapped and mixed names, each by value.

Each kind was reported for neighbours of this pack: magnitudes read as nothing (ComfyUI #3494, #4259), LyCORIS names of
Wan (ComfyUI #8285, SimpleTuner #3222), alpha in the header (ComfyUI #12191, sglang #35952, diffusers #14409), rsLoRA
(TensorRT-LLM #1668), compiled and sharded names (sd-scripts #1024), names of mixed dots and underscores
(WanVideoWrapper #869), `transformer.base_model.model.` (SimpleTuner #779).
"""

import json
import math

import pytest
import torch
from torch import Tensor

from mova_core.checkpoint.lora import choose, parse
from mova_core.checkpoint.lora_files import read_lora
from mova_core.checkpoint.lora_keys import diffusers_name
from mova_core.checkpoint.lora_scale import scales
from mova_core.config import MOVA
from mova_core.errors import CheckpointError
from tests.fixtures.lora_files import FFN, PRE, RANK, SHAPES, Q, applied, dense, halves, only, random, shapes_of
from tests.golden import relative_error

# --- names -----------------------------------------------------------------------------------------------------------

UNDER = Q.replace(".", "_")
WRITTEN = (
    f"_orig_mod.{Q}",
    "blocks.0._orig_mod.self_attn.q",
    "base_model.model._orig_mod.blocks.0._fsdp_wrapped_module.self_attn._checkpoint_wrapped_module.q",
    f"_fsdp_wrapped_module._orig_mod.module.{Q}",
    f"diffusion_model._orig_mod.{Q}",
    f"transformer.base_model.model.{Q}",
    f"transformer.base_model.model.{diffusers_name(Q)}",
    "_fsdp_wrapped_module._fpw_module.blocks.0.module.self_attn.q",
    "lora_unet_blocks_0__orig_mod_self_attn_q",
    "lora_unet_blocks_0.self_attn.q",
    "lora_unet_blocks.0.self_attn_q",
    "lora_unet_blocks_0_attn1.to_q",
    f"lora_unet__orig_mod_{UNDER}",
    f"lycoris_{UNDER}",
    f"lycoris_{diffusers_name(Q).replace('.', '_')}",
    f"lycoris_transformer_{UNDER}",
    f"transformer$${Q.replace('.', '$$')}",
    f"unet.base_model.model.{Q}",
)
ENDS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default._orig_mod.weight", ".lora_B.default._orig_mod.weight"),
    ("._fsdp_wrapped_module.lora_A.my-style.weight", "._fsdp_wrapped_module.lora_B.my-style.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)


@pytest.mark.parametrize("written", WRITTEN)
def test_a_name_in_any_spelling_with_any_wrapper_is_its_layer(written):
    down, up = halves(Q)
    for ends in ENDS:
        change = only({f"{written}{ends[0]}": down, f"{written}{ends[1]}": up})
        assert (change.parameter, change.expert) == (f"{Q}.weight", None)
        assert relative_error(dense(change), up.double() @ down.double()) < 1e-12


@pytest.mark.parametrize(
    ("written", "expert"),
    [
        (f"_orig_mod.video_dit_2._orig_mod.{Q}", "low"),
        (f"pipe._fsdp_wrapped_module.video_dit.{Q}", "high"),
        (f"base_model.model.transformer_2.{diffusers_name(Q)}", "low"),
        (f"lycoris_video_dit_2_{UNDER}", "low"),
        (f"pipe.dit2.{Q}", "low"),
        (f"lora_transformer_2_{diffusers_name(Q).replace('.', '_')}", "low"),
        (f"diffusion_model.low_noise_model.{Q}", "low"),
        (f"high_noise.{Q}", "high"),
        (f"pipe.dit.{Q}", None),
    ],
)
def test_wrappers_hide_no_expert(written, expert):
    down, up = halves(Q)
    assert only({f"{written}.lora_A.weight": down, f"{written}.lora_B.weight": up}).expert == expert


@pytest.mark.parametrize(("one", "two"), [("transformer", "transformer_2"), ("pipe.dit", "pipe.dit2")])
def test_beside_a_second_the_first_is_the_high_noise_expert(one, two):
    down, up = halves(Q)
    file = {f"{name}.{Q}.lora_{half}.weight": t for name in (one, two) for half, t in (("A", down), ("B", up))}
    assert {change.expert for change in parse(file, SHAPES).changes} == {"high", "low"}


# --- forms -----------------------------------------------------------------------------------------------------------


def lokr(layer: str, one: bool, two: bool) -> dict[str, Tensor]:
    """A Kronecker product of a 2 x 4 factor; whole factors where said."""
    outputs, inputs = SHAPES[f"{layer}.weight"]
    sizes = {"w1": (2, 4), "w2": (outputs // 2, inputs // 4)}
    file = {}
    for name, whole in (("w1", one), ("w2", two)):
        rows, columns = sizes[name]
        if whole:
            file[f"lokr_{name}"] = random(rows, columns)
        else:
            file |= {f"lokr_{name}_a": random(rows, RANK), f"lokr_{name}_b": random(RANK, columns)}
    return file


def factor(file: dict[str, Tensor], name: str) -> Tensor:
    whole = file.get(f"lokr_{name}")
    return (file[f"lokr_{name}_a"].double() @ file[f"lokr_{name}_b"].double()) if whole is None else whole.double()


NAMINGS = {
    "ai-toolkit": lambda layer: f"diffusion_model.{layer}.",
    "musubi": lambda layer: f"lora_unet_{layer.replace('.', '_')}.",
    "simpletuner": lambda layer: f"lycoris_{diffusers_name(layer).replace('.', '_')}.",
    "peft": lambda layer: f"base_model.model.{layer}.",
    "diffusers": lambda layer: f"transformer.{diffusers_name(layer)}.",
    "low-noise expert": lambda layer: f"video_dit_2.{layer}.",
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize(("one", "two"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_lokr_is_its_kronecker_product(naming, one, two):
    file = lokr(FFN, one, two)
    named = {NAMINGS[naming](FFN) + name: tensor for name, tensor in file.items()}
    change = only(named | {NAMINGS[naming](FFN) + "alpha": torch.tensor(6.0)})
    scale = 1.0 if one and two else 6.0 / RANK
    assert change.form == "lokr"
    assert relative_error(dense(change), scale * torch.kron(factor(file, "w1"), factor(file, "w2"))) < 1e-12


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_loha_is_its_hadamard_product(naming):
    outputs, inputs = SHAPES[f"{FFN}.weight"]
    file = {
        f"hada_w{n}_{half}": t
        for n in (1, 2)
        for half, t in (("a", random(outputs, RANK)), ("b", random(RANK, inputs)))
    }
    change = only(
        {NAMINGS[naming](FFN) + k: v for k, v in file.items()} | {NAMINGS[naming](FFN) + "alpha": torch.tensor(1.5)}
    )
    d = {name: tensor.double() for name, tensor in file.items()}
    wanted = 0.5 * (d["hada_w1_a"] @ d["hada_w1_b"]) * (d["hada_w2_a"] @ d["hada_w2_b"])
    assert relative_error(dense(change), wanted) < 1e-12


@pytest.mark.parametrize("layer", [Q, FFN])
@pytest.mark.parametrize(
    "key",
    ["lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight", "dora_scale"],
)
def test_a_dora_gives_rows_the_lengths_of_its_magnitudes(layer, key):
    down, up = halves(layer)
    outputs, inputs = SHAPES[f"{layer}.weight"]
    magnitude, weight = random(outputs).abs(), random(outputs, inputs)
    stored = magnitude[:, None] if key == "dora_scale" else magnitude
    file = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up, f"{layer}.{key}": stored}
    change = only(file, {"lora_adapter_metadata": json.dumps({"lora_alpha": 6, "r": RANK})})
    changed = weight.double() + 2 * up.double() @ down.double()
    wanted = magnitude.double()[:, None] * changed / changed.norm(dim=1, keepdim=True)
    assert relative_error(applied(weight, change), wanted) < 1e-12
    assert relative_error(applied(weight, change, 0.5), (wanted + weight.double()) / 2) < 1e-12


def test_older_lycoris_magnitudes_are_of_the_inputs():
    down, up = halves(FFN)
    outputs, inputs = SHAPES[f"{FFN}.weight"]
    assert outputs != inputs
    magnitude, weight = random(1, inputs).abs(), random(outputs, inputs)
    change = only({f"{FFN}.lora_down.weight": down, f"{FFN}.lora_up.weight": up, f"{FFN}.dora_scale": magnitude})
    changed = weight.double() + up.double() @ down.double()
    assert (
        relative_error(applied(weight, change), magnitude.double() * changed / changed.norm(dim=0, keepdim=True))
        < 1e-12
    )


def test_pefts_bias_of_the_upper_half_reaches_the_layers_bias_at_the_same_scale():
    down, up = halves(Q)
    bias = random(SHAPES[f"{Q}.bias"][0])
    file = {
        f"{Q}.lora_A.weight": down,
        f"{Q}.lora_B.weight": up,
        f"{Q}.lora_B.bias": bias,
        f"{Q}.alpha": torch.tensor(6.0),
    }
    weight, other = parse(file, SHAPES).changes
    assert (weight.scale, other.parameter) == (2.0, f"{Q}.bias")
    assert relative_error(dense(other), 2 * bias.double()) < 1e-12


def test_trained_norms_of_lycoris_are_whole_differences():
    shape = SHAPES["blocks.0.norm3.weight"]
    file = {"lycoris_blocks_0_norm3.w_norm": random(*shape), "lycoris_blocks_0_norm3.b_norm": random(*shape)}
    assert {c.parameter for c in parse(file, SHAPES).changes} == {"blocks.0.norm3.weight", "blocks.0.norm3.bias"}


@pytest.mark.parametrize(
    "kind", ["oft_blocks", "lora_mid.weight", "hada_t1", "set_weight", "reshape_weight", "a1.weight"]
)
def test_a_form_that_is_not_applied_takes_its_layer_along_and_is_named(kind):
    down, up = halves(Q)
    more = dict(zip((f"{FFN}.lora_A.weight", f"{FFN}.lora_B.weight"), halves(FFN)))
    lora = parse({f"{Q}.lora_A.weight": down, f"{Q}.lora_B.weight": up, f"{Q}.{kind}": random(2)} | more, SHAPES)
    assert [change.parameter for change in lora.changes] == [f"{FFN}.weight"]
    assert all("which is not applied; LoRA, DoRA, LoHa and LoKr are" in reason for reason in lora.dropped.values())
    assert len(lora.dropped) == 3


# --- scales ----------------------------------------------------------------------------------------------------------


def adapter(**settings: object) -> dict[str, object]:
    return {"lora_adapter_metadata": json.dumps(settings)}


SCALES = (
    ({}, 1.0),
    (adapter(**PRE), 2.0),
    (adapter(r=RANK, lora_alpha=6), 2.0),
    (adapter(transformer={"r": RANK, "lora_alpha": 6}), 2.0),
    (adapter(**PRE, **{"transformer.use_rslora": True}), 6 / math.sqrt(3)),
    (adapter(**PRE, **{"transformer.alpha_pattern": {Q: 12}}), 4.0),
    (adapter(**PRE, **{"transformer.alpha_pattern": {"self_attn.q": 12}}), 4.0),
    (adapter(**PRE, **{"transformer.alpha_pattern": {FFN: 12}}), 2.0),
    (adapter(**PRE, **{"transformer.rank_pattern": {Q: 12}}), 0.5),
    (adapter(**{"transformer.r": 64, "transformer.lora_alpha": 64}), 1.0),
    ({"transformer.lora_alpha": "6", "transformer.r": "3"}, 2.0),
    ({"lora_alpha": "6"}, 2.0),
    ({"network_alpha": "6"}, 2.0),
    ({"alpha": "6"}, 2.0),
    ({"ss_network_alpha": "6", "ss_network_dim": "3"}, 1.0),
    ({"lora_adapter_metadata": "{"}, 1.0),
    ({"lora_adapter_metadata": "[" * 100_000}, 1.0),
    (adapter(lora_alpha=None, r="x"), 1.0),
    ({"lora_adapter_metadata": '{"lora_alpha": 1' + "0" * 5000 + "}"}, 1.0),
)


@pytest.mark.parametrize(("metadata", "scale"), SCALES)
def test_alpha_and_rank_come_from_the_header(metadata, scale):
    down, up = halves(Q)
    change = only({f"transformer.{Q}.lora_A.weight": down, f"transformer.{Q}.lora_B.weight": up}, metadata)
    assert change.scale == pytest.approx(scale, rel=1e-12)


def test_a_layers_own_alpha_comes_before_the_headers():
    down, up = halves(Q)
    file = {f"{Q}.lora_A.weight": down, f"{Q}.lora_B.weight": up, f"{Q}.alpha": torch.tensor(1.5)}
    assert only(file, adapter(**PRE, **{"transformer.use_rslora": True})).scale == 0.5


def test_each_component_has_the_scale_of_its_own_adapter():
    file = {}
    for component in ("transformer", "transformer_2"):
        down, up = halves(Q)
        file |= {f"{component}.{Q}.lora_A.weight": down, f"{component}.{Q}.lora_B.weight": up}
    stated = adapter(**PRE, **{"transformer_2.r": RANK, "transformer_2.lora_alpha": 12})
    found = {change.expert: change.scale for change in parse(file, SHAPES, scales=scales(stated, "x")).changes}
    assert found == {"high": 2.0, "low": 4.0}


# --- published files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["high", "low"])
def test_the_four_step_files_of_lightx2v_reach_every_layer_of_the_expert_that_their_name_says(role):
    """Extracted from whole weights: halves for matrices, differences for norms and biases, no alpha."""
    full = {k: s for k, s in shapes_of(MOVA).items() if not k.startswith(("audio_dit", "dual_tower_bridge"))}
    file = {}
    for key, shape in full.items():
        layer, _, end = f"diffusion_model.{key}".rpartition(".")
        if end == "weight" and len(shape) == 2:
            down, up = torch.zeros(1, dtype=torch.float16), torch.zeros(1, dtype=torch.float16)
            file[f"{layer}.lora_down.weight"] = down.expand(2, shape[1])
            file[f"{layer}.lora_up.weight"] = up.expand(shape[0], 2)
        elif end == "weight":
            file[f"{layer}.diff"] = torch.zeros(1, dtype=torch.float16).expand(shape)
        elif end == "bias":
            file[f"{layer}.diff_b"] = torch.zeros(1, dtype=torch.float16).expand(shape)
    name = f"Wan_2_2_I2V_A14B_{role.upper()}_lightx2v_4step_lora_260412_rank_256_fp16.safetensors"
    lora, why = choose(parse(file, full, name=name), "auto", name)
    assert lora.dropped == {}
    assert {c.parameter for c in lora.changes} == {k for k in full if k.endswith(("weight", "bias"))}
    assert {c.expert for c in lora.changes} == {role}
    assert why == f"the {role}-noise expert, guessed from '{role.upper()}' in the file name"


# --- what is broken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "diff_b", "alpha"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_refused_by_name(value, which, dtype):
    outputs, inputs = SHAPES[f"{Q}.weight"]
    sizes = {"lora_A.weight": (RANK, inputs), "lora_B.weight": (outputs, RANK), "alpha": (1,)}
    sizes |= {"lora_magnitude_vector": (outputs,), "diff_b": (outputs,)}
    file = {f"{Q}.{name}": torch.ones(size, dtype=dtype) for name, size in sizes.items()}
    file[f"{Q}.{which}"].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=rf"holds .*{which}.*earlier checkpoint"):
        parse(file, SHAPES)


def test_what_float32_cannot_hold_is_refused():
    down, up = halves(Q)
    with pytest.raises(CheckpointError, match="infinite"):
        parse({f"{Q}.lora_A.weight": down.double() * 1e300, f"{Q}.lora_B.weight": up}, SHAPES)
    with pytest.raises(CheckpointError, match="alpha or rank of inf"):
        scales({"alpha": "inf"}, "x")


@pytest.mark.parametrize("count", [1, 3000])
def test_no_message_is_longer_than_a_screen(count):
    file = {f"blocks.{'9' * 5000}{n}.{'x' * 300}.lora_A.weight": torch.zeros(1, 1) for n in range(count)}
    for keys in (file, {f"{'y' * 290}{n}": t for n, t in enumerate(file.values())}, {"a\nb" * 90: torch.zeros(1)}):
        with pytest.raises(CheckpointError) as refused:
            parse(keys, SHAPES, name="z" * 5000)
        assert len(str(refused.value)) < 1000
        assert "\n" not in str(refused.value)


def test_a_file_of_wan_14b_is_never_said_to_be_of_another_model():
    full = shapes_of(MOVA)
    with pytest.raises(CheckpointError) as refused:
        parse({"blocks.0.self_attn.q.lora_A.weight": torch.zeros(4, 5120)}, full)
    assert "looks like" not in str(refused.value)
    assert "its other half is missing" in str(refused.value)


def test_a_file_without_tensors_is_said_to_be_one():
    with pytest.raises(CheckpointError, match="x holds no tensors"):
        parse({}, SHAPES, name="x")


def test_header_and_file_agree_through_the_reader(tmp_path):
    from safetensors.torch import save_file

    down, up = halves(Q)
    file = {f"transformer.{Q}.lora_A.weight": down, f"transformer.{Q}.lora_B.weight": up}
    save_file(file, tmp_path / "x.safetensors", metadata={k: str(v) for k, v in adapter(**PRE).items()})
    read = read_lora(tmp_path / "x.safetensors")
    (change,) = parse(read.tensors, SHAPES, scales=read.scales).changes
    assert change.scale == 2.0
