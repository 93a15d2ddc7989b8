"""One MODEL on several devices: ComfyUI's CFG split, and its nodes that choose a device.

There is one device here. Torch takes "cpu" and "cpu:0" for two, and so does ComfyUI, whose own nodes, scheduler and
worker threads run; what they cannot show is a tensor left on the wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.fixtures.wan_sized import wide_text
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import Run, Scene, equal, error
from tests.nodes.loras import Q, shape, write_lora

pytestmark = needs_comfy

FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 0)
SHARED = "audio_dit.blocks.0.self_attn.q"
CLOSE = 1e-5  # one prompt in a batch of one instead of two in a batch


sampled = partial(graph.ksampled, cfg=3.0)


@pytest.fixture(autouse=True)
def _two_devices(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: [FIRST, SECOND])
    forget_loaded()
    yield
    forget_loaded()


def forget_gone() -> None:
    """ComfyUI's split and its unloading stumble over models in its list whose patcher is gone, until it cleans."""
    from comfy.model_management import current_loaded_models

    current_loaded_models[:] = [model for model in current_loaded_models if model.model is not None]


def forget_loaded() -> None:
    import comfy.model_management

    forget_gone()
    comfy.model_management.unload_all_models()
    forget_gone()


@pytest.fixture(scope="module")
def plain(run: Run, scene: Scene) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene)


@pytest.fixture(scope="module")
def lora(comfy_base: Path, scene: Scene) -> str:
    with torch.inference_mode():
        return write_lora(comfy_base, "devices", {f"diffusion_model.{key}": shape(scene, key) for key in (Q, SHARED)})


def on_two(run: Run, model: Any) -> Any:
    forget_gone()
    return run("MultiGPU_WorkUnits", model=model, max_gpus=2)[0]


def the_copy(model: Any) -> Any:
    (copy,) = model.get_additional_models_with_key("multigpu")
    return copy


@contextmanager
def evaluations(model: Any) -> Iterator[list[tuple[str, int]]]:
    """(device and expert, batch) of every evaluation."""
    copy = the_copy(model)
    log: list[tuple[str, int]] = []
    places = {"first high": model, "first low": model.low, "second high": copy, "second low": copy.low}
    handles = [
        patcher.model.diffusion_model.register_forward_pre_hook(
            lambda module, args, name=name: log.append((name, len(args[1])))
        )
        for name, patcher in places.items()
    ]
    yield log
    for handle in handles:
        handle.remove()


# --- CFG split -------------------------------------------------------------------------------------------------------


