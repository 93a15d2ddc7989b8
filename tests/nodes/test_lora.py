"""LoRAs on a MOVA MODEL: ComfyUI's own loaders and ours reach the experts that a file is for, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.checkpoint.lora import parse
from mova_core.checkpoint.lora_keys import LORA_PARTS
from tests.comfy import needs_comfy
from tests.fixtures.golden_loras import official_loras
from tests.fixtures.lora_files import applied, merged
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.golden import HERE, relative_error
from tests.nodes.graph import Run, Scene, equal, error

pytestmark = needs_comfy

HIGH, LOW, BOTH = "1.0, 0.95", "0.8, 0.4", "1.0, 0.8, 0.0"  # video sigmas at which one expert works, or each once
PARTS_OF = {
    "video": ("blocks.0.self_attn.q", "blocks.1.ffn.2"),
    "audio": ("audio_dit.blocks.1.cross_attn.k",),
    "audio_to_video": ("dual_tower_bridge.audio_to_video_conditioners.0.inner.o",),
    "video_to_audio": ("dual_tower_bridge.video_to_audio_conditioners.1.inner.v",),
}
ALL = tuple(layer for layers in PARTS_OF.values() for layer in layers)
VIDEO = PARTS_OF["video"]


def made(run: Run, scene: Scene, model: Any, values: str = BOTH, **inputs: Any) -> Any:
    """The latent after a few Euler steps through these video sigmas."""
    chosen = {"add_noise": True, "noise_seed": 7, "cfg": 1.0, "sigmas": run("ManualSigmas", sigmas=values)[0]}
    chosen |= {"latent_image": scene.latent, "sampler": run("KSamplerSelect", sampler_name="euler")[0]}
    chosen |= {"positive": scene.positive, "negative": scene.negative}
    return run("SamplerCustom", model=model, **(chosen | inputs))[0]


@pytest.fixture(scope="module")
def plain(run: Run, scene: Scene) -> dict[str, Any]:
    """What the model makes without any LoRA."""
    with torch.inference_mode():
        return {values: made(run, scene, scene.model, values) for values in (HIGH, LOW, BOTH)}


@pytest.fixture(scope="module")
def split(run: Run, scene: Scene) -> tuple[Any, Any]:
    with torch.inference_mode():
        return run("MOVASplitExperts", model=scene.model)[:2]


class Loras:
    """Writes LoRA files where ComfyUI looks for them."""

    def __init__(self, folder: Path, shapes: dict[str, torch.Size]) -> None:
        self.folder, self.shapes = folder, shapes
        folder.mkdir(parents=True, exist_ok=True)

    def tensors(
        self,
        *layers: str,
        write: Callable[[str], str] = str,
        seed: int = 0,
        ends: tuple[str, str] = ("lora_A", "lora_B"),
    ) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(seed)
        file = {}
        for layer in layers:
            rows, columns = self.shapes[f"{layer}.weight"]
            file[f"{write(layer)}.{ends[0]}.weight"] = torch.randn(4, columns, generator=random) * 0.3
            file[f"{write(layer)}.{ends[1]}.weight"] = torch.randn(rows, 4, generator=random) * 0.1
        return file

    def save(self, name: str, tensors: dict[str, Tensor]) -> str:
        save_file(tensors, self.folder / f"{name}.safetensors")
        return f"{name}.safetensors"

    def write(self, name: str, *layers: str, **options: Any) -> str:
        return self.save(name, self.tensors(*layers, **options))


@pytest.fixture(scope="module")
def loras(comfy_base: Path, scene: Scene) -> Loras:
    shapes = {k: v.shape for k, v in scene.model.model.diffusion_model.state_dict().items()}
    return Loras(comfy_base / "models" / "loras", shapes)


def stock(run: Run, model: Any, name: str, strength: float = 1.0) -> Any:
    return run("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength)[0]


def ours(run: Run, model: Any, name: str, **widgets: Any) -> Any:
    return run("MOVALoraLoader", model=model, lora_name=name, **widgets)[0]


def report(run: Run, model: Any, name: str, **widgets: Any) -> str:
    return run("MOVALoraLoader", model=model, lora_name=name, **widgets)[1]


def official(layer: str) -> str:
    """A key of the high-noise expert, of the audio tower or of the bridge, as the official trainers write it."""
    return f"video_dit.{layer}" if layer in VIDEO else layer


def official_low(layer: str) -> str:
    return f"video_dit_2.{layer}" if layer in VIDEO else layer


# --- the same as merging into the files ------------------------------------------------------------------------------


def test_a_lora_on_the_model_is_the_lora_in_the_files(run: Run, scene: Scene, diffusers: Path, loras: Loras) -> None:
    file = loras.tensors(*ALL, write=official) | loras.tensors(*VIDEO, write=official_low, seed=1)
    name = loras.save("official", file)
    folder = write_tiny_checkpoint(diffusers / "merged")
    shapes = {k: tuple(v) for k, v in loras.shapes.items()}
    for role, part in (("high", "video_dit"), ("low", "video_dit_2")):
        weights = {k: v.clone() for k, v in load_joint(diffusers / "tiny", role).state_dict().items()}  # type: ignore[arg-type]
        after = merged(weights, parse(file, shapes), role, dict.fromkeys(LORA_PARTS, 0.5))  # type: ignore[arg-type]
        for prefix, where in (("", part), ("audio_dit.", "audio_dit"), ("dual_tower_bridge.", "dual_tower_bridge")):
            rewrite(folder / where, prefix, after)
    wanted = made(run, scene, run("MOVALoader", folder="merged", weight_dtype="fp32")[0])
    assert error(made(run, scene, ours(run, scene.model, name, strength=0.5)), wanted) < 1e-5
    assert error(made(run, scene, scene.model), wanted) > 1e-3


def rewrite(folder: Path, prefix: str, weights: dict[str, Tensor]) -> None:
    """Put the new weights of a component into its files, in float32."""
    for path in folder.glob("*.safetensors"):
        save_file({key: weights[prefix + key].float().contiguous() for key in load_file(path)}, path)


# --- the stock loader ------------------------------------------------------------------------------------------------

WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": str,
    "comfyui": lambda layer: f"diffusion_model.{layer}",
    "kohya": lambda layer: "lora_unet_" + layer.replace(".", "_"),
}


@pytest.mark.parametrize("style", WRITTEN)
def test_the_stock_loader_takes_plain_comfyui_and_kohya_keys_to_both_experts(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], style: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = loras.write(f"stock_{style}", *ALL, write=WRITTEN[style])
    model = stock(run, scene.model, name)
    assert not caplog.records
    assert equal(made(run, scene, model), made(run, scene, ours(run, scene.model, name)))
    assert all(not equal(made(run, scene, model, values), plain[values]) for values in (HIGH, LOW))


@pytest.mark.parametrize(("write", "untouched"), [(official, LOW), (official_low, HIGH)])
def test_the_stock_loader_takes_official_keys_to_the_expert_they_name(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], write: Any, untouched: str, caplog: Any
) -> None:
    name = loras.write(f"stock_{write.__name__}", *VIDEO, write=write)
    model = stock(run, scene.model, name)
    assert not caplog.records
    other = HIGH if untouched == LOW else LOW
    assert equal(made(run, scene, model, untouched), plain[untouched])
    assert error(made(run, scene, model, other), plain[other]) > 1e-3
    assert equal(made(run, scene, model), made(run, scene, ours(run, scene.model, name)))


@pytest.fixture(scope="module")
def golden_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the official trainers write."""
    return official_loras(HERE, tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize("file", ["accelerate_peft/lora_weights.pt", "accelerate_default/lora_weights.safetensors"])
def test_the_official_trainers_own_file_is_whole_in_the_stock_loader(
    run: Run, diffusers: Path, scene: Scene, loras: Loras, golden_files: Path, file: str, caplog: Any
) -> None:
    model = run("MOVALoader", folder="golden", weight_dtype="fp32")[0]
    name = f"{file.split('/')[0]}{Path(file).suffix}"
    (loras.folder / name).symlink_to(golden_files / file)
    caplog.clear()
    one, other = stock(run, model, name), ours(run, model, name)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    for a, b in ((one, other), (one.low, other.low)):
        assert len(a.patches) == len(b.patches) > 50
        assert a.patches.keys() == b.patches.keys()


def test_the_low_resource_trainers_pt_file_is_for_our_loader_and_the_log_says_so(
    run: Run, diffusers: Path, loras: Loras, golden_files: Path, caplog: Any
) -> None:
    model = run("MOVALoader", folder="golden", weight_dtype="fp32")[0]
    (loras.folder / "low_resource.pt").symlink_to(golden_files / "low_resource" / "lora_weights.pt")
    assert not stock(run, model, "low_resource.pt").patches
    assert "MOVA LoRA Loader" in caplog.text
    assert "2 at rank 4" in report(run, model, "low_resource.pt")


def test_split_experts_take_their_own_share_of_an_official_file(
    run: Run, scene: Scene, loras: Loras, split: tuple[Any, Any]
) -> None:
    file = loras.tensors(*ALL, write=official) | loras.tensors(*VIDEO, write=official_low, seed=1)
    name = loras.save("both", file)
    whole = made(run, scene, stock(run, scene.model, name))
    for load in (stock, ours):
        high, low = (load(run, expert, name) for expert in split)
        joined = run("MOVAJoinExperts", high_noise=high, low_noise=low)[0]
        assert equal(made(run, scene, joined), whole)


# --- beside the weights, and by conditioning -------------------------------------------------------------------------


@pytest.mark.parametrize("write", [str, official, official_low])
def test_a_bypass_lora_is_the_lora(run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], write: Any) -> None:
    name = loras.write(f"bypass_{write.__name__}", *ALL, write=write)
    model = run("LoraLoaderBypassModelOnly", model=scene.model, lora_name=name, strength_model=0.8)[0]
    for values in (HIGH, LOW, BOTH):
        assert (
            error(made(run, scene, model, values), made(run, scene, stock(run, scene.model, name, 0.8), values)) < 1e-5
        )
    assert equal(made(run, scene, scene.model), plain[BOTH])


