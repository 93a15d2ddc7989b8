"""ComfyUI's own nodes on a MOVA MODEL and a joint LATENT. The tables may only grow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comfy import PACK, needs_comfy
from tests.nodes.conftest import condition
from tests.nodes.graph import Run, Scene, check_finite, equal, error, ksampled, streams
from tests.nodes.loras import Q, shape, write_lora

pytestmark = needs_comfy

STEPS = 4
SHARED = "audio_dit.blocks.0.self_attn.q"
CFG = 3.0
MODEL_NODES: dict[str, dict[str, Any]] = {
    "ModelSamplingSD3": {"shift": 3.0},
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "LazyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "NAGuidance": {},
    "SkipLayerGuidanceDiT": {"double_layers": "1", "single_layers": "", "start_percent": 0.0, "end_percent": 1.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "1", "single_layers": "", "start_percent": 0.0},
    "APG": {"momentum": 0.5, "norm_threshold": 1.0},
    "TCFG": {},
    "RescaleCFG": {},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 0.5},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 0.7},
    "Mahiro": {},
    "FreSca": {"freq_cutoff": 2},
    "Epsilon Scaling": {"scaling_factor": 1.05},
    "TemporalScoreRescaling": {},
    "ScaleROPE": {"scale_x": 2.0, "scale_t": 0.5, "shift_y": 1.0},
    "LTXVModalityGuidance": {},
    "LTXVSpatioTemporalGuidance": {"blocks": "1"},
    "ModelComputeDtype": {"dtype": "fp32"},
    "DifferentialDiffusion": {},
}
NO_EFFECT = {"ModelComputeDtype", "DifferentialDiffusion"}  # float32 as before, and no mask: tested below


@pytest.fixture(scope="module")
def plain(run: Run, scene: Scene) -> dict[str, Any]:
    """KSampler with nothing in between."""
    with torch.inference_mode():
        return sampled(run, scene)


sampled = partial(ksampled, steps=STEPS, cfg=CFG)


# --- on the MODEL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node_id", MODEL_NODES)
def test_a_model_node_works(run: Run, scene: Scene, plain: dict[str, Any], node_id: str) -> None:
    cached = node_id.endswith("Cache")  # a cache starts anew with each expert, and wants a few steps to warm up
    base = sampled(run, scene, steps=10) if cached else plain
    model = run(node_id, model=scene.model, **MODEL_NODES[node_id])[0]
    made = sampled(run, scene, model, steps=10 if cached else STEPS)
    check_finite(made, plain)
    assert equal(made, base) == (node_id in NO_EFFECT)


@pytest.mark.parametrize("node_id", ["ScaleROPE", "SkipLayerGuidanceDiTSimple", "EasyCache", "NAGuidance"])
def test_a_model_node_reaches_the_low_noise_expert(run: Run, scene: Scene, node_id: str) -> None:
    """Two steps below the boundary."""
    patched = run(node_id, model=scene.model, **MODEL_NODES[node_id])[0]
    made, base = (guided(run, scene, model, "0.8, 0.6, 0.4, 0.2, 0.0") for model in (patched, scene.model))
    check_finite(made, base)
    assert not equal(made, base)


def guided(run: Run, scene: Scene, model: Any, sigmas: str) -> dict[str, Any]:
    guider = run("CFGGuider", model=model, positive=scene.positive, negative=scene.negative, cfg=CFG)[0]
    return custom(run, scene, guider, run("ManualSigmas", sigmas=sigmas)[0])


def custom(run: Run, scene: Scene, guider: Any, sigmas: Any, **inputs: Any) -> dict[str, Any]:
    parts = {"noise": run("RandomNoise", noise_seed=7)[0], "sampler": run("KSamplerSelect", sampler_name="euler")[0]}
    latent = {"latent_image": scene.latent}
    return run("SamplerCustomAdvanced", guider=guider, sigmas=sigmas, **(parts | latent | inputs))[0]


def test_a_compute_dtype_reaches_both_experts(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    made = sampled(run, scene, run("ModelComputeDtype", model=scene.model, dtype="bf16")[0])
    check_finite(made, plain)
    assert 1e-4 < error(made, plain) < 0.1


@pytest.mark.parametrize("widgets", [{"cfg": 1.0}, {"denoise": 0.5}, {"cfg": 0.0}, {"sampler_name": "uni_pc"}])
def test_ksampler_takes_its_usual_settings(run: Run, scene: Scene, widgets: dict[str, Any]) -> None:
    check_finite(sampled(run, scene, **widgets), scene.latent)


def test_ksampler_takes_a_batch(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    two = condition(run, (scene.positive, scene.negative), scene.vae, batch_size=2)[2]
    made = sampled(run, scene, latent_image=two)
    check_finite(made, two)
    assert error({"samples": streams(made)[0][:1]}, {"samples": streams(plain)[0]}) > 0.1  # noise is drawn for both


def test_ksampler_equals_our_sampler(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    common = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    widgets = {"seed": 7, "steps": STEPS, "cfg": CFG, "scheduler": "simple"}
    assert equal(run("MOVASampler", model=scene.model, **common, **widgets)[0], plain)


# --- on the CONDITIONING ---------------------------------------------------------------------------------------------


def test_a_prompt_can_change_over_time(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    first = run("ConditioningSetTimestepRange", conditioning=scene.positive, start=0.0, end=0.5)[0]
    then = run("ConditioningSetTimestepRange", conditioning=scene.negative, start=0.5, end=1.0)[0]
    both = run("ConditioningCombine", conditioning_1=first, conditioning_2=then)[0]
    made = sampled(run, scene, positive=both)
    check_finite(made, plain)
    assert not equal(made, plain)


def test_a_zeroed_negative_works(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    made = sampled(run, scene, negative=run("ConditioningZeroOut", conditioning=scene.negative)[0])
    check_finite(made, plain)
    assert not equal(made, plain)


def test_prompts_of_unequal_length_are_padded_alike(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    """A stock encoder may give fewer rows than 512: the missing ones are zeros, as in training."""

    def cut(conditioning: Any, rows: int) -> Any:
        assert not conditioning[0][0][:, rows:].any()
        return [[conditioning[0][0][:, :rows], conditioning[0][1]]]

    made = sampled(run, scene, positive=cut(scene.positive, 90), negative=cut(scene.negative, 45))
    assert equal(made, plain)


# --- on the LATENT ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node_id", "inputs", "factor"),
    [
        ("LatentMultiply", {"multiplier": 2.0}, 2.0),
        ("LatentAdd", {"samples2": ...}, 2.0),
        ("LatentBlend", {"samples2": ..., "blend_factor": 0.25}, 1.0),
    ],
)
def test_a_latent_node_works_on_both_streams(
    run: Run, plain: dict[str, Any], node_id: str, inputs: dict[str, Any], factor: float
) -> None:
    given = {name: plain if value is ... else value for name, value in inputs.items()}
    first = "samples1" if "samples2" in inputs else "samples"
    made = run(node_id, **{first: plain}, **given)[0]
    for ours, stream in zip(streams(made), streams(plain), strict=True):
        torch.testing.assert_close(ours, factor * stream)


def test_trim_video_latent_runs(run: Run, plain: dict[str, Any]) -> None:
    assert torch.isfinite(streams(run("TrimVideoLatent", samples=plain, trim_amount=1)[0])[0]).all()


def test_separating_and_joining_changes_nothing(run: Run, plain: dict[str, Any]) -> None:
    video, audio = run("LTXVSeparateAVLatent", av_latent=plain)
    joined = run("LTXVConcatAVLatent", video_latent=video, audio_latent=audio)[0]
    assert equal(joined, plain)


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        ("LatentUpscaleBy", {"upscale_method": "bilinear", "scale_by": 1.0}),
        ("RepeatLatentBatch", {"amount": 1}),
        ("LatentFromBatch", {"batch_index": 0, "length": 1}),
        ("SaveLatent", {}),
    ],
)
def test_a_latent_node_works_between_separating_and_joining(
    run: Run, scene: Scene, plain: dict[str, Any], node_id: str, inputs: dict[str, Any]
) -> None:
    video, audio = run("LTXVSeparateAVLatent", av_latent=plain)
    changed = run(node_id, samples=video, **inputs)
    joined = run("LTXVConcatAVLatent", video_latent=changed[0] if changed else video, audio_latent=audio)[0]
    check_finite(sampled(run, scene, latent_image=joined, denoise=0.5), plain)


def test_a_mask_on_the_video_keeps_the_picture_and_makes_new_sound(
    run: Run, scene: Scene, plain: dict[str, Any]
) -> None:
    video, audio = run("LTXVSeparateAVLatent", av_latent=plain)
    masked = run("SetLatentNoiseMask", samples=video, mask=torch.zeros(1, 6, 10))[0]
    joined = run("LTXVConcatAVLatent", video_latent=masked, audio_latent=audio)[0]
    made = sampled(run, scene, latent_image=joined, seed=8)
    assert torch.allclose(streams(made)[0], streams(plain)[0], atol=1e-5)
    assert error({"samples": streams(made)[1]}, {"samples": streams(plain)[1]}) > 0.1


def test_differential_diffusion_follows_a_grey_mask(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    model = run("DifferentialDiffusion", model=scene.model)[0]
    video, audio = run("LTXVSeparateAVLatent", av_latent=plain)
    ramp = torch.linspace(0, 1, 10).expand(1, 6, 10)
    masked = run("SetLatentNoiseMask", samples=video, mask=ramp)[0]
    made = sampled(
        run, scene, model, latent_image=run("LTXVConcatAVLatent", video_latent=masked, audio_latent=audio)[0]
    )
    check_finite(made, plain)
    assert not equal(made, plain)


@pytest.mark.parametrize("node_id", ["WanImageToVideo", "WanFirstLastFrameToVideo", "EmptyHunyuanLatentVideo"])
def test_a_stock_video_latent_gets_its_sound_from_the_model(run: Run, scene: Scene, node_id: str) -> None:
    size = {"width": 80, "height": 48, "length": 9, "batch_size": 1}
    text = {"positive": scene.positive, "negative": scene.negative}
    if node_id.startswith("Empty"):
        latent = run(node_id, **size)[0]
    else:
        images = {"start_image": torch.rand(1, 48, 80, 3)}
        if "Last" in node_id:
            images["end_image"] = torch.rand(1, 48, 80, 3)
        text["positive"], text["negative"], latent = run(node_id, vae=scene.vae, **text, **size, **images)
    check_finite(sampled(run, scene, latent_image=latent, **text), scene.latent)


FAIL_IN_CORE: dict[str, Callable[[Run, Any], Any]] = {
    "LatentUpscale": lambda run, a: run("LatentUpscale", samples=a, width=64, height=64),
    "LatentUpscaleBy": lambda run, a: run("LatentUpscaleBy", samples=a, scale_by=2.0),
    "RepeatLatentBatch": lambda run, a: run("RepeatLatentBatch", samples=a, amount=2),
    "LatentFromBatch": lambda run, a: run("LatentFromBatch", samples=a, batch_index=0, length=1),
    "LatentCut": lambda run, a: run("LatentCut", samples=a, dim="t", index=0, amount=1),
    "LatentRotate": lambda run, a: run("LatentRotate", samples=a, rotation="90 degrees"),
    "LatentFlip": lambda run, a: run("LatentFlip", samples=a, flip_method="x-axis: vertically"),
    "SaveLatent": lambda run, a: run("SaveLatent", samples=a),
    "LatentBatch": lambda run, a: run("LatentBatch", samples1=a, samples2=a),
    "LatentInterpolate": lambda run, a: run("LatentInterpolate", samples1=a, samples2=a, ratio=0.5),
}


@pytest.mark.parametrize("node_id", FAIL_IN_CORE)
def test_core_refuses_a_joint_latent_here(run: Run, plain: dict[str, Any], node_id: str) -> None:
    """Separate the streams first. When one of these passes, core has mended it: move it to the working table."""
    with pytest.raises((AttributeError, TypeError, RuntimeError, IndexError, ValueError)) as refusal:
        FAIL_IN_CORE[node_id](run, plain)
    assert explained(refusal.value)


def test_core_refuses_freeu_and_an_upscaling_sampler(run: Run, scene: Scene) -> None:
    with pytest.raises(KeyError) as refusal:
        run("FreeU_V2", model=scene.model)
    assert explained(refusal.value)
    upscaling = run("SamplerLCMUpscale")[0]
    guider = run("BasicGuider", model=scene.model, conditioning=scene.positive)[0]
    noise = run("RandomNoise", noise_seed=1)[0]
    with pytest.raises(ValueError, match="unpack") as refusal:
        run(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=upscaling,
            sigmas=simple(run, scene),
            latent_image=scene.latent,
        )
    assert explained(refusal.value)


def explained(error: Exception) -> bool:
    """Whether docs/troubleshooting.md quotes the message of a stock node."""
    page = (PACK / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = page.partition("## Messages of ComfyUI's own nodes")[2].partition("\n## ")[0].splitlines()[4:]
    quoted = [row.split("|")[1].strip() for row in rows if row.startswith("| ")]
    return any(text in str(error) for text in quoted)


def test_core_refuses_to_add_noise_to_a_joint_latent(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    sigmas = run("BasicScheduler", model=scene.model, scheduler="simple", steps=4)[0]
    noise = run("RandomNoise", noise_seed=1)[0]
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        run("AddNoise", model=scene.model, noise=noise, sigmas=sigmas, latent_image=plain)


# --- whole graphs ----------------------------------------------------------------------------------------------------


def simple(run: Run, scene: Scene) -> Any:
    return run("BasicScheduler", model=scene.model, scheduler="simple", steps=STEPS)[0]


def test_custom_sampling_with_a_cfg_guider_equals_ksampler(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    text = {"positive": scene.positive, "negative": scene.negative}
    guider = run("CFGGuider", model=scene.model, cfg=CFG, **text)[0]
    assert equal(custom(run, scene, guider, simple(run, scene)), plain)


def test_a_basic_guider_equals_cfg_1(run: Run, scene: Scene) -> None:
    guider = run("BasicGuider", model=scene.model, conditioning=scene.positive)[0]
    assert equal(custom(run, scene, guider, simple(run, scene)), sampled(run, scene, cfg=1.0))


def test_two_equal_models_guide_as_one(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    text = {"positive": scene.positive, "negative": scene.negative}
    guider = run("DualModelGuider", model=scene.model, model_negative=scene.model, cfg=CFG, **text)[0]
    assert error(custom(run, scene, guider, simple(run, scene)), plain) < 1e-5


def test_one_scale_for_both_modalities_equals_ksampler(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    text = {"positive": scene.positive, "negative": scene.negative}
    guider = run("LTXVDualCFGGuider", model=scene.model, video_cfg=CFG, audio_cfg=CFG, **text)[0]
    assert error(custom(run, scene, guider, simple(run, scene)), plain) < 1e-5
    louder = run("LTXVDualCFGGuider", model=scene.model, video_cfg=CFG, audio_cfg=6.0, **text)[0]
    assert not equal(custom(run, scene, louder, simple(run, scene)), plain)


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        ("DualCFGGuider", {"cond1": "positive", "cond2": "negative", "negative": "negative", "style": "regular"}),
        ("PerpNegGuider", {"positive": "positive", "negative": "negative", "empty_conditioning": "negative"}),
    ],
)
def test_a_guider_of_three_prompts_works(run: Run, scene: Scene, node_id: str, inputs: dict[str, str]) -> None:
    given = {name: getattr(scene, value, value) for name, value in inputs.items()}
    guider = run(node_id, model=scene.model, **given)[0]
    check_finite(custom(run, scene, guider, simple(run, scene)), scene.latent)


def test_two_passes_of_split_sigmas_equal_one(run: Run, scene: Scene, plain: dict[str, Any]) -> None:
    text = {"positive": scene.positive, "negative": scene.negative}
    guider = run("CFGGuider", model=scene.model, cfg=CFG, **text)[0]
    first, rest = run("SplitSigmas", sigmas=simple(run, scene), step=2)
    half = custom(run, scene, guider, first)
    still = run("DisableNoise")[0]
    assert error(custom(run, scene, guider, rest, latent_image=half, noise=still), plain) < 1e-5


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        ("ContextWindowsManual", {"context_length": 5, "context_overlap": 2, "dim": 2, "fuse_method": "pyramid"}),
        ("WanContextWindowsManual", {"context_length": 17, "context_overlap": 8}),
        ("LTXVContextWindows", {"context_length": 33, "context_overlap": 8}),
    ],
)
def test_context_windows_cover_a_longer_clip(run: Run, scene: Scene, node_id: str, inputs: dict[str, Any]) -> None:
    long = condition(run, (scene.positive, scene.negative), scene.vae, frames=41)
    text = {"positive": long[0], "negative": long[1], "latent_image": long[2]}
    model = run(node_id, model=scene.model, **inputs)[0]
    made = sampled(run, scene, model, steps=2, cfg=1.0, **text)
    check_finite(made, long[2])
    assert not equal(made, sampled(run, scene, steps=2, cfg=1.0, **text))


@pytest.fixture(scope="module")
def lora(comfy_base: Path, scene: Scene) -> str:
    """On a layer of each expert and on one they share."""
    with torch.inference_mode():
        return write_lora(comfy_base, "stock", {f"diffusion_model.{key}": shape(scene, key) for key in (Q, SHARED)})


def test_a_bypass_lora_is_near_the_patched_one(run: Run, scene: Scene, plain: dict[str, Any], lora: str) -> None:
    made = sampled(run, scene, run("LoraLoaderBypassModelOnly", model=scene.model, lora_name=lora)[0])
    patched = sampled(run, scene, run("LoraLoaderModelOnly", model=scene.model, lora_name=lora)[0])
    assert error(made, patched) < 1e-4
    assert error(made, plain) > 1e-3
    assert equal(sampled(run, scene), plain)


def test_lora_hooks_on_the_conditioning_reach_both_experts(
    run: Run, scene: Scene, plain: dict[str, Any], lora: str
) -> None:
    hooks = run("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0)[0]
    text = {
        name: run("ConditioningSetProperties", cond_NEW=cond, strength=1.0, set_cond_area="default", hooks=hooks)[0]
        for name, cond in (("positive", scene.positive), ("negative", scene.negative))
    }
    made = sampled(run, scene, **text)
    patched = sampled(run, scene, run("LoraLoaderModelOnly", model=scene.model, lora_name=lora)[0])
    assert error(made, patched) < 1e-5
    assert equal(sampled(run, scene), plain)


def test_model_save_writes_the_patched_weights(run: Run, scene: Scene, comfy_base: Path, lora: str) -> None:
    import comfy.model_management
    from safetensors.torch import load_file

    comfy.model_management.unload_all_models()  # also takes the patches of the last run off
    base = {key: weight.clone() for key, weight in scene.model.model.diffusion_model.state_dict().items()}
    run("ModelSave", model=run("LoraLoaderModelOnly", model=scene.model, lora_name=lora)[0], filename_prefix="saved")
    saved = load_file(next((comfy_base / "output").glob("saved*.safetensors")))
    assert saved.keys() == {f"model.diffusion_model.{key}" for key in base}
    changed = {key for key, weight in base.items() if not torch.equal(saved[f"model.diffusion_model.{key}"], weight)}
    assert changed == {f"{Q}.weight", f"{SHARED}.weight"}


def test_easycache_skips_steps_of_either_expert(run: Run, scene: Scene) -> None:
    model = run("EasyCache", model=scene.model, reuse_threshold=9.0, start_percent=0.0, end_percent=1.0)[0]
    computed: list[str] = []
    handles = [
        m.model.diffusion_model.blocks[0].register_forward_pre_hook(lambda *_, name=name: computed.append(name))
        for name, m in (("high", model), ("low", model.low))
    ]
    check_finite(sampled(run, scene, model, steps=10, cfg=1.0), scene.latent)
    for handle in handles:
        handle.remove()
    assert 0 < computed.count("high") < 4
    assert 0 < computed.count("low") < 6


def test_a_compiled_model_keeps_its_experts_apart(
    run: Run, scene: Scene, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that leaves modules as they are: the real one takes minutes."""
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(model) or model)
    model = run("TorchCompileModel", model=scene.model, backend="inductor")[0]
    assert equal(sampled(run, scene, model), plain)
    assert compiled == [scene.model.model.diffusion_model, scene.model.low.model.diffusion_model]
    assert equal(sampled(run, scene, model), plain)
    assert len(compiled) == 2


def test_a_clip_becomes_a_file_with_sound(run: Run, scene: Scene, plain: dict[str, Any], comfy_base: Path) -> None:
    import av

    images, audio, fps = run("MOVADecode", latent=plain, vae=scene.vae, audio_vae=scene.audio_vae)[:3]
    video = run("CreateVideo", images=images, fps=fps, audio=audio)[0]
    run("SaveVideo", video=video, filename_prefix="clip", format={"format": "mp4"}, codec={"codec": "h264"})
    with av.open(next((comfy_base / "output").glob("clip*.mp4"))) as file:
        assert file.streams.video[0].frames == 9
        assert file.streams.audio[0].sample_rate == 48000
