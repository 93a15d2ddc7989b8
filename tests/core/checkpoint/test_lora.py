"""LoRAs of every dialect come to one form and change weights as the official code does; foreign ones are refused."""

import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.checkpoint.lora import Lora, choose, parse
from mova_core.checkpoint.lora_files import read_lora
from mova_core.checkpoint.lora_keys import LORA_PARTS, Names, diffusers_name, split_key
from mova_core.checkpoint.lora_names import expert_in_name
from mova_core.checkpoint.lora_scale import scales
from mova_core.config import MOVA
from mova_core.errors import CheckpointError
from mova_core.model.mova import Mova
from tests.fixtures.golden_loras import official_loras
from tests.fixtures.lora_files import merged
from tests.fixtures.tiny_model import TINY
from tests.golden import SETS, relative_error, tensors

ONE = dict.fromkeys(LORA_PARTS, 1.0)
Q, FFN = "blocks.0.self_attn.q", "blocks.1.ffn.0"
AUDIO_K, BRIDGE_V = "audio_dit.blocks.1.cross_attn.k", "dual_tower_bridge.video_to_audio_conditioners.0.inner.v"
RANK = 3


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def shapes_of(config=TINY) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in Mova(config, device="meta").state_dict().items()}


SHAPES = shapes_of()
FULL = shapes_of(MOVA)


def pair(layer: str, rank: int = RANK, seed: int = 0) -> tuple[Tensor, Tensor]:
    """down (R, I) and up (O, R) for a layer of the tiny model."""
    outputs, inputs = SHAPES[f"{layer}.weight"]
    noise = torch.Generator().manual_seed(seed + len(layer))
    return torch.randn(rank, inputs, generator=noise), torch.randn(outputs, rank, generator=noise)


def peft(*layers: str, write: Callable[[str], str] = str, down: str = ".lora_A.weight", up: str = ".lora_B.weight"):
    """A file that changes these layers, its keys written as a dialect does."""
    return {f"{write(layer)}{end}": half for layer in layers for end, half in zip((down, up), pair(layer))}


def weights(seed: int = 0) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=noise) for name, shape in SHAPES.items()}


def changed(tensors_of_file: dict[str, Tensor], expert="high", name="x", alpha=None, strengths=ONE):
    """Parameters that differ after the merge, and by how much."""
    base = weights()
    stated = scales({} if alpha is None else {"alpha": alpha}, name)
    after = merged(base, parse(tensors_of_file, SHAPES, name=name, scales=stated), expert, strengths)
    return {name: after[name] - base[name] for name in base if after[name] is not base[name]}


# --- the official numbers --------------------------------------------------------------------------------------------