@pytest.mark.parametrize("write", [str, official, official_low])
def test_a_lora_hooked_to_the_conditioning_is_the_lora(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], write: Any
) -> None:
    name = loras.write(f"hook_{write.__name__}", *ALL, write=write)
    hooks = run("CreateHookLoraModelOnly", lora_name=name, strength_model=0.8)[0]
    positive, negative = (
        run("ConditioningSetProperties", cond_NEW=c, hooks=hooks, strength=1.0, set_cond_area="default")[0]
        for c in (scene.positive, scene.negative)
    )
    for values in (HIGH, LOW, BOTH):
        hooked = made(run, scene, scene.model, values, positive=positive, negative=negative)
        assert error(hooked, made(run, scene, stock(run, scene.model, name, 0.8), values)) < 1e-5
    assert equal(made(run, scene, scene.model), plain[BOTH])


# --- our loader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", LORA_PARTS)
def test_each_part_has_its_strength(run: Run, scene: Scene, loras: Loras, part: str) -> None:
    silent = {f"strength_{other}": 0.0 for other in LORA_PARTS}
    whole, alone = loras.write("parts", *ALL), loras.save("alone", part_only(loras, part))
    one = ours(run, scene.model, whole, strength=0.5, **(silent | {f"strength_{part}": 3.0}))
    assert equal(made(run, scene, one), made(run, scene, ours(run, scene.model, alone, strength=1.5)))


