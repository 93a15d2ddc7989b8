"""Two experts behind one MODEL: changing at the boundary, sharing what is shared, patched together or apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.nodes.graph import Run, Scene, check_finite, equal, error, ksampled, streams
from tests.nodes.loras import Q, shape, write_lora

pytestmark = needs_comfy

STEPS = 6
HIGH_STEPS = 3  # of six, at shift 5: 1, 0.96, 0.909 | 0.83, 0.71, 0.5


sampled = partial(ksampled, steps=STEPS)


def by_sigmas(run: Run, scene: Scene, model: Any, values: str, sampler: str = "euler", cfg: float = 1.0) -> Any:
    latent = {"latent_image": scene.latent, "sampler": run("KSamplerSelect", sampler_name=sampler)[0]}
    chosen = {"add_noise": True, "noise_seed": 7, "cfg": cfg, "sigmas": run("ManualSigmas", sigmas=values)[0]}
    return run("SamplerCustom", model=model, positive=scene.positive, negative=scene.negative, **(latent | chosen))[0]


@pytest.fixture(scope="module")
def split(run: Run, scene: Scene) -> tuple[Any, Any]:
    with torch.inference_mode():
        return run("MOVASplitExperts", model=scene.model)[:2]


@pytest.fixture(scope="module")
def other(run: Run, scene: Scene, diffusers: Path) -> Any:
    """A MODEL of other weights, all but the modulations: ComfyUI patches no weight of a module that holds modules."""
    with torch.inference_mode():
        write_tiny_checkpoint(diffusers / "other", seed=1)
        model = run("MOVALoader", folder="other", weight_dtype="fp32")[0]
        for mine, theirs in ((model, scene.model), (model.low, scene.model.low)):
            weights = theirs.model.diffusion_model.state_dict()
            for name, weight in mine.model.diffusion_model.state_dict().items():
                if name.endswith("modulation"):
                    weight.copy_(weights[name])
        return model


@pytest.fixture(scope="module")
def lora(comfy_base: Path, scene: Scene) -> str:
    """A LoRA on one video, one audio and one bridge weight, as peft names them."""
    keys = (Q, "audio_dit.blocks.1.ffn.0", next(iter(bridge_linears(scene))))
    return write_lora(comfy_base, "peft", {f"diffusion_model.{key}": shape(scene, key) for key in keys})


def bridge_linears(scene: Scene) -> list[str]:
    weights = scene.model.model.diffusion_model.state_dict()
    ends = ".weight"
    return [
        k.removesuffix(ends)
        for k, v in weights.items()
        if k.startswith("dual_tower_bridge") and k.endswith(ends) and v.ndim == 2
    ]


@contextmanager
def call_log(model: Any) -> Iterator[list[tuple[str, float]]]:
    """(expert, video sigma) of every evaluation of this MODEL."""
    log: list[tuple[str, float]] = []
    experts = {"high": model.model, "low": model.low.model}

    def note(name: str) -> Any:
        return lambda module, args: log.append((name, float(args[1].max()) / 1000))

    handles = [m.diffusion_model.register_forward_pre_hook(note(name)) for name, m in experts.items()]
    yield log
    for handle in handles:
        handle.remove()


# --- when they change ------------------------------------------------------------------------------------------------


def test_the_expert_changes_once_and_strictly_below_the_boundary(run: Run, scene: Scene) -> None:
    with call_log(scene.model) as log:
        by_sigmas(run, scene, scene.model, "1.0, 0.95, 0.9, 0.8999, 0.5, 0.0")
    assert [name for name, _ in log] == ["high", "high", "high", "low", "low"]


@pytest.mark.parametrize(("boundary", "high"), [(0.0, 5), (0.5, 4), (0.5001, 3), (0.97, 1), (1.0, 1)])
def test_the_boundary_is_what_it_was_joined_with(
    run: Run, scene: Scene, split: tuple[Any, Any], boundary: float, high: int
) -> None:
    joined = run("MOVAJoinExperts", high_noise=split[0], low_noise=split[1], boundary=boundary)[0]
    with call_log(joined) as log:
        by_sigmas(run, scene, joined, "1.0, 0.95, 0.75, 0.5, 0.25, 0.0")
    assert [name for name, _ in log] == ["high"] * high + ["low"] * (5 - high)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "uni_pc", "dpmpp_sde"])
def test_every_evaluation_goes_by_its_own_noise_level(run: Run, scene: Scene, sampler: str) -> None:
    with call_log(scene.model) as log:
        made = sampled(run, scene, sampler_name=sampler)
    check_finite(made, scene.latent)
    assert {name for name, _ in log} == {"high", "low"}
    assert all((name == "high") == (1000 * sigma >= 900) for name, sigma in log)


def test_audio_tower_and_bridge_are_held_once(scene: Scene) -> None:
    high, low = (m.model.diffusion_model.state_dict() for m in (scene.model, scene.model.low))
    shared = {k for k in high if k.startswith(("audio_dit.", "dual_tower_bridge."))}
    assert len(shared) > 50
    assert all(high[k].data_ptr() == low[k].data_ptr() for k in shared)
    assert all(high[k].data_ptr() != low[k].data_ptr() for k in high.keys() - shared)


# --- apart and together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_one_sampler_on_both_equals_two_ksampleradvanced_stages(
    run: Run, scene: Scene, split: tuple[Any, Any], cfg: float
) -> None:
    common = {"noise_seed": 7, "steps": STEPS, "cfg": cfg, "sampler_name": "euler", "scheduler": "simple"}
    text = {"positive": scene.positive, "negative": scene.negative}
    half = run(
        "KSamplerAdvanced",
        model=split[0],
        latent_image=scene.latent,
        **(common | text),
        add_noise="enable",
        start_at_step=0,
        end_at_step=HIGH_STEPS,
        return_with_leftover_noise="enable",
    )[0]
    whole = run(
        "KSamplerAdvanced",
        model=split[1],
        latent_image=half,
        **(common | text),
        add_noise="disable",
        start_at_step=HIGH_STEPS,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )[0]
    assert error(whole, sampled(run, scene, cfg=cfg)) < 5e-6


def test_joining_what_was_split_changes_nothing(run: Run, scene: Scene, split: tuple[Any, Any]) -> None:
    joined = run("MOVAJoinExperts", high_noise=split[0], low_noise=split[1])[0]
    assert equal(sampled(run, scene, joined), sampled(run, scene))


def test_splitting_leaves_the_model_whole(run: Run, scene: Scene) -> None:
    before = sampled(run, scene)
    run("MOVASplitExperts", model=scene.model)
    assert equal(sampled(run, scene), before)


def test_one_expert_cannot_be_split(run: Run, split: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="MOVA Loader"):
        run("MOVASplitExperts", model=split[0])


# --- LoRA and other patches ------------------------------------------------------------------------------------------


def patched(run: Run, model: Any, lora: str, strength: float = 1.0) -> Any:
    return run("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=strength)[0]


def test_a_lora_reaches_both_experts(run: Run, scene: Scene, split: tuple[Any, Any], lora: str) -> None:
    whole = patched(run, scene.model, lora)
    apart = run("MOVAJoinExperts", high_noise=patched(run, split[0], lora), low_noise=patched(run, split[1], lora))[0]
    made = sampled(run, scene, whole)
    assert equal(made, sampled(run, scene, apart))
    assert error(made, sampled(run, scene)) > 1e-3


@pytest.mark.parametrize("which", [0, 1])
def test_a_lora_on_one_expert_is_on_that_one_alone(
    run: Run, scene: Scene, split: tuple[Any, Any], lora: str, which: int
) -> None:
    experts = list(split)
    experts[which] = patched(run, experts[which], lora)
    joined = run("MOVAJoinExperts", high_noise=experts[0], low_noise=experts[1])[0]
    assert not equal(sampled(run, scene, joined), sampled(run, scene))
    high = by_sigmas(run, scene, joined, "1.0, 0.95, 0.92")
    low = by_sigmas(run, scene, joined, "0.8, 0.5, 0.2")
    plain = [by_sigmas(run, scene, scene.model, values) for values in ("1.0, 0.95, 0.92", "0.8, 0.5, 0.2")]
    assert [equal(high, plain[0]), equal(low, plain[1])] == [which == 1, which == 0]


@pytest.mark.parametrize(
    ("style", "prefix", "up", "down"),
    [
        ("kohya", "lora_unet_", "lora_up", "lora_down"),
        ("wan_fun", "lora_unet__", "lora_up", "lora_down"),
        ("peft_up", "diffusion_model.", "lora_up", "lora_down"),
    ],
)
def test_the_usual_lora_key_styles_mean_the_same(
    run: Run, scene: Scene, comfy_base: Path, style: str, prefix: str, up: str, down: str
) -> None:
    key = "blocks.0.cross_attn.k"
    written = key.replace(".", "_") if prefix.startswith("lora_unet") else key
    one = write_lora(comfy_base, style, {prefix + written: shape(scene, key)}, up, down)
    same = write_lora(comfy_base, "same", {f"diffusion_model.{key}": shape(scene, key)})
    made = sampled(run, scene, patched(run, scene.model, one))
    assert equal(made, sampled(run, scene, patched(run, scene.model, same)))
    assert not equal(made, sampled(run, scene))


def test_strength_0_is_the_base_bit_for_bit(run: Run, scene: Scene, lora: str) -> None:
    assert equal(sampled(run, scene, patched(run, scene.model, lora, 0.0)), sampled(run, scene))


def test_unpatching_restores_the_weights_exactly(run: Run, scene: Scene, lora: str) -> None:
    import comfy.model_management

    before = sampled(run, scene)
    weights = weights_of(scene)
    sampled(run, scene, patched(run, scene.model, lora))
    assert equal(sampled(run, scene), before)
    comfy.model_management.unload_all_models()
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_of(scene), strict=True))


def weights_of(scene: Scene) -> list[Tensor]:
    parts = (scene.model.model, scene.model.low.model)
    return [weight.clone() for part in parts for weight in part.diffusion_model.state_dict().values()]


def test_patching_a_clone_leaves_the_original_alone(run: Run, scene: Scene, lora: str) -> None:
    before = [(len(m.patches), len(m.object_patches)) for m in (scene.model, scene.model.low)]
    patched(run, run("ModelSamplingSD3", model=scene.model, shift=3.0)[0], lora)
    assert [(len(m.patches), len(m.object_patches)) for m in (scene.model, scene.model.low)] == before


def test_clones_of_a_clone_keep_both_experts_patches(run: Run, scene: Scene, lora: str) -> None:
    model = patched(run, scene.model, lora)
    again = patched(run, model.clone(), lora)
    assert equal(sampled(run, scene, model.clone()), sampled(run, scene, model))
    assert error(sampled(run, scene, again), sampled(run, scene, patched(run, scene.model, lora, 2.0))) < 1e-5


@pytest.mark.parametrize(("ratio", "which"), [(1.0, 0), (0.0, 1)])
def test_a_merge_at_either_end_is_that_model_in_both_experts(
    run: Run, scene: Scene, other: Any, ratio: float, which: int
) -> None:
    merged = run("ModelMergeSimple", model1=scene.model, model2=other, ratio=ratio)[0]
    assert equal(sampled(run, scene, merged), sampled(run, scene, (scene.model, other)[which]))


def test_a_merge_half_way_is_neither(run: Run, scene: Scene, other: Any) -> None:
    made = sampled(run, scene, run("ModelMergeSimple", model1=scene.model, model2=other, ratio=0.5)[0])
    check_finite(made, scene.latent)
    assert not equal(made, sampled(run, scene))
    assert not equal(made, sampled(run, scene, other))


# --- the same again --------------------------------------------------------------------------------------------------


def test_two_runs_are_equal_and_other_seeds_differ(run: Run, scene: Scene) -> None:
    first = sampled(run, scene, cfg=5.0)
    assert equal(first, sampled(run, scene, cfg=5.0))
    second = sampled(run, scene, cfg=5.0, seed=8)
    assert not any(torch.equal(a, b) for a, b in zip(streams(first), streams(second), strict=True))


@pytest.mark.parametrize("expert", ["high", "low"])
def test_a_run_after_an_interrupted_one_is_the_same(run: Run, scene: Scene, expert: str) -> None:
    import comfy.model_management

    before = sampled(run, scene)
    model = {"high": scene.model, "low": scene.model.low}[expert].model.diffusion_model
    stop = model.register_forward_pre_hook(lambda *_: comfy.model_management.interrupt_current_processing())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sampled(run, scene)
    stop.remove()
    assert equal(sampled(run, scene), before)
    assert scene.model.active is None
