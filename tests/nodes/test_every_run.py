"""What holds of every run, with whatever sampler: what is kept stays, NaN ends it by name, experts know their side."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, equal, ksampled, streams

pytestmark = needs_comfy


@pytest.fixture(scope="module")
def masked(run: Run, scene: Scene, pack: Pack) -> dict[str, Any]:
    """A LATENT of noise whose sound is held whole, and of whose picture the left half."""
    make = torch.Generator().manual_seed(5)
    joint = pack.module("nodes.host.joint_latents").joint
    video, audio = (torch.randn(s.shape, generator=make) for s in streams(scene.latent))
    mask = torch.ones_like(video[:, :1])
    mask[..., : mask.shape[-1] // 2] = 0.0
    return {**scene.latent, "samples": joint(video, audio), "noise_mask": joint(mask, torch.zeros_like(audio[:, :1]))}


def test_what_the_mask_keeps_stays_with_every_sampler(run: Run, scene: Scene, masked: dict[str, Any]) -> None:
    import comfy.samplers

    video, audio = streams(masked)
    half, moved = video.shape[-1] // 2, {}
    for name in comfy.samplers.KSampler.SAMPLERS:
        made = streams(ksampled(run, scene, latent_image=masked, sampler_name=name, steps=2, scheduler="normal"))
        kept = (made[1] - audio), (made[0] - video)[..., :half]
        moved[name] = max(float(part.abs().max()) for part in kept)
        assert (made[0] - video)[..., half:].std() > 0.1, name
    assert {name: change for name, change in moved.items() if change > 1e-6} == {}
    assert len(moved) > 30


def rewriting(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, **_: Any) -> Tensor:
    """A sampler of another pack: it knows no mask, and writes into what it is given."""
    for sigma, after in pairwise(sigmas):
        given = {**extra_args, "denoise_mask": None}
        denoised = model(x, sigma.expand(len(x)), **given)
        x = denoised + after * (x - denoised) / sigma
        model.latent_image.add_(1.0)
        model.noise.mul_(0.5)
    return x + 0.3


def test_held_sound_stays_with_a_sampler_of_another_pack(
    run: Run, scene: Scene, masked: dict[str, Any], pack: Pack
) -> None:
    import comfy.samplers

    given = {"noise": run("RandomNoise", noise_seed=1)[0], "sigmas": run("BasicScheduler", model=scene.model)[0][-4:]}
    guider = run("CFGGuider", model=scene.model, positive=scene.positive, negative=scene.negative, cfg=1.0)[0]
    video, audio = (stream.clone() for stream in streams(masked))
    sampler = comfy.samplers.KSAMPLER(rewriting)
    made = streams(run("SamplerCustomAdvanced", guider=guider, sampler=sampler, latent_image=masked, **given)[0])
    half = video.shape[-1] // 2
    assert torch.allclose(made[1], audio, atol=1e-6, rtol=0)
    assert torch.allclose(made[0][..., :half], video[..., :half], atol=1e-6, rtol=0)
    assert (made[0] - video)[..., half:].std() > 0.1
    assert all(map(torch.equal, streams(masked), (video, audio)))
    other = comfy.samplers.KSAMPLER(lambda model, x, sigmas, **_: x[..., :7])
    with pytest.raises(pack.module("mova_core.errors").PatchError, match=r"this sampler made \(1, 1, 7\)"):
        run("SamplerCustomAdvanced", guider=guider, sampler=other, latent_image=masked, **given)


def test_held_sound_stays_through_two_samplers(run: Run, scene: Scene, masked: dict[str, Any]) -> None:
    common = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "steps": 4, "cfg": 1.0}
    common |= {"noise_seed": 7, "sampler_name": "euler", "scheduler": "simple"}
    first = {"start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    half = run("KSamplerAdvanced", latent_image=masked, **common, **first)[0]
    assert torch.allclose(streams(half)[1], streams(masked)[1], atol=1e-6, rtol=0)
    rest = {"start_at_step": 2, "end_at_step": 10000, "add_noise": "disable"}
    whole = run("KSamplerAdvanced", latent_image=half, **common, **rest)[0]
    assert torch.allclose(streams(whole)[1], streams(masked)[1], atol=1e-6, rtol=0)


# --- what has no effect

IDLE: dict[str, tuple[Any, str]] = {
    "attention of a U-Net": (lambda m: m.set_model_attn1_patch(lambda q, k, v, extra: (q, k, v)), "'attn1_patch'"),
    "attention to text": (lambda m: m.set_model_attn2_patch(lambda state: state["x"]), "'attn2_patch'"),
    "a U-Net's blocks": (lambda m: m.set_model_input_block_patch(lambda h, extra: h), "'input_block_patch'"),
    "a U-Net's attention": (lambda m: m.set_model_attn1_replace(lambda q, k, v, e: q, "input", 1), "'attn1 input 1'"),
    "blocks of one stream": (
        lambda m: m.set_model_patch_replace(lambda args, extra: args, "dit", "single_block", 0),
        "'dit single_block 0'",
    ),
    "a block too far": (
        lambda m: m.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 40),
        "'dit double_block 40'",
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_patch_that_mova_never_asks_for_is_told_of(
    run: Run, scene: Scene, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    put, place = IDLE[case]
    model = scene.model.clone()
    put(model)
    with caplog.at_level(logging.WARNING, "mova"):
        made = ksampled(run, scene, model, steps=1)
    assert equal(made, ksampled(run, scene, steps=1))
    (told,) = [r.getMessage() for r in caplog.records if r.name == "mova" and "No effect" in r.getMessage()]
    assert place in told
    assert "test_every_run" in told


def test_guidance_by_a_perturbed_unet_is_told_of_once_a_run(
    run: Run, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    model = run("PerturbedAttentionGuidance", model=scene.model, scale=3.0)[0]
    with caplog.at_level(logging.WARNING, "mova"):
        made = ksampled(run, scene, model, steps=3)
    told = [r.getMessage() for r in caplog.records if r.name == "mova"]
    assert len(told) == 1
    assert "at the cost of an evaluation each time: " in told[0]
    assert "perturbed_attention" in told[0]
    assert "nodes_pag at 'attn1 middle 0'" in told[0]
    assert equal(made, ksampled(run, scene, steps=3))


def test_conditions_of_other_models_are_told_of_and_mova_s_own_are_not(
    run: Run, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    import node_helpers

    other = node_helpers.conditioning_set_values(
        scene.positive, {"vace_frames": [torch.zeros(1)], "reference_latents": None, "clip_vision_output": object()}
    )
    with caplog.at_level(logging.WARNING, "mova"):
        ksampled(run, scene, steps=1)
        assert "No effect" not in caplog.text
        ksampled(run, scene, positive=other, steps=1)
    assert "VACE's control video ('vace_frames') on the CONDITIONING" in caplog.text
    assert "'clip_vision_output'" in caplog.text
    assert "reference_latents" not in caplog.text


# --- what a run is given

OTHER_SCHEDULES: dict[str, dict[str, Any]] = {
    "ModelSamplingDiscrete": {"sampling": "eps", "zsnr": False},
    "ModelSamplingContinuousEDM": {},
    "ModelSamplingContinuousV": {},
    "ModelSamplingStableCascade": {},
    "ModelSamplingAuraFlow": {},
    "ModelSamplingFlux": {},
    "ModelSamplingLTXV": {},
}


@pytest.mark.parametrize("node_id", OTHER_SCHEDULES)
def test_the_noise_schedule_of_another_model_is_refused(run: Run, scene: Scene, pack: Pack, node_id: str) -> None:
    """Those of flows count timesteps to 1: the model would take every step for its last."""
    other = run(node_id, model=scene.model, **OTHER_SCHEDULES[node_id])[0]
    with pytest.raises(pack.module("mova_core.errors").PatchError, match=r"ModelSampling.*'ModelSamplingSD3'"):
        ksampled(run, scene, other)


def custom(run: Run, scene: Scene, sigmas: Tensor, sampler: str = "euler") -> Any:
    guider = run("CFGGuider", model=scene.model, positive=scene.positive, negative=scene.negative, cfg=1.0)[0]
    given = {"noise": run("RandomNoise", noise_seed=1)[0], "sampler": run("KSamplerSelect", sampler_name=sampler)[0]}
    return run("SamplerCustomAdvanced", guider=guider, sigmas=sigmas, latent_image=scene.latent, **given)[0]


@pytest.mark.parametrize(
    "sigmas",
    [
        [14.6, 5.0, 0.0],
        [1.0, -0.5, 0.0],
        [1.0, float("nan"), 0.0],
        [float("inf"), 0.0],
        [[1.0, 0.0]],
        [0.1, 0.5, 1.0],
        [1.0],
    ],
)
def test_sigmas_that_are_no_way_from_noise_to_a_clip_are_refused(
    run: Run, scene: Scene, pack: Pack, sigmas: list[Any]
) -> None:
    with pytest.raises(pack.module("mova_core.errors").MovaError, match=r"sigmas? of this run"):
        custom(run, scene, torch.tensor(sigmas))


@pytest.mark.parametrize("node_id", ["KarrasScheduler", "ExponentialScheduler", "AlignYourStepsScheduler"])
def test_a_stock_scheduler_of_other_models_is_refused(run: Run, scene: Scene, pack: Pack, node_id: str) -> None:
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="BasicScheduler"):
        custom(run, scene, run(node_id)[0])


@pytest.mark.parametrize("sigmas", [[1.0, 0.5, 0.0], [0.7, 0.2], [0.3, 0.6, 0.0]])
def test_sigmas_within_a_flow_are_taken(run: Run, scene: Scene, sigmas: list[float]) -> None:
    assert all(torch.isfinite(part).all() for part in streams(custom(run, scene, torch.tensor(sigmas))))


@pytest.mark.parametrize("node_id", ["VideoLinearCFGGuidance", "VideoTriangleCFGGuidance"])
def test_guidance_that_makes_another_shape_is_named(run: Run, scene: Scene, pack: Pack, node_id: str) -> None:
    other = run(node_id, model=scene.model)[0]
    with pytest.raises(pack.module("mova_core.errors").PatchError, match=r"_cfg.*nodes_video_model.*for another model"):
        ksampled(run, scene, other, cfg=3.0)


def test_a_patch_whose_sizes_do_not_fit_is_named(run: Run, scene: Scene, pack: Pack) -> None:
    def of_another_width(out: Tensor, extra_options: Any) -> Tensor:
        return out.view(1, 7, -1)

    other = scene.model.clone()
    other.set_model_attn1_output_patch(of_another_width)
    with pytest.raises(pack.module("mova_core.errors").PatchError, match=r"of_another_width.*does not fit MOVA"):
        ksampled(run, scene, other)


def test_a_prompt_of_nan_is_not_the_models_fault(run: Run, scene: Scene, pack: Pack) -> None:
    spoiled = [[scene.positive[0][0] * float("nan"), scene.positive[0][1]]]
    with pytest.raises(pack.module("mova_core.errors").ShapeError, match="the prompt in this conditioning"):
        ksampled(run, scene.but(positive=spoiled))


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (1, 2, 3, 6, 10), (3, 4, 3, 6, 10)])
def test_a_mask_of_first_frames_that_is_none_is_refused(
    run: Run, scene: Scene, pack: Pack, shape: tuple[int, ...]
) -> None:
    text, values = scene.positive[0]
    spoiled = [[text, {**values, "concat_mask": torch.zeros(shape)}]]
    with pytest.raises(pack.module("mova_core.errors").ShapeError, match="the mask of the first frames"):
        ksampled(run, scene.but(positive=spoiled))


# --- numbers


def giving(value: float, after: int = 0) -> Any:
    calls: list[int] = []

    def function(apply: Any, args: Any) -> Tensor:
        calls.append(1)
        out = apply(args["input"], args["timestep"], **args["c"])
        return out * value if len(calls) > after else out

    function.calls = calls  # type: ignore[attr-defined]
    return function


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("after", "expert"), [(0, "high"), (3, "low")])
@pytest.mark.parametrize("node", ["KSampler", "MOVASampler"])
def test_numbers_that_are_not_finite_end_the_run_at_once(
    run: Run, scene: Scene, pack: Pack, value: float, after: int, expert: str, node: str
) -> None:
    model, function = scene.model.clone(), giving(value, after)
    model.set_model_unet_function_wrapper(function)
    error = pack.module("mova_core.errors").NotFiniteError
    wanted = (
        rf"{expert}-noise expert gave NaN or infinite numbers at sigma 0\.\d+.*|{expert}-noise expert gave.*sigma 1,"
    )
    given = {"model": model, "positive": scene.positive, "negative": scene.negative, "seed": 1, "steps": 4, "cfg": 1.0}
    with pytest.raises(error, match=wanted) as raised:
        run(node, **given, **({"latent_image": scene.latent} if node == "KSampler" else {"latent": scene.latent}))
    assert "float32" in str(raised.value)
    assert "flags: " in str(raised.value)
    assert len(function.calls) == after + 1
    assert scene.model.active is None


def test_a_latent_of_nan_is_not_the_models_fault(run: Run, scene: Scene, pack: Pack) -> None:
    joint = pack.module("nodes.host.joint_latents").joint
    video, audio = streams(scene.latent)
    bad = {**scene.latent, "samples": joint(video + float("nan"), audio)}
    with pytest.raises(pack.module("mova_core.errors").NotFiniteError, match="what the model was given"):
        ksampled(run, scene, latent_image=bad)


# --- the wrong expert


@pytest.fixture(scope="module")
def split(run: Run, scene: Scene) -> tuple[Any, Any]:
    with torch.inference_mode():
        return run("MOVASplitExperts", model=scene.model)[:2]


@pytest.fixture
def shown(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: texts.append(text))
    return texts


def test_join_refuses_two_of_a_kind_and_swaps(run: Run, scene: Scene, split: tuple[Any, Any], pack: Pack) -> None:
    high, low = split
    error = pack.module("mova_core.errors").CheckpointError
    for one, other, said in (
        (low, high, "at high_noise is the low"),
        (high, high, "at low_noise is the high"),
        (low, low, "at high_noise is the low"),
        (scene.model, high, "at low_noise is the high"),
        (high, scene.model, "at low_noise holds both"),
    ):
        with pytest.raises(error, match=said):
            run("MOVAJoinExperts", high_noise=one, low_noise=other)
    nameless = high.clone()
    nameless.attachments = {}
    with pytest.raises(error, match="the same expert"):
        run("MOVAJoinExperts", high_noise=nameless, low_noise=nameless)
    assert run("MOVAJoinExperts", high_noise=nameless, low_noise=low)


def stage(run: Run, scene: Scene, model: Any, begin: int, end: int, latent: Any) -> Any:
    given = {"noise_seed": 7, "steps": 6, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    given |= {
        "start_at_step": begin,
        "end_at_step": end,
        "return_with_leftover_noise": "enable" if end < 6 else "disable",
    }
    given |= {"positive": scene.positive, "negative": scene.negative, "add_noise": "disable" if begin else "enable"}
    return run("KSamplerAdvanced", model=model, latent_image=latent, **given)[0]


@pytest.mark.parametrize(
    ("first", "change", "second", "said"),
    [
        (0, 3, 1, []),
        (1, 3, 0, ["the low-noise expert, and all steps", "the high-noise expert, and all steps"]),
        (0, 6, None, ["the high-noise expert, and 3 of 6 steps"]),
        (1, 6, None, ["the low-noise expert, and 3 of 6 steps"]),
    ],
)
def test_an_expert_on_the_other_side_of_the_boundary_is_told_of_once_a_run(
    run: Run,
    scene: Scene,
    split: tuple[Any, Any],
    shown: list[str],
    caplog: pytest.LogCaptureFixture,
    first: int,
    change: int,
    second: int | None,
    said: list[str],
) -> None:
    with caplog.at_level(logging.WARNING, "mova"):
        half = stage(run, scene, split[first], 0, change, scene.latent)
        if second is not None:
            stage(run, scene, split[second], change, 6, half)
    told = [record.getMessage() for record in caplog.records if record.name == "mova"]
    assert [wanted in message for wanted, message in zip(said, told, strict=True)] == [True] * len(said)
    assert shown == told


def test_a_model_of_both_is_told_of_nothing(
    run: Run, scene: Scene, shown: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mova"):
        made = ksampled(run, scene)
    assert shown == []
    assert equal(made, ksampled(run, scene))
    assert [record for record in caplog.records if record.name == "mova"] == []


def test_under_mova_sampler_it_stands_beside_the_pace(
    run: Run, scene: Scene, split: tuple[Any, Any], shown: list[str]
) -> None:
    given = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "seed": 1, "cfg": 1.0}
    run("MOVASampler", model=split[0], steps=3, **given)
    assert shown[-1].startswith("3 steps in ")
    assert "This is the high-noise expert" in shown[-1]