def part_only(loras: Loras, part: str) -> dict[str, Tensor]:
    return {k: v for k, v in loras.tensors(*ALL).items() if k.split(".lora_")[0] in PARTS_OF[part]}


@pytest.mark.parametrize(
    ("name", "expert", "untouched"),
    [
        ("x", "auto", None),
        ("x", "high", LOW),
        ("x", "low", HIGH),
        ("x_high_noise", "auto", LOW),
        ("x_LowNoise", "auto", HIGH),
        ("x_high_noise", "both", None),
        ("x_high_noise", "low", HIGH),
    ],
)
def test_the_expert_is_the_one_asked_for_else_the_names(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], name: str, expert: str, untouched: str | None
) -> None:
    model = ours(run, scene.model, loras.write(name, *VIDEO), expert=expert)
    same = [values for values in (HIGH, LOW) if equal(made(run, scene, model, values), plain[values])]
    assert same == ([untouched] if untouched else [])


def test_asked_for_one_expert_the_sound_changes_in_its_steps_alone(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any]
) -> None:
    model = ours(run, scene.model, loras.write("sound", *PARTS_OF["audio"]), expert="low")
    assert equal(made(run, scene, model, HIGH), plain[HIGH])
    assert not equal(made(run, scene, model, LOW), plain[LOW])


