"""What other packs put on a MODEL of two experts: bound to each expert's own layers, or refused by name.

Calls are made as public Wan nodes make them: feed-forward in chunks, compiled blocks, attention guidance, enhanced
frames, zero-star guidance, attention of other kernels. Where a patch changes nothing, the clip must be the same bit by
bit.
"""

from __future__ import annotations

import logging
import types
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, check_finite, equal, ksampled
from tests.nodes.loras import shape, write_lora

pytestmark = needs_comfy

STEPS = 4  # two with each expert
APPLY = "apply_model"
Put = Callable[[Any], Any]


@pytest.fixture(scope="module")
def plain(run: Run, scene: Scene) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene, scene.model)


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    """Object patches of the test before stay on the layers as long as its model is loaded."""
    import comfy.model_management

    comfy.model_management.unload_all_models()


@pytest.fixture(scope="module")
def error(pack: Pack) -> type[ValueError]:
    return pack.module("mova_core.errors").PatchError


sampled = partial(ksampled, steps=STEPS)


def on_each(run: Run, scene: Scene, put: Put) -> Any:
    high, low = run("MOVASplitExperts", model=scene.model)
    return run("MOVAJoinExperts", high_noise=put(high), low_noise=put(low), boundary=0.9)[0]


def blocks(model: Any) -> Any:
    return model.get_model_object("diffusion_model").blocks


# --- feed-forward, in all the ways a method can be kept


class Chunks:
    """Settings of a patch; the bound method keeps them in its closure and on the layer."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __get__(self, layer: nn.Module, kind: type | None = None) -> Any:
        def forward(own: Any, x: Tensor, *args: Any, **more: Any) -> Tensor:
            own.chunks = self.count
            return torch.cat([type(own).forward(own, part) for part in x.chunk(own.chunks, dim=1)], dim=1)

        return types.MethodType(forward, layer)


class Holder:
    """A callable that holds a layer, or what holds one."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, x: Tensor) -> Tensor:
        held = self.held() if isinstance(self.held, weakref.ref) else self.held
        layer = held["layers"][0] if isinstance(held, dict) else held
        return type(layer).forward(layer, x)


class Slotted(Holder):
    __slots__ = ("other",)


def by_partial(layer: nn.Module, x: Tensor) -> Tensor:
    return type(layer).forward(layer, x)


def by_default(layer: Any) -> Any:
    return lambda x, own=layer: type(own).forward(own, x)


def by_keyword(layer: Any) -> Any:
    def forward(x: Tensor, *, own: Any = layer) -> Tensor:
        return type(own).forward(own, x)

    return forward