def test_each_device_evaluates_one_prompt_and_both_change_expert(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    model = on_two(run, scene.model)
    with evaluations(model) as log:
        made = sampled(run, scene, model)
    assert error(made, plain) < CLOSE
    halves = [{name for name, _ in log[step : step + 2]} for step in range(0, len(log), 2)]
    assert halves[0] == {"first high", "second high"}
    assert halves[-1] == {"first low", "second low"}
    assert all(half in (halves[0], halves[-1]) for half in halves)
    assert {batch for _, batch in log} == {1}


def test_the_copy_is_a_model_of_its_own_that_holds_its_sound_once(run: Run, scene: Scene) -> None:
    model = on_two(run, scene.model)
    copy = the_copy(model)
    assert (copy.load_device, copy.low.load_device) == (SECOND, SECOND)
    experts = [m.model.diffusion_model.state_dict() for m in (model, model.low, copy, copy.low)]
    for key, weight in experts[0].items():
        assert torch.equal(weight, experts[2][key])
        assert torch.equal(experts[1][key], experts[3][key])
        places = {expert[key].data_ptr() for expert in experts}
        assert len(places) == (2 if key.startswith(("audio_dit.", "dual_tower_bridge.")) else 4)


def test_the_low_noise_expert_waits_on_every_device(run: Run, scene: Scene) -> None:
    model = on_two(run, scene.model)
    with model.preparing():
        assert model.get_nested_additional_models() == [the_copy(model)]
    assert {the_copy(model), the_copy(model).low, model.low} == set(model.get_nested_additional_models())


@pytest.mark.parametrize("loader", ["LoraLoaderModelOnly", "LoraLoaderBypassModelOnly"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_lora_put_on_before_or_after_works_on_both_experts_of_both_devices(
    run: Run, scene: Scene, plain: dict[str, Any], lora: str, loader: str, order: str
) -> None:
    def patched(model: Any) -> Any:
        return run(loader, model=model, lora_name=lora)[0]

    whole = sampled(run, scene, patched(scene.model))
    model = on_two(run, patched(scene.model)) if order == "before" else patched(on_two(run, scene.model))
    assert error(sampled(run, scene, model), whole) < CLOSE
    assert error(whole, plain) > 1e-3
    assert equal(sampled(run, scene), plain)


def test_lora_hooks_reach_the_other_device(run: Run, scene: Scene, plain: dict[str, Any], lora: str) -> None:
    hooks = run("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0)[0]
    text = {
        name: run("ConditioningSetProperties", cond_NEW=cond, strength=1.0, set_cond_area="default", hooks=hooks)[0]
        for name, cond in (("positive", scene.positive), ("negative", scene.negative))
    }
    model = on_two(run, scene.model)
    assert error(sampled(run, scene, model, **text), sampled(run, scene, **text)) < CLOSE
    assert error(sampled(run, scene, model), plain) < CLOSE


@pytest.mark.parametrize("apart", ["experts", "joined later"])
def test_experts_apart_or_joined_again_split_too(run: Run, scene: Scene, plain: dict[str, Any], apart: str) -> None:
    high, low = run("MOVASplitExperts", model=scene.model)[:2]
    if apart == "experts":
        for expert in (high, low):
            made = sampled(run, scene, on_two(run, expert), steps=2)
            assert error(made, sampled(run, scene, expert, steps=2)) < CLOSE
    else:
        model = run("MOVAJoinExperts", high_noise=on_two(run, high), low_noise=on_two(run, low))[0]
        assert error(sampled(run, scene, model), plain) < CLOSE


def test_a_model_taken_apart_after_the_split_runs(run: Run, scene: Scene) -> None:
    high, low = run("MOVASplitExperts", model=on_two(run, scene.model))[:2]
    plain = run("MOVASplitExperts", model=scene.model)
    for expert, alone in zip((high, low), plain, strict=False):
        assert error(sampled(run, scene, expert, steps=2), sampled(run, scene, alone, steps=2)) < CLOSE


def test_guidance_of_the_bridge_and_sound_steps_split_too(run: Run, scene: Scene) -> None:
    common = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "steps": 4, "cfg": 3.0}
    for widgets in ({"audio_substeps": 3}, {"audio_denoise": 0.5}):
        whole = run("MOVASampler", model=scene.model, **common, **widgets)[0]
        made = run("MOVASampler", model=on_two(run, scene.model), **common, **widgets)[0]
        assert error(made, whole) < CLOSE


def test_the_path_is_the_one_that_fits_the_smaller_device(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, estimate = pack.module("nodes.host.model.memory"), pack.module("mova_core.estimate")
    model = on_two(run, scene.model)
    copy = the_copy(model)
    asked: list[float] = []
    monkeypatch.setattr(memory, "capacity", lambda device: 3.0 if device == SECOND else 7.0)
    monkeypatch.setattr(memory, "choose", lambda sizes, load, room, *_, **__: asked.append(room) or estimate.CHUNKED)
    sampled(run, scene, model, steps=2)
    assert asked == [3.0]
    assert {m.model.rows for m in (model, model.low, copy, copy.low)} == {estimate.CHUNKED}


def test_a_second_run_uses_the_copy_again(run: Run, scene: Scene) -> None:
    model = on_two(run, scene.model)
    first = sampled(run, scene, model)
    held = the_copy(model).model, the_copy(model).low.model
    assert equal(sampled(run, scene, model), first)
    assert (the_copy(model).model, the_copy(model).low.model) == held


# --- other loaders, other devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_dtype", ["default", "int8"])
def test_single_files_split(run: Run, scene: Scene, models: dict[str, str], weight_dtype: str) -> None:
    names = {"high_noise": models["video_dit"], "low_noise": models["video_dit_2"], "shared": models["shared"]}
    model = run("MOVAModelLoader", **names, weight_dtype=weight_dtype)[0]
    made = sampled(run, scene, on_two(run, model))
    assert error(made, sampled(run, scene, model)) < (CLOSE if weight_dtype == "default" else 0.02)


def test_attached_sound_splits_where_the_other_loader_can_load_again(
    run: Run, scene: Scene, pack: Pack, wan_sized: dict[str, str]
) -> None:
    experts = []
    for part in ("video_dit", "video_dit_2"):
        (wan,) = run("UNETLoader", unet_name=wan_sized[part], weight_dtype="default")
        experts.append(run("MOVAAttachSound", model=wan, shared=wan_sized["shared"])[0])
    (joined,) = run("MOVAJoinExperts", high_noise=experts[0], low_noise=experts[1])
    wide = wide_text(scene)
    assert error(sampled(run, wide, on_two(run, joined)), sampled(run, wide, joined)) < CLOSE
    wan.cached_patcher_init = None
    (once,) = run("MOVAAttachSound", model=wan, shared=wan_sized["shared"])
    with pytest.raises(RuntimeError, match="cached_patcher_init"):
        on_two(run, once)


def test_a_chosen_device_is_both_experts(
    run: Run, scene: Scene, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "resolve_gpu_device_option", lambda _: torch.device(SECOND))
    loaded = run("MOVALoader", folder="tiny", weight_dtype="fp32")[0]
    (model,) = run("SelectModelDevice", model=loaded, device="cpu")
    assert equal(sampled(run, scene, model), plain)
    assert (model.load_device, model.low.load_device) == (SECOND, SECOND)
    assert (model.offload_device, model.low.offload_device) == (SECOND, SECOND)
    assert loaded.low.load_device == FIRST


def test_without_dynamic_vram_both_experts_are_loaded_again(
    run: Run, scene: Scene, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for LoRA hooks and torch.compile on a card. The patcher is ComfyUI's, for a card that is not there."""
    import comfy.model_management
    import comfy.model_patcher

    memory = SimpleNamespace(size=0)
    monkeypatch.setattr("comfy_aimdo.host_buffer.HostBuffer", lambda *_: memory)
    with monkeypatch.context() as card:
        card.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        card.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))
        card.setattr(comfy.model_management, "unet_manual_cast", lambda *_, **__: None)
        model = run("MOVALoader", folder="tiny", weight_dtype="fp32")[0]
        assert (model.is_dynamic(), model.low.is_dynamic()) == (True, True)
        delegate = model.get_non_dynamic_delegate()
        again = model.get_non_dynamic_delegate()
    assert (delegate.is_dynamic(), delegate.low.is_dynamic()) == (False, False)
    assert delegate.model is not model.model
    assert (again.model, again.low.model) == (delegate.model, delegate.low.model)
    for expert in (delegate, delegate.low):
        expert.load_device = expert.offload_device = FIRST
    assert equal(sampled(run, scene, delegate), plain)


def test_text_encoder_and_vaes_can_be_asked_for_again(run: Run, scene: Scene) -> None:
    for patcher in (scene.clip.patcher, scene.vae.patcher, scene.audio_vae.patcher):
        copy = patcher.deepclone_multigpu(new_load_device=SECOND)
        theirs = copy.model.state_dict()
        assert copy.model is not patcher.model
        assert all(torch.equal(weight, theirs[key]) for key, weight in patcher.model.state_dict().items())