@pytest.mark.parametrize("widgets", [{"strength": 0.0}, {f"strength_{part}": 0.0 for part in LORA_PARTS}])
def test_at_strength_0_it_is_the_base_bit_for_bit(
    run: Run, scene: Scene, loras: Loras, plain: dict[str, Any], widgets: dict[str, float]
) -> None:
    model, said = run("MOVALoraLoader", model=scene.model, lora_name=loras.write("zero", *ALL), **widgets)
    assert equal(made(run, scene, model), plain[BOTH])
    assert said.count("expert: nothing") == 2


def test_order_does_not_matter_and_twice_adds(run: Run, scene: Scene, loras: Loras) -> None:
    a, b = loras.write("a", *ALL), loras.write("b_high_noise", *VIDEO, seed=1)
    one, other = ours(run, ours(run, scene.model, a), b), ours(run, ours(run, scene.model, b), a)
    assert error(made(run, scene, one), made(run, scene, other)) < 1e-5
    twice, double = ours(run, ours(run, scene.model, a), a), ours(run, scene.model, a, strength=2.0)
    assert error(made(run, scene, twice), made(run, scene, double)) < 1e-5


def test_stacked_on_different_experts_each_has_its_own(run: Run, scene: Scene, loras: Loras) -> None:
    a, b = loras.write("one", *VIDEO), loras.write("other", *VIDEO, seed=1)
    stacked = ours(run, ours(run, scene.model, a, expert="high"), b, expert="low")
    for values, name in ((HIGH, a), (LOW, b)):
        assert equal(made(run, scene, stacked, values), made(run, scene, ours(run, scene.model, name), values))


def test_the_model_it_was_given_is_left_alone(run: Run, scene: Scene, loras: Loras, plain: dict[str, Any]) -> None:
    import comfy.model_management

    before = [(len(m.patches), m.patches_uuid) for m in (scene.model, scene.model.low)]
    comfy.model_management.unload_all_models()
    weights = [w.clone() for w in weights_of(scene)]
    made(run, scene, ours(run, scene.model, loras.write("clone", *ALL)))
    assert [(len(m.patches), m.patches_uuid) for m in (scene.model, scene.model.low)] == before
    assert equal(made(run, scene, scene.model), plain[BOTH])
    comfy.model_management.unload_all_models()
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_of(scene), strict=True))


def weights_of(scene: Scene) -> list[Tensor]:
    return [w for m in (scene.model, scene.model.low) for w in m.model.diffusion_model.state_dict().values()]