def by_attribute(layer: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        raise AssertionError

    forward.layer = layer  # type: ignore[attr-defined]
    return Holder(forward.layer)  # type: ignore[attr-defined]


def circular(layer: Any) -> Any:
    made = Holder(layer)
    made.itself = made  # type: ignore[attr-defined]
    return made


WAYS: dict[str, Callable[[Any], Any]] = {
    "one chunk": lambda layer: Chunks(1).__get__(layer),
    "a method of its class": lambda layer: types.MethodType(type(layer).forward, layer),
    "a partial": lambda layer: partial(by_partial, layer),
    "an object": Holder,
    "an object with slots": Slotted,
    "an object of an object": lambda layer: Holder({"layers": (layer,)}),
    "a weak reference": lambda layer: Holder(weakref.ref(layer)),
    "a default": by_default,
    "a keyword's default": by_keyword,
    "an attribute": by_attribute,
    "an object that holds itself": circular,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_method_that_changes_nothing_changes_nothing(
    run: Run, scene: Scene, plain: dict[str, Any], way: Callable[[Any], Any]
) -> None:
    model = scene.model.clone()
    for index, block in enumerate(blocks(model)):
        model.add_object_patch(f"diffusion_model.blocks.{index}.ffn.forward", way(block.ffn))
    assert equal(sampled(run, scene, model), plain)


def test_chunks_are_of_each_experts_own_layers(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    def put(model: Any) -> Any:
        patched = model.clone()
        for index, block in enumerate(blocks(patched)):
            patched.add_object_patch(f"diffusion_model.blocks.{index}.ffn.forward", Chunks(2).__get__(block.ffn))
        return patched

    together = sampled(run, scene, put(scene.model))
    assert equal(together, sampled(run, scene, on_each(run, scene, put)))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*(s["samples"].unbind() for s in (together, plain))))


# --- what keeps its layers to itself


def wrapped(module: Any) -> Any:
    before = module.forward
    return lambda x: before(x)


def test_a_function_with_variables_of_its_own_is_refused_on_both_and_works_on_each(
    run: Run, scene: Scene, plain: dict[str, Any], error: type[ValueError]
) -> None:
    def put(model: Any) -> Any:
        patched = model.clone()
        patched.add_object_patch("diffusion_model.blocks.0.ffn.forward", wrapped(blocks(patched)[0].ffn))
        return patched

    with pytest.raises(error, match=r"wrapped.*test_foreign.*blocks.0.ffn.forward.*before.*MOVA Split Experts"):
        put(scene.model)
    assert equal(sampled(run, scene, on_each(run, scene, put)), plain)


def test_a_method_that_keeps_the_other_experts_layer_ends_the_run_by_name(
    run: Run, scene: Scene, error: type[ValueError]
) -> None:
    model = scene.model.clone()
    ffn = blocks(model)[0].ffn

    def theirs(own: Any, x: Tensor) -> Tensor:
        return type(ffn).forward(ffn, x)

    model.add_object_patch("diffusion_model.blocks.0.ffn.forward", types.MethodType(theirs, ffn))
    with pytest.raises(error, match=r"theirs.*blocks.0.ffn.forward.*other expert's weights.*MOVA Split Experts"):
        sampled(run, scene, model)
    assert not any(module._forward_pre_hooks for module in scene.model.model.modules())


# --- options


@pytest.mark.parametrize("where", ["on the MODEL", "on each expert"])
def test_options_compute_with_the_expert_that_runs(
    run: Run, scene: Scene, plain: dict[str, Any], where: str, pack: Pack
) -> None:
    """A block patch, a model function and a wrapper that each hold a layer, and say which when they are called."""
    seen: list[tuple[str, nn.Module]] = []

    class Patch:
        def __init__(self, layer: Any, name: str) -> None:
            self.layer, self.name = layer, name

        def block(self, args: Any, extra: Any) -> Any:
            seen.append((self.name, self.layer))
            return extra["original_block"](args)

        def function(self, apply: Any, args: Any) -> Any:
            seen.append((self.name, self.layer))
            return apply(args["input"], args["timestep"], **args["c"])

        def __call__(self, executor: Any, *args: Any, **more: Any) -> Any:
            seen.append((self.name, self.layer))
            return executor(*args, **more)

    def put(model: Any) -> Any:
        patched, layer = model.clone(), blocks(model)[0]
        patched.set_model_patch_replace(Patch(layer, "block").block, "dit", "double_block", 0)
        patched.set_model_unet_function_wrapper(Patch(layer, "function").function)
        patched.add_wrapper_with_key(APPLY, "some pack", Patch(layer, "wrapper"))
        return patched

    model = put(scene.model) if where == "on the MODEL" else on_each(run, scene, put)
    assert equal(sampled(run, scene, model), plain)
    high, low = blocks(scene.model)[0], blocks(scene.model.low)[0]
    for name in ("block", "function", "wrapper"):
        layers = [layer for which, layer in seen if which == name]
        assert layers == [high] * (STEPS // 2) + [low] * (STEPS // 2)
    seen.clear()
    apart = run("MOVASplitExperts", model=model)
    for expert, layer in zip(apart, (high, low), strict=True):
        sampled(run, scene, expert)
        assert len(seen) == 3 * STEPS
        assert {each for _, each in seen} == {layer}
        seen.clear()


def test_what_is_put_on_after_joining_reaches_both(run: Run, scene: Scene) -> None:
    seen: list[str] = []

    def noted(name: str) -> Any:
        return lambda args, extra: seen.append(name) or extra["original_block"](args)

    def one(model: Any) -> Any:
        patched = model.clone()
        patched.set_model_patch_replace(noted(str(patched.expert)), "dit", "double_block", 0)
        return patched

    model = on_each(run, scene, one)
    model.set_model_patch_replace(noted("both"), "dit", "double_block", 1)
    sampled(run, scene, model)
    assert seen == ["high", "both"] * (STEPS // 2) + ["low", "both"] * (STEPS // 2)


def test_an_attention_of_another_kernel_is_asked_by_both(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    import comfy.ldm.modules.attention as attention

    asked: list[str] = []

    def override(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        asked.append(kwargs["transformer_options"]["block_index"])
        return attention.attention_pytorch(*args, **kwargs)

    model = scene.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    made = sampled(run, scene, model)
    assert len(asked) > STEPS
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*(s["samples"].unbind() for s in (made, plain))))


def test_sparse_attention_of_newer_comfyui_sees_each_experts_blocks_and_every_token_of_the_picture(
    run: Run, scene: Scene, plain: dict[str, Any]
) -> None:
    """As 'Model Sparse Attention' does: put on again before each step, atop what is there; forgotten after the run."""
    from comfy.patcher_extension import CallbacksMP

    mine: list[Any] = []
    asked: list[tuple[float, int, int, int]] = []
    ended: list[Any] = []

    def put_on(options: dict[str, Any]) -> None:
        previous = options.get("optimized_attention_override")
        if previous in mine:
            return

        def override(func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, **more: Any) -> Tensor:
            told = more["transformer_options"]
            asked.append((float(told["sigmas"][0]), told["block_index"], q.shape[1], k.shape[1]))
            return func(q, k, v, heads, mask=mask, **more)

        mine.append(override)
        options["optimized_attention_override"] = override

    model = scene.model.clone()
    put_on(model.model_options["transformer_options"])
    again = (
        CallbacksMP.ON_PREPARE_STATE,
        "sparse",
        lambda patcher, timestep, options: put_on(options["transformer_options"]),
    )
    model.add_callback_with_key(*again)
    model.add_callback_with_key(CallbacksMP.ON_CLEANUP, "sparse", lambda patcher: ended.append(patcher))
    assert equal(sampled(run, scene, model), plain)
    assert len({sigma for sigma, *_ in asked}) == STEPS
    tokens = max(keys for *_, keys in asked)
    whole = [block for _, block, queries, keys in asked if queries == keys == tokens]
    assert whole == sorted(set(whole)) * STEPS
    assert len(mine) == 1
    assert ended


def test_zero_star_guidance_works(run: Run, scene: Scene) -> None:
    def guided(args: Any) -> Tensor:
        sigmas = args["model_options"]["transformer_options"]["sample_sigmas"]
        if int((sigmas == args["timestep"][0]).nonzero()[0]) == 0:
            return args["cond"] * 0
        positive, negative = (args[key].flatten(1) for key in ("cond", "uncond"))
        share = (positive * negative).sum(1, keepdim=True) / (negative.square().sum(1, keepdim=True) + 1e-8)
        negative = (negative * share).view_as(args["uncond"])
        return negative + args["cond_scale"] * (args["cond"] - negative)

    model = scene.model.clone()
    model.set_model_sampler_cfg_function(guided)
    made = sampled(run, scene, model, cfg=3.0)
    check_finite(made, scene.latent)
    assert not equal(made, sampled(run, scene, scene.model, cfg=3.0))


# --- compiled


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the pack; ComfyUI has warnings of its own."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and r.name == "mova"]


COMPILED: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def by_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """A wrapper that looks the compiled layers up by the model that runs."""
    import comfy.utils

    swapped = {
        key: comfy.utils.set_attr(executor.class_obj, key, module)
        for key, module in COMPILED.get(executor.class_obj, {}).items()
    }
    try:
        return executor(*args, **kwargs)
    finally:
        for key, module in swapped.items():
            comfy.utils.set_attr(executor.class_obj, key, module)


def by_closure(compiled: dict[str, Any]) -> Any:
    """A wrapper that keeps the compiled layers of one model to itself."""
    import comfy.utils

    def swap(executor: Any, *args: Any, **kwargs: Any) -> Any:
        swapped = {key: comfy.utils.set_attr(executor.class_obj, key, module) for key, module in compiled.items()}
        try:
            return executor(*args, **kwargs)
        finally:
            for key, module in swapped.items():
                comfy.utils.set_attr(executor.class_obj, key, module)

    return swap


def compiled(module: Any) -> Any:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("kind", ["by model", "by closure", "nothing at all"])
def test_wrappers_under_the_compile_key_run_and_the_other_expert_is_eager(
    run: Run, scene: Scene, plain: dict[str, Any], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def put(model: Any) -> Any:
        patched = model.clone()
        layers = {"diffusion_model.blocks.0": compiled(blocks(patched)[0])} if kind != "nothing at all" else {}
        COMPILED[patched.model] = layers
        wrapper = by_model if kind == "by model" else by_closure(layers)
        patched.add_wrapper_with_key(APPLY, "torch.compile", wrapper)
        patched.model_options["torch_compile_kwargs"] = {"backend": "eager"}
        return patched

    with caplog.at_level(logging.WARNING, "mova"):
        made = sampled(run, scene, put(scene.model))
    assert equal(made, plain)
    (said,) = messages(caplog)
    assert "compiled" in said
    assert "MOVA Split Experts" in said
    assert blocks(scene.model)[0] is scene.model.model.diffusion_model.blocks[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mova"):
        assert equal(sampled(run, scene, on_each(run, scene, put)), plain)
    assert messages(caplog) == []
    COMPILED.clear()


def test_comfyuis_own_wrapper_compiles_the_same_layers_of_each(
    run: Run, scene: Scene, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    layers: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: layers.append(model) or model)
    model = scene.model.clone()
    set_torch_compile_wrapper(model, backend="eager", keys=["diffusion_model.blocks.0", "diffusion_model.blocks.1"])
    assert equal(sampled(run, scene, model), plain)
    assert layers == [*blocks(scene.model)[:2], *blocks(scene.model.low)[:2]]


def test_a_compiled_layer_in_a_layers_place_is_the_high_noise_experts_alone(
    run: Run, scene: Scene, plain: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = scene.model.clone()
    with caplog.at_level(logging.WARNING, "mova"):
        for index in (0, 1):
            name = f"diffusion_model.blocks.{index}.ffn"
            model.add_object_patch(name, compiled(model.get_model_object(name)))
        made = sampled(run, scene, model)
    assert equal(made, plain)
    assert len(messages(caplog)) == 1


# --- for another model


class AttentionGuidance:
    """Made for Wan: (layer, tokens, text, transformer_options)."""

    def __get__(self, layer: nn.Module, kind: type | None = None) -> Any:
        def forward(own: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return guided(own, x, *args, **kwargs)

        return types.MethodType(forward, layer)


def guided(self: Any, x: Tensor, context: Tensor, transformer_options: Any = None) -> Tensor:
    return x * self.num_heads


def test_text_attention_made_for_wan_is_refused_by_name(run: Run, scene: Scene, error: type[ValueError]) -> None:
    for model in (scene.model.clone(), *run("MOVASplitExperts", model=scene.model)):
        name = "diffusion_model.blocks.0.cross_attn.forward"
        model.add_object_patch(name, AttentionGuidance().__get__(blocks(model)[0].cross_attn))
        with pytest.raises(error, match=r"AttentionGuidance.*cross_attn.forward.*another model"):
            sampled(run, scene, model)


def test_a_model_function_that_wants_pictures_in_five_dimensions_is_refused_by_name(
    run: Run, scene: Scene, error: type[ValueError]
) -> None:
    def sparse(apply: Any, args: Any) -> Any:
        return apply(args["input"], args["timestep"], **args["c"]) if args["input"].shape[4] else None

    model = scene.model.clone()
    model.set_model_unet_function_wrapper(sparse)
    with pytest.raises(error, match=r"sparse.*model_function_wrapper.*IndexError.*another model"):
        sampled(run, scene, model)


def of_a_library(inner: Any) -> None:
    patch.multiple(inner, forward_orig=None).__enter__()


def of_comfyui(inner: Any) -> None:
    import comfy.utils

    comfy.utils.common_upscale(torch.ones(3), 8, 8, "bilinear", "disabled")


@pytest.mark.parametrize("part", [of_a_library, of_comfyui])
def test_what_a_patch_calls_is_its_own_too(run: Run, scene: Scene, error: type[ValueError], part: Any) -> None:
    """TeaCache swaps the forward of other models by unittest.mock; what ComfyUI raises in its hands is its own.
    Another patch of the same file is not named."""

    def cached(apply: Any, args: Any) -> Any:
        part(inner)
        return apply(args["input"], args["timestep"], **args["c"])

    model = scene.model.clone()
    model.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"])
    inner = model.get_model_object("diffusion_model")
    model.set_model_unet_function_wrapper(cached)
    with pytest.raises(error, match=r"cached.*model_function_wrapper.*another model") as told:
        sampled(run, scene, model)
    assert len(str(told.value)) < 600


def test_a_wrapper_is_not_blamed_for_what_it_passes_on(run: Run, scene: Scene) -> None:
    from comfy.patcher_extension import WrappersMP

    def passes(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(*args, **kwargs)

    model = scene.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "some pack", passes)
    model.model_options["sampler_calc_cond_batch_function"] = torch.add  # called by ComfyUI, of no pack
    with pytest.raises(TypeError, match="add"):
        sampled(run, scene, model)


def test_a_block_patch_that_asks_for_another_patch_is_named(run: Run, scene: Scene, error: type[ValueError]) -> None:
    """KJ's SkipLayerGuidanceWanVideo works with TeaCache's options only."""

    def skip(args: Any, extra: Any) -> Any:
        raise ValueError("transformer_options not found in extra_args, only works with TeaCacheKJ")

    model = scene.model.clone()
    model.set_model_patch_replace(skip, "dit", "double_block", 1)
    with pytest.raises(error, match=r"skip.*double_block.*TeaCacheKJ"):
        sampled(run, scene, model)


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "HIP error: out of memory"])
def test_a_card_that_is_full_is_no_fault_of_a_patch(run: Run, scene: Scene, text: str) -> None:
    """Newer drivers tell it as an error of the accelerator, which is a RuntimeError."""

    def full(apply: Any, given: dict[str, Any]) -> Tensor:
        raise torch.AcceleratorError(text)

    model = scene.model.clone()
    model.set_model_unet_function_wrapper(full)
    with pytest.raises(torch.AcceleratorError, match=text):
        sampled(run, scene, model)


@pytest.mark.parametrize("name", ["blocks.0.self_attn.forward", "rope_embedder", "blocks.0.cross_attn.k_img"])
def test_what_mova_does_not_have_is_refused_at_the_node(scene: Scene, error: type[ValueError], name: str) -> None:
    with pytest.raises(error, match=rf"AttentionGuidance.*{name}"):
        scene.model.clone().add_object_patch(f"diffusion_model.{name}", AttentionGuidance())


# --- injections and callbacks


def test_injections_go_by_the_patcher_they_are_given(run: Run, scene: Scene, error: type[ValueError]) -> None:
    from comfy.patcher_extension import PatcherInjection

    def silence(patcher: Any) -> None:
        patcher.model.diffusion_model.blocks[0].ffn.forward = lambda x: torch.zeros_like(x)

    def restore(patcher: Any) -> None:
        patcher.model.diffusion_model.blocks[0].ffn.__dict__.pop("forward", None)

    def put(model: Any, inject: Any, eject: Any) -> Any:
        patched = model.clone()
        patched.set_injections("some pack", [PatcherInjection(inject, eject)])
        return patched

    together = sampled(run, scene, put(scene.model, silence, restore))
    assert equal(together, sampled(run, scene, on_each(run, scene, lambda m: put(m, silence, restore))))
    assert not equal(together, sampled(run, scene, scene.model))
    high = scene.model
    with pytest.raises(error, match=r"some pack.*MOVA Split Experts"):
        put(scene.model, lambda _: silence(high), lambda _: restore(high))
    restore(high)


def test_a_load_callback_is_called_for_each_expert(run: Run, scene: Scene) -> None:
    seen: list[Any] = []
    model = scene.model.clone()
    model.add_callback("on_load_after", lambda patcher, *_: seen.append(patcher.model))
    sampled(run, scene, model)
    assert set(map(id, seen)) == {id(model.model), id(model.low.model)}


def test_blocks_moved_as_an_expert_is_loaded_are_its_own(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    """As block-swap nodes do."""
    moved: list[Any] = []

    def swap(patcher: Any, *_: Any) -> None:
        for block in patcher.model.diffusion_model.blocks:
            moved.append(block.to("cpu"))

    model = scene.model.clone()
    model.add_callback("on_load_after", swap)
    assert equal(sampled(run, scene, model), plain)
    assert moved == [*blocks(scene.model), *blocks(scene.model.low)]


# --- nodes that sample or load by themselves


def test_guidance_for_some_steps_alone_is_that_of_each_step(run: Run, scene: Scene) -> None:
    """A guider that asks for the negative prompt within some steps, and goes without it outside them."""
    from comfy.samplers import CFGGuider, sampling_function

    asked: list[float] = []

    class Scheduled(CFGGuider):
        guided: Callable[[int], bool]

        def predict_noise(self, x: Any, timestep: Any, model_options: Any = None, seed: int | None = None) -> Any:
            steps = model_options["transformer_options"]["sample_sigmas"]
            cfg = 3.0 if self.guided(int((steps - timestep[0]).abs().argmin())) else 1.0
            asked.append(cfg)
            negative = self.conds.get("negative") if cfg != 1.0 else None
            args = (timestep, negative, self.conds["positive"], cfg)
            return sampling_function(self.inner_model, x, *args, model_options=model_options, seed=seed)

    def made(guided: Callable[[int], bool]) -> dict[str, Any]:
        guider = Scheduled(scene.model)
        guider.set_conds(scene.positive, scene.negative)
        guider.guided = guided
        sigmas = run("BasicScheduler", model=scene.model, scheduler="simple", steps=STEPS, denoise=1.0)[0]
        inputs = {"noise": run("RandomNoise", noise_seed=7)[0], "guider": guider, "sigmas": sigmas}
        sampler = run("KSamplerSelect", sampler_name="euler")[0]
        return run("SamplerCustomAdvanced", **inputs, sampler=sampler, latent_image=scene.latent)[0]

    assert equal(made(lambda step: True), sampled(run, scene, scene.model, cfg=3.0))
    assert equal(made(lambda step: False), sampled(run, scene, scene.model, cfg=1.0))
    asked.clear()
    some = made(lambda step: step in (1, 2))
    assert asked == [1.0, 3.0, 3.0, 1.0]
    check_finite(some, scene.latent)


def test_a_lora_for_some_blocks_alone_reaches_both_experts(run: Run, scene: Scene, comfy_base: Path) -> None:
    """As a loader with a strength for each block does: ComfyUI's own reading, filtered, put on by the MODEL itself."""
    import comfy.lora
    from safetensors.torch import load_file

    layers = [f"blocks.{n}.self_attn.q" for n in (0, 1)]
    shapes = {layer: shape(scene, layer) for layer in layers}
    whole = load_file(comfy_base / "models" / "loras" / write_lora(comfy_base, "by_block", shapes))
    file = {f"diffusion_model.{key}": tensor for key, tensor in whole.items()}
    keys = comfy.lora.model_lora_keys_unet(scene.model.model, {})
    loaded = {key: patch for key, patch in comfy.lora.load_lora(file, keys).items() if "blocks.0." in str(key)}
    model = scene.model.clone()
    model.add_patches(loaded, 0.7)
    alone = write_lora(comfy_base, "one_block", {layers[0]: shapes[layers[0]]})
    ours = run("MOVALoraLoader", model=scene.model, lora_name=alone, expert="both", strength=0.7)[0]
    made = sampled(run, scene, model)
    assert equal(made, sampled(run, scene, ours))
    assert not equal(made, sampled(run, scene, scene.model))


def test_comfyuis_block_swap_is_empty(run: Run, scene: Scene, stock: dict[str, type]) -> None:
    if "wanBlockSwap" in stock:
        assert run("wanBlockSwap", model=scene.model)[0] is scene.model