class Official:
    """A set of official tensors, with its LoRA files."""

    def __init__(self, folder: Path, loras: Path) -> None:
        self.checkpoint, self.loras = folder / "tiny_hf", loras
        self.golden, _ = tensors("g_lora_cases", folder)

    def outputs(self, case: str, expert: str) -> tuple[Tensor, Tensor]:
        return self.golden[f"{case}.{expert}.video"], self.golden[f"{case}.{expert}.audio"]

    def forward(self, lora: Lora | None, expert: str, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        role = "high" if expert == "video_dit" else "low"
        golden, model = self.golden, load_joint(self.checkpoint, role)
        if lora is not None:
            model.load_state_dict(merged(model.state_dict(), lora, role, dict.fromkeys(LORA_PARTS, strength)))
        latents = golden["in.visual_latents"]
        return model(
            latents[:, :16],
            golden["in.audio_latents"],
            golden["in.context"],
            golden["in.timestep"],
            golden["in.audio_timestep"],
            condition=latents[:, 16:],
            fps=float(golden["in.fps"][0]),
        )

    def lora(self, file: str, expert: str = "auto") -> Lora:
        read = read_lora(self.loras / file)
        shapes = {k: tuple(v.shape) for k, v in load_joint(self.checkpoint).state_dict().items()}
        return choose(parse(read.tensors, shapes, name=file, scales=read.scales), expert, file)[0]


@pytest.fixture(scope="module", params=SETS)
def official(request, tmp_path_factory) -> Official:
    return Official(request.param, official_loras(request.param, tmp_path_factory.mktemp("loras")))


PEFT, DEFAULT, LOW = "accelerate_peft/lora_weights", "accelerate_default/lora_weights", "low_resource/lora_weights"
EXPERTS = ("video_dit", "video_dit_2")


@pytest.mark.parametrize(
    ("case", "expert", "file", "strength"),
    [
        *(("accelerate", e, f, 1.0) for e in EXPERTS for f in (f"{PEFT}.pt", f"{PEFT}.safetensors", f"{DEFAULT}.pt")),
        ("accelerate", "video_dit", f"{DEFAULT}.safetensors", 1.0),
        ("accelerate_half", "video_dit", f"{PEFT}.pt", 0.5),
        *(("low_resource", e, f"{LOW}{end}", 1.0) for e in EXPERTS for end in (".pt", ".safetensors")),
        ("diffsynth", "video_dit", "diffsynth/video_dit_high_noise.safetensors", 1.0),
        ("base", "video_dit_2", "diffsynth/video_dit_high_noise.safetensors", 1.0),  # it leaves the other expert alone
    ],
)
def test_a_merged_lora_is_the_official_one(official, case, expert, file, strength):
    made = official.forward(official.lora(file), expert, strength)
    base = official.forward(None, expert)
    for ours, theirs, plain in zip(made, official.outputs(case, expert), base):
        assert relative_error(ours, theirs) < 5e-6
        assert case == "base" or relative_error(plain, theirs) > 1e-3


# --- one form --------------------------------------------------------------------------------------------------------

DOWN_UP = {"down": ".lora_down.weight", "up": ".lora_up.weight"}
DIALECTS: dict[str, dict[str, object]] = {
    "peft": {},
    "peft with an adapter name": {"down": ".lora_A.default.weight", "up": ".lora_B.default.weight"},
    "raw parameters": {"down": ".lora_A", "up": ".lora_B"},
    "lora_down": DOWN_UP,
    "diffusers' old style": {"down": ".lora.down.weight", "up": ".lora.up.weight"},
    "comfyui": {"write": lambda layer: f"diffusion_model.{layer}"},
    "pipe": {"write": lambda layer: f"pipe.{layer}"},
    "base_model": {"write": lambda layer: f"base_model.model.{layer}"},
    "both wrappers": {"write": lambda layer: f"base_model.model.diffusion_model.{layer}"},
    "transformer": {"write": lambda layer: f"transformer.{layer}" if layer.startswith("blocks") else layer},
    "kohya": {"write": lambda layer: "lora_unet_" + layer.replace(".", "_")} | DOWN_UP,
    "videox-fun": {"write": lambda layer: "lora_unet__" + layer.replace(".", "_")} | DOWN_UP,
    "diffusers": {"write": diffusers_name},
    "diffusers in kohya's": {"write": lambda layer: "lora_transformer_" + diffusers_name(layer).replace(".", "_")},
    "bridge alone": {"write": lambda layer: layer.removeprefix("dual_tower_bridge.")},
    "videox-fun's audio": {"write": lambda layer: layer.replace("audio_dit.", "transformer_audio.")},
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_changes_the_same_weights_by_the_same(dialect):
    layers = (Q, FFN, AUDIO_K, BRIDGE_V)
    found = changed(peft(*layers, **DIALECTS[dialect]))
    assert found.keys() == {f"{layer}.weight" for layer in layers}
    for layer in layers:
        down, up = pair(layer)
        assert relative_error(found[f"{layer}.weight"], up @ down) < 1e-5


@pytest.fixture(scope="module")
def officially(official) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the high-noise expert, and with the official trainer's file merged in."""
    base = load_joint(official.checkpoint).state_dict()
    return base, merged(base, official.lora(f"{PEFT}.safetensors"), "high", ONE)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_official_file_in_every_dialect_merges_to_the_same_bits(dialect, official, officially):
    base, wanted = officially
    options, file = DIALECTS[dialect], {}
    write, ends = options.get("write", str), {"down": ".lora_A.weight", "up": ".lora_B.weight"} | options
    for key, half in read_lora(official.loras / f"{PEFT}.safetensors").tensors.items():
        layer, kind, _ = split_key(key)
        if not layer.startswith("video_dit_2."):
            file[f"{write(layer.removeprefix('video_dit.'))}{ends[kind]}"] = half
    lora = parse(file, {k: tuple(v.shape) for k, v in base.items()}, name="file.safetensors")
    assert lora.dropped == {}
    made = merged(base, lora, "high", ONE)
    assert all(torch.equal(made[name], wanted[name]) for name in base)
    assert sum(made[name] is not base[name] for name in base) > 50


WAN_LAYERS = tuple(
    f"blocks.{n}.{layer}"
    for n in range(40)
    for layer in (
        *("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k", "cross_attn.v"),
        *("cross_attn.o", "ffn.0", "ffn.2"),
    )
)


@pytest.mark.parametrize("style", ["diffusion_model.", "lora_unet_", "", "transformer."])
@pytest.mark.parametrize(("name", "expert"), [("Wan22_I2V_HIGH", "high"), ("wan2.2_i2v_lora_low_noise", "low")])
def test_a_wan_2_2_a14b_file_changes_every_layer_of_its_expert_at_its_own_alpha(style, name, expert):
    file = {}
    for layer in WAN_LAYERS:
        outputs, inputs = FULL[f"{layer}.weight"]
        key = f"{style}{layer.replace('.', '_')}" if style == "lora_unet_" else f"{style}{layer}"
        file |= {
            f"{key}.lora_down.weight": torch.zeros(2, inputs, dtype=torch.bfloat16),
            f"{key}.alpha": torch.tensor(8.0),
        }
        file[f"{key}.lora_up.weight"] = torch.zeros(outputs, 2, dtype=torch.bfloat16)
        if style == "diffusion_model.":
            file[f"{key}.diff_b"] = torch.zeros(outputs)
    lora, _ = choose(parse(file, FULL, name=f"{name}.safetensors"), "auto", f"{name}.safetensors")
    weights_changed = [change for change in lora.changes if change.form == "lora"]
    assert {change.parameter for change in weights_changed} == {f"{layer}.weight" for layer in WAN_LAYERS}
    assert {(change.expert, change.part) for change in lora.changes} == {(expert, "video")}
    assert {change.scale for change in weights_changed} == {4.0}
    assert lora.dropped == {}
    assert lora.of("low" if expert == "high" else "high") == ()


@pytest.mark.parametrize(
    ("prefix", "expert"),
    [
        ("video_dit.", "high"),
        ("video_dit_2.", "low"),
        ("pipe.video_dit_2.", "low"),
        ("diffusion_model.video_dit.", "high"),
        ("lora_unet_video_dit_2_", "low"),
        ("", None),
        ("diffusion_model.", None),
    ],
)
def test_a_component_before_a_layer_names_the_expert(prefix, expert):
    write = (
        (lambda layer: prefix + layer.replace(".", "_"))
        if prefix.startswith("lora")
        else (lambda layer: prefix + layer)
    )
    (change,) = parse(peft(Q, write=write), SHAPES).changes
    assert (change.parameter, change.expert, change.part) == (f"{Q}.weight", expert, "video")


def test_diffusers_two_transformers_are_high_and_low():
    file = peft(Q, write=lambda layer: f"transformer.{layer}") | peft(Q, write=lambda layer: f"transformer_2.{layer}")
    assert {change.expert for change in parse(file, SHAPES).changes} == {"high", "low"}


def test_parts_are_told_apart():
    into_video = "dual_tower_bridge.audio_to_video_conditioners.0.inner.q"
    found = {c.parameter: c.part for c in parse(peft(Q, AUDIO_K, BRIDGE_V, into_video), SHAPES).changes}
    assert list(found.values()) == ["video", "audio", "video_to_audio", "audio_to_video"]


@pytest.mark.parametrize("config", [TINY, MOVA], ids=["tiny", "full size"])
def test_no_two_layers_share_a_name_in_any_spelling(config):
    names = list(shapes_of(config))
    layers = {re.sub(r"\.(weight|bias)$", "", name) for name in names}
    find = Names(names).find
    for write in (
        str,
        diffusers_name,
        lambda x: f"lora_unet_{x.replace('.', '_')}",
        lambda x: f"lora_unet__{diffusers_name(x).replace('.', '_')}",
    ):
        assert all(find(write(layer)) == (layer, None) for layer in layers)
        video = [layer for layer in layers if not layer.startswith(("audio_dit", "dual_tower_bridge"))]
        if "lora" not in write("x"):
            assert all(find(f"video_dit_2.{write(layer)}") == (layer, "low") for layer in video)


def test_whole_differences_reach_weights_biases_and_modulation():
    file = {
        "diffusion_model.blocks.0.norm3.diff": torch.ones(SHAPES["blocks.0.norm3.weight"]),
        f"diffusion_model.{Q}.diff_b": torch.full(SHAPES[f"{Q}.bias"], 2.0),
        "diffusion_model.blocks.1.diff_m": torch.full(SHAPES["blocks.1.modulation"], 3.0),
        "diffusion_model.head.diff_m": torch.full(SHAPES["head.modulation"], 4.0),
        "diffusion_model.patch_embedding.diff": torch.full(SHAPES["patch_embedding.weight"], 5.0),
        "diffusion_model.blocks.0.modulation.diff": torch.full(SHAPES["blocks.0.modulation"], 6.0),
    }
    found = changed(file)
    values = {"blocks.0.norm3.weight": 1, f"{Q}.bias": 2, "blocks.1.modulation": 3, "head.modulation": 4}
    values |= {"patch_embedding.weight": 5, "blocks.0.modulation": 6}
    assert found.keys() == values.keys()
    for name, value in values.items():
        torch.testing.assert_close(found[name], torch.full(SHAPES[name], float(value)))


def test_a_convolution_is_changed_through_its_flattened_weight():
    outputs, *rest = SHAPES["patch_embedding.weight"]
    down, up = torch.randn(RANK, *rest), torch.randn(outputs, RANK, 1, 1, 1)
    found = changed({"patch_embedding.lora_down.weight": down, "patch_embedding.lora_up.weight": up})
    wanted = torch.einsum("or,rcthw->octhw", up.flatten(1), down)
    assert relative_error(found["patch_embedding.weight"], wanted) < 1e-5


# --- scale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "stated", "scale"),
    [(None, None, 1.0), (6.0, None, 2.0), (None, 1.5, 0.5), (6.0, 1.5, 2.0), (0.0, None, 0.0)],
)
def test_the_scale_is_alpha_over_the_rank_of_down(own, stated, scale):
    file = peft(Q) | ({} if own is None else {f"{Q}.alpha": torch.tensor(own)})
    (change,) = parse(file, SHAPES, scales=scales({} if stated is None else {"alpha": stated}, "x")).changes
    assert change.scale == scale


def test_strengths_are_by_part():
    layers = {"video": Q, "audio": AUDIO_K, "video_to_audio": BRIDGE_V}
    for part, layer in layers.items():
        found = changed(peft(*layers.values()), strengths={**dict.fromkeys(LORA_PARTS, 0.0), part: 0.5})
        down, up = pair(layer)
        assert list(found) == [f"{layer}.weight"]
        assert relative_error(found[f"{layer}.weight"], 0.5 * up @ down) < 1e-5


# --- which expert ----------------------------------------------------------------------------------------------------

HIGH_NAMES = (
    "Girl_hinoise",
    "x_hi-noise_v2",
    "\u98ce\u683c_\u9ad8\u566a\u58f0",
    "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step.safetensors",
    "Wan2.2-I2V-HighNoise_style.safetensors",
    "Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16.safetensors",
    "style-HN.safetensors",
    "video_dit_high_noise.safetensors",
    "mova/video_dit/lora.safetensors",
    "checkpoint-500-transformer_2.safetensors",
)
LOW_NAMES = (
    "Girl_lonoise",
    "\u98ce\u683c\u4f4e\u566a",
    "wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step.safetensors",
    "Wan22_LowNoise.safetensors",
    "style_LOW.safetensors",
    "mova\\video_dit_2\\lora.safetensors",
    "checkpoint-500-transformer.safetensors",
    "out/transformer/lora_diffusion_pytorch_model.safetensors",
)
SILENT_NAMES = (
    "chinoise",
    "\u9ad8\u4f4e\u566a",
    "\u9ad8\u566a\u4f4e\u566a",
    "\u9ad8\u6e05",
    "style.safetensors",
    "highlands_v2.safetensors",
    "slow_motion.safetensors",
    "high_quality_detail.safetensors",
    "low-poly.safetensors",
    "high_and_low.safetensors",
    "video_transformer_style.safetensors",
    "flowing.safetensors",
)


@pytest.mark.parametrize(
    ("name", "expert"),
    [(n, e) for names, e in ((HIGH_NAMES, "high"), (LOW_NAMES, "low"), (SILENT_NAMES, None)) for n in names],
)
def test_a_name_tells_the_expert_where_it_does(name, expert):
    told = expert_in_name(name)
    assert (told and told[0]) == expert


def test_by_itself_keys_come_before_the_name_and_the_name_before_both():
    named = parse(peft(Q, AUDIO_K, write=lambda x: x if "audio" in x else f"video_dit_2.{x}"), SHAPES)
    bare = parse(peft(Q, AUDIO_K), SHAPES)
    shared = parse(peft(AUDIO_K), SHAPES)
    told = {}
    for lora, name in ((named, "x_high_noise"), (bare, "x_high_noise"), (bare, "x"), (shared, "x_high_noise")):
        chosen, why = choose(lora, "auto", name)
        told[why] = [c.expert for c in chosen.changes]
    assert list(told.values()) == [["low", None], ["high", None], [None, None], [None]]
    assert [w.split(",")[0].split(":")[0] for w in told] == [
        "each key's own expert",
        "the high-noise expert",
        "both experts",
        "both experts",
    ]


def test_asked_for_one_expert_the_other_gets_nothing_and_its_keys_are_named():
    file = peft(Q, write=lambda x: f"video_dit.{x}") | peft(FFN, write=lambda x: f"video_dit_2.{x}") | peft(AUDIO_K)
    chosen, _ = choose(parse(file, SHAPES), "low", "x")
    assert {c.parameter for c in chosen.of("low")} == {f"{FFN}.weight", f"{AUDIO_K}.weight"}
    assert chosen.of("high") == ()
    assert list(chosen.dropped) == [f"{Q}.weight of the high-noise expert"]
    with pytest.raises(CheckpointError, match="every key of x is for the other expert"):
        choose(parse(peft(Q, write=lambda x: f"video_dit.{x}"), SHAPES), "low", "x")
    with pytest.raises(CheckpointError, match="choose auto, high, low or both"):
        choose(chosen, "medium", "x")


def test_asked_for_both_bare_keys_are_boths_and_named_keys_keep_theirs():
    file = peft(Q, write=lambda x: f"video_dit.{x}") | peft(FFN)
    chosen, _ = choose(parse(file, SHAPES), "both", "x_low_noise")
    assert [(c.parameter, c.expert) for c in chosen.changes] == [(f"{Q}.weight", "high"), (f"{FFN}.weight", None)]


def test_an_audio_file_of_bare_keys_is_told_by_its_name():
    layer = "audio_dit.blocks.1.cross_attn.k"
    file = peft(layer, write=lambda x: x.removeprefix("audio_dit."))
    (change,) = parse(file, SHAPES, name="checkpoint-9-transformer_audio.safetensors").changes
    assert change.parameter == f"{layer}.weight"
    with pytest.raises(CheckpointError):
        parse(file, SHAPES, name="style.safetensors")


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_every_key_without_a_target_is_named_with_the_reason():
    down, up = pair(Q)
    file = peft(Q) | {
        "blocks.0.cross_attn.k_img.lora_A.weight": down,
        "img_emb.proj.1.diff": torch.ones(4),
        "blocks.99.self_attn.q.lora_A.weight": down,
        f"{FFN}.lora_A.weight": torch.randn(RANK, 7),
        f"{FFN}.lora_B.weight": torch.randn(9, RANK),
        "blocks.1.self_attn.k.lora_A.weight": down,
        "blocks.1.self_attn.o.alpha": torch.tensor(1.0),
        f"pipe.{Q}.lora_A.weight": down,
        "blocks.1.self_attn.v.lokr_w1": up,
        "blocks.1.self_attn.v.oft_blocks": up,
        "blocks.1.cross_attn.q.dora_scale": up,
        "blocks.1.cross_attn.q.lora_A.weight": down,
        "blocks.1.cross_attn.q.lora_B.weight": up,
        "blocks.0.norm3.diff": torch.ones(3),
        "blocks.0.norm3.diff_b": torch.ones(SHAPES["blocks.0.norm3.bias"], dtype=torch.int64),
        "lora_te_x.lora_down.weight": down,
        "step": torch.tensor(3),
    }
    lora = parse(file, SHAPES)
    assert [c.parameter for c in lora.changes] == [f"{Q}.weight"]
    assert lora.dropped.keys() == file.keys() - peft(Q).keys()
    reasons = " | ".join(lora.dropped.values())
    for reason in (
        "Wan 2.1's picture encoder",
        "no such layer",
        "is of rank 3 for a layer of 9 x 7",
        "other half is missing",
        "alpha without",
        "says the same as",
        "OFT, which is not applied",
        "magnitudes do not fit a layer of",
        "has shape (3,)",
        "torch.int64",
        "text encoder",
    ):
        assert reason in reasons, reason


FOREIGN: dict[str, tuple[dict[str, tuple[int, int]], str]] = {
    "Flux": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, "Flux"),
    "Flux by kohya": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "Flux"),
    "SDXL": ({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 2048)}, "SDXL"),
    "LTX": ({"diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": (4, 2048)}, "LTX Video"),
    "LTX-2": ({"diffusion_model.transformer_blocks.0.audio_attn1.to_q.lora_A.weight": (4, 2048)}, "LTX-2"),
    "HunyuanVideo": ({"diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight": (4, 3072)}, "HunyuanVideo"),
    "Qwen-Image": ({"transformer_blocks.0.img_mlp.net.2.lora_A.weight": (4, 3072)}, "Qwen-Image"),
    "VACE": ({"vace_blocks.0.self_attn.q.lora_A.weight": (4, 5120)}, "Wan VACE"),
    "Wan 1.3B": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 1536)}, "Wan 1.3B.*audio_dit"),
    "Wan 5B": ({"lora_unet_blocks_0_self_attn_q.lora_down.weight": (4, 3072)}, "Wan 2.2 5B"),
    "a checkpoint": ({"blocks.0.self_attn.q.weight": (5120, 5120), "patch_embedding.weight": (5120, 36),
                      "head.modulation": (1, 2)}, "no LoRA but"),
    "a text encoder": ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)}, "text encoder"),
    "nonsense": ({"a.lora_A.weight": (4, 4)}, "no key of it is known"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_lora_of_another_model_is_refused_with_its_likely_owner(kind):
    keys, owner = FOREIGN[kind]
    file = {key: torch.zeros(shape) for key, shape in keys.items()}
    file |= {
        key.replace("lora_A", "lora_B").replace("lora_down", "lora_up"): torch.zeros(t.shape[1], 4)
        for key, t in file.items()
    }
    with pytest.raises(CheckpointError, match=f"{owner}.*Choose a LoRA trained on MOVA"):
        parse(file, FULL, name="file.safetensors")


def test_a_wan_2_1_image_lora_is_applied_but_for_its_picture_encoder():
    names = ("blocks.0.self_attn.q", "blocks.0.cross_attn.k_img", "blocks.0.cross_attn.v_img")
    file = {f"diffusion_model.{n}.lora_A.weight": torch.zeros(4, 5120) for n in names}
    file |= {f"diffusion_model.{n}.lora_B.weight": torch.zeros(5120, 4) for n in names}
    lora = parse(file, FULL)
    assert [c.parameter for c in lora.changes] == ["blocks.0.self_attn.q.weight"]
    assert len(lora.dropped) == 4


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_states_its_own_alpha(tmp_path):
    save_file(peft(Q), tmp_path / "a.safetensors", metadata={"alpha": "6.0"})
    save_file(peft(Q), tmp_path / "b.safetensors", metadata={"alpha": "sixteen"})
    torch.save({"lora_state_dict": peft(Q), "rank": 3, "alpha": 6, "dropout": 0.0}, tmp_path / "c.pt")
    torch.save(peft(Q), tmp_path / "d.pt")
    names = ("a.safetensors", "b.safetensors", "c.pt", "d.pt")
    assert [read_lora(tmp_path / name).scales.of(Q, RANK) for name in names] == [2.0, None, 2.0, None]
    assert all(
        torch.equal(v, load_file(tmp_path / "a.safetensors")[k])
        for k, v in read_lora(tmp_path / "d.pt").tensors.items()
    )


class Shout:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def write_code(path: Path) -> None:
    torch.save({"x": Shout()}, path)


def write_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": Shout()}))


def write_settings(path: Path) -> None:
    torch.save({"rank": 16, "alpha": 16.0, "target_modules": ["video_dit"]}, path)


def write_list(path: Path) -> None:
    torch.save([torch.ones(1)], path)


def write_half(path: Path) -> None:
    torch.save(peft(Q), path)
    path.write_bytes(path.read_bytes()[:-200])


def write_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (write_code, "more than tensors.*nothing of it was run"),
        (write_bare_pickle, "carry code"),
        (write_settings, "'rank' is int, not a tensor.*not lora_config.pt"),
        (write_list, "holds list"),
        (write_half, "not a whole .pt file"),
        (write_bomb, "not one that PyTorch writes"),
        (write_zip, r"lora.pt is a zip archive \('readme.txt'\). Unpack it$"),
        (write_empty, "is empty"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_within_a_second_and_runs_nothing(tmp_path, monkeypatch, write, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lora.pt")
    start = time.process_time()
    with pytest.raises(CheckpointError, match=says):
        read_lora(tmp_path / "lora.pt")
    assert time.process_time() - start < 1.0
    assert not (tmp_path / "ran").exists()


def test_a_tensor_that_claims_to_be_huge_is_dropped_before_it_is_used(tmp_path):
    huge = torch.zeros(1).expand(10**6, 10**6)  # one number, seen a million million times
    torch.save(
        peft(FFN) | {f"{Q}.lora_A": huge, f"{Q}.lora_B": huge, "blocks.0.norm3.diff": huge}, tmp_path / "lora.pt"
    )
    lora = parse(read_lora(tmp_path / "lora.pt").tensors, SHAPES)
    assert [c.parameter for c in lora.changes] == [f"{FFN}.weight"]
    assert len(lora.dropped) == 3