def test_differences_of_norms_biases_and_modulation_arrive(run: Run, scene: Scene, loras: Loras) -> None:
    file = {
        "diffusion_model.blocks.0.norm3.diff": torch.full(loras.shapes["blocks.0.norm3.weight"], 0.1),
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.full(loras.shapes["blocks.0.self_attn.q.bias"], 0.2),
        "diffusion_model.blocks.1.diff_m": torch.full(loras.shapes["blocks.1.modulation"], 0.3),
    }
    model = ours(run, scene.model, loras.save("diff", file))
    for patcher in (model, model.low):
        found = {key: patcher.patch_weight_to_device(key, return_weight=True) for key in patcher.patches}
        base = patcher.model.state_dict()
        assert [round(float((found[k] - base[k]).mean()), 5) for k in sorted(found)] == [0.1, 0.2, 0.3]


FORMS = ("dora", "dora of the inputs", "lokr", "lokr in halves", "loha", "dora of a lokr", "convolution", "bias")


def written(loras: Loras, form: str) -> dict[str, Tensor]:
    """A file of one layer in a form, random, in the names of different trainers."""
    layer = "patch_embedding" if form == "convolution" else "blocks.1.ffn.2"
    rows, columns = loras.shapes[f"{layer}.weight"][0], loras.shapes[f"{layer}.weight"][1:].numel()
    random = torch.Generator().manual_seed(len(form))

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random) * 0.3

    peft = {f"base_model.model.{layer}.lora_A.weight": some(4, columns)}
    peft |= {
        f"base_model.model.{layer}.lora_B.weight": some(rows, 4),
        f"base_model.model.{layer}.alpha": torch.tensor(2.0),
    }
    name = "lycoris_" + layer.replace(".", "_")
    kron = {f"{name}.lokr_w1": some(2, 4), f"{name}.lokr_w2": some(rows // 2, columns // 4)}
    small = {f"{name}.lokr_w2_a": some(rows // 2, 3), f"{name}.lokr_w2_b": some(3, columns // 4)}
    kernel = loras.shapes[f"{layer}.weight"][2:]
    return {
        "dora": peft | {f"base_model.model.{layer}.lora_magnitude_vector": some(rows).abs()},
        "dora of the inputs": peft | {f"{name}.dora_scale": some(1, columns).abs()},
        "lokr": kron | {f"{name}.alpha": torch.tensor(9.0)},
        "lokr in halves": {f"{name}.lokr_w1": some(2, 4), **small, f"{name}.alpha": torch.tensor(1.5)},
        "loha": {
            f"lora_unet_{name[8:]}.hada_w{n}_{half}": some(*size)
            for n in (1, 2)
            for half, size in (("a", (rows, 3)), ("b", (3, columns)))
        },
        "dora of a lokr": kron | {f"{name}.dora_scale": some(rows, 1).abs()},
        "convolution": {
            f"{name}.lokr_w1": some(2, 2),
            f"{name}.lokr_w2": some(rows // 2, columns // kernel.numel() // 2, *kernel),
        },
        "bias": peft | {f"base_model.model.{layer}.lora_B.bias": some(rows)},
    }[form]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_every_form_changes_the_weight_as_its_paper_says(
    run: Run, scene: Scene, loras: Loras, form: str, strength: float
) -> None:
    file = written(loras, form)
    model = ours(run, scene.model, loras.save(f"form_{form}", file), strength=strength)
    lora = parse(file, {k: tuple(v) for k, v in loras.shapes.items()})
    assert lora.dropped == {}
    for patcher in (model, model.low):
        base = patcher.model.diffusion_model.state_dict()
        assert len(patcher.patches) == len(lora.changes)
        for change in lora.changes:
            found = patcher.patch_weight_to_device(f"diffusion_model.{change.parameter}", return_weight=True)
            before = base[change.parameter].double()
            wanted = applied(before, change, strength)
            assert relative_error(found.double() - before, wanted - before) < 1e-5


@pytest.mark.parametrize("form", ["dora", "lokr in halves", "loha"])
@pytest.mark.parametrize("precision", ["bf16", "fp8_e4m3fn", "int8"])
def test_every_form_comes_off_narrow_weights_again_bit_for_bit(
    run: Run, scene: Scene, loras: Loras, form: str, precision: str
) -> None:
    import comfy.model_management

    model = run("MOVALoader", folder="tiny", weight_dtype=precision)[0]
    plain = made(run, scene, model)
    patched = ours(run, model, loras.save("narrow_form", written(loras, form)))
    wanted = made(run, scene, ours(run, scene.model, "narrow_form.safetensors"))
    assert error(made(run, scene, patched), wanted) < error(plain, wanted)
    comfy.model_management.unload_all_models()
    assert equal(made(run, scene, model), plain)


def test_a_file_of_nan_is_refused_before_anything_runs(run: Run, scene: Scene, loras: Loras) -> None:
    file = loras.tensors(*VIDEO)
    file[f"{VIDEO[0]}.lora_B.weight"][0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"nan\.safetensors holds NaN or infinite numbers"):
        ours(run, scene.model, loras.save("nan", file))


def test_the_report_of_a_file_full_of_other_things_fits_a_screen(run: Run, scene: Scene, loras: Loras) -> None:
    file = loras.tensors(*VIDEO)
    file |= {f"blocks.{n}.cross_attn.k_img.lora_A.weight": torch.zeros(1, 1) for n in range(500)}
    file |= {f"x{'y' * 400}{n}.lora_A.weight": torch.zeros(1, 1) for n in range(500)}
    file |= {f"blocks.0.norm3.{'z' * n}": torch.zeros(1) for n in range(250)}
    file["blocks.0.norm3.diff"] = torch.zeros(3)
    said = report(run, scene.model, loras.save("crowded", file))
    assert len(said) < 8000
    assert (
        "Left out, 500 keys, Wan 2.1's picture encoder; MOVA has none: blocks.*.cross_attn.k_img.lora_A.weight" in said
    )


def test_the_report_counts_what_was_applied_and_names_what_was_not(run: Run, scene: Scene, loras: Loras) -> None:
    file = loras.tensors(*ALL) | {"blocks.0.self_attn.q.alpha": torch.tensor(2.0)}
    file |= {f"blocks.{n}.cross_attn.k_img.diff_b": torch.ones(3) for n in range(9)}
    file[f"{VIDEO[1]}.lora_B.weight"] = torch.zeros_like(file[f"{VIDEO[1]}.lora_B.weight"])
    said = report(run, scene.model, loras.save("said", file), strength_audio=0.5)
    for line in (
        "said.safetensors, for both experts: neither keys nor file name say which.",
        "high-noise expert: 2 video, 1 audio, 1 audio to video, 1 video to audio",
        "low-noise expert: 2 video, 1 audio, 1 audio to video, 1 video to audio",
        "Strength of audio: 0.5",
        "Scale (alpha / rank): 1 at rank 4 (4), 0.5 at rank 4 (1)",
        "Zeros alone, so without effect: 1 of 5",
    ):
        assert line in said.splitlines()
    assert "Left out, 9 keys, Wan 2.1's picture encoder; MOVA has none:" in said
    assert all(f"blocks.{n}.cross_attn.k_img.diff_b" in said for n in range(9))


def test_a_lora_of_another_model_is_refused(run: Run, scene: Scene, loras: Loras) -> None:
    name = loras.save("flux", {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 8)})
    with pytest.raises(ValueError, match="LoRA of Flux"):
        ours(run, scene.model, name)
    with pytest.raises(ValueError, match=r"there is no file 'gone\.safetensors'"):
        ours(run, scene.model, "gone.safetensors")


def test_nothing_for_the_expert_at_hand_is_an_error(run: Run, loras: Loras, split: tuple[Any, Any]) -> None:
    name = loras.write("only_low", *VIDEO, write=official_low)
    with pytest.raises(ValueError, match="nothing for the high-noise expert, which this MODEL is: it is for each key"):
        ours(run, split[0], name)
    name = loras.write("style_HIGH", *VIDEO)
    with pytest.raises(ValueError, match=r"nothing for the low-noise.*guessed from 'HIGH' in the file name.*choose"):
        ours(run, split[1], name)
    said = report(run, split[0], name).splitlines()[0]
    assert said.endswith("guessed from 'HIGH' in the file name. This MODEL is the high-noise expert alone.")


# --- narrow weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp8_e4m3fn", "int8"])
def test_on_narrow_weights_it_is_what_comfyuis_own_loader_makes(
    run: Run, scene: Scene, loras: Loras, precision: str
) -> None:
    model = run("MOVALoader", folder="tiny", weight_dtype=precision)[0]
    name = loras.write("narrow", *ALL)
    with_lora = made(run, scene, ours(run, model, name))
    assert equal(with_lora, made(run, scene, stock(run, model, name)))
    wanted = made(run, scene, ours(run, scene.model, name))
    assert error(with_lora, wanted) < 0.5 * error(made(run, scene, model), wanted)


@pytest.mark.parametrize("precision", ["bf16", "fp8_e4m3fn", "int8"])
@pytest.mark.parametrize("load", [stock, ours])
def test_taken_off_again_the_weights_are_the_same_bits(
    run: Run, scene: Scene, loras: Loras, precision: str, load: Any
) -> None:
    import comfy.model_management

    model = run("MOVALoader", folder="tiny", weight_dtype=precision)[0]
    held = scene.but(model=model)
    comfy.model_management.unload_all_models()
    before = [stored(weight) for weight in weights_of(held)]
    patched = load(run, model, loras.write("off", *ALL))
    made(run, scene, patched)
    comfy.model_management.load_models_gpu([patched])
    assert not all(torch.equal(a, stored(b)) for a, b in zip(before, weights_of(held), strict=True))
    comfy.model_management.unload_all_models()
    assert all(torch.equal(a, stored(b)) for a, b in zip(before, weights_of(held), strict=True))


def stored(weight: Tensor) -> Tensor:
    """A copy of a weight's bytes."""
    return getattr(weight, "_qdata", weight).detach().clone().flatten().view(torch.uint8)


# --- what the second names leave as it was ---------------------------------------------------------------------------


def test_the_second_names_weigh_nothing_and_are_listed_nowhere_else(run: Run, scene: Scene) -> None:
    import comfy.model_management

    model = scene.model.model
    real = set(model.diffusion_model.state_dict())
    assert comfy.model_management.module_size(model) - comfy.model_management.module_size(model.diffusion_model) < 1e5
    assert {k.removeprefix("diffusion_model.") for k in scene.model.model_state_dict("diffusion_model.")} == real
    assert {k.removeprefix("diffusion_model.") for k in scene.model.get_key_patches("diffusion_model.")} == real
    saved = scene.model.state_dict_for_saving()
    assert not [key for key in saved if "video_dit" in key]
    assert {n for n, _ in model.named_parameters() if "video_dit" in n} == set()


def test_a_merge_of_models_ignores_them(run: Run, scene: Scene, loras: Loras, plain: dict[str, Any]) -> None:
    other = ours(run, scene.model, loras.write("merge", *ALL))
    half = run("ModelMergeSimple", model1=scene.model, model2=other, ratio=0.5)[0]
    assert (
        error(made(run, scene, half), made(run, scene, ours(run, scene.model, "merge.safetensors", strength=0.5)))
        < 1e-5
    )


def test_every_official_key_resolves_to_its_weight(scene: Scene) -> None:
    import comfy.lora
    import comfy.utils

    keys = comfy.lora.model_lora_keys_unet(scene.model.model, {})
    for folder in ("video_dit", "video_dit_2"):
        alias = keys[f"{folder}.blocks.0.self_attn.q"]
        weight = comfy.utils.get_attr(scene.model.model, alias)
        assert weight is scene.model.model.diffusion_model.blocks[0].self_attn.q.weight
    assert keys["blocks.0.self_attn.q"] == "diffusion_model.blocks.0.self_attn.q.weight"
