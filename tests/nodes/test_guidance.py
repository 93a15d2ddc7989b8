"""'MOVA Guider' walks equation 6 with no more evaluations than it needs, and lets stock guidance nodes work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.ops import Runtime
from mova_core.sampling.guidance import Guidance, dual_guidance, rescale_guidance
from mova_core.sampling.sampler import denoise, initial_noise
from mova_core.sampling.schedule import Span, expert_for, sigmas
from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes.graph import FPS, Run, Scene, check_finite, equal, error, streams

pytestmark = needs_comfy

STEPS, SEED = 4, 11


@dataclass(frozen=True, kw_only=True)
class Case:
    text: float = 5.0
    audio: float = 0.0
    bridge: float = 3.5
    start: float = 0.0
    end: float = 1.0
    rescale: float = 0.0
    audio_shift: float = 5.0


def guided(pack: Pack, run: Run, scene: Scene, case: Case, node: str = "MOVAGuider") -> dict[str, Any]:
    """The LATENT of SamplerCustomAdvanced with our guider, or with the stock one."""
    model = scene.model
    if case.audio_shift != 5.0:
        model = shifted(pack, scene, case.audio_shift)
    scales = {"text_cfg": case.text, "audio_text_cfg": case.audio, "bridge_cfg": case.bridge, "rescale": case.rescale}
    widgets = scales | {"bridge_start": case.start, "bridge_end": case.end}
    widgets = widgets if node == "MOVAGuider" else {"cfg": case.text}
    guider = run(node, model=model, positive=scene.positive, negative=scene.negative, **widgets)[0]
    noise, sampler = run("RandomNoise", noise_seed=SEED)[0], run("KSamplerSelect", sampler_name="euler")[0]
    walk = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas(STEPS)}
    return run("SamplerCustomAdvanced", **walk, latent_image=scene.latent)[0]


def shifted(pack: Pack, scene: Scene, audio_shift: float) -> Any:
    """A MODEL whose audio has a schedule of its own, as 'MOVA Sampler' makes it."""
    return pack.module("nodes.host.sampling.samplers").with_shifts(scene.model, 5.0, audio_shift)


def reference(scene: Scene, folder: Path, case: Case) -> list[Tensor]:
    """The core's loop and equation 6 in full: always three evaluations."""
    models = {expert: load_joint(folder, expert) for expert in ("high", "low")}
    noise = initial_noise(*(s.shape for s in streams(scene.latent)), torch.Generator().manual_seed(SEED))
    values = scene.positive[0][1]
    known = scene.model.model.latent_format.process_in(values["concat_latent_image"])
    given = {"condition": torch.cat((1 - values["concat_mask"], known), dim=1), "fps": FPS}
    span = Span(case.start, case.end)

    def guided(video: Tensor, audio: Tensor, when: Tensor, audio_when: Tensor, positive: bool) -> Any:
        sigma = float(when[0]) / 1000
        model = models[expert_for(sigma)]

        def velocities(text: Any, strength: float) -> Any:
            bridge = Runtime(audio_to_video=strength, video_to_audio=strength)
            return model(video, audio, text[0][0], when, audio_when, **given, runtime=bridge)

        plain, bridged = (velocities(scene.negative, strength) for strength in (0.0, 1.0))
        full = velocities(scene.positive, 1.0)
        scale = case.bridge if span.covers(sigma, 5.0) else 1.0
        made = dual_guidance(plain, bridged, full, scale, case.text, case.audio or None)
        return rescale_guidance(made, full, case.rescale)

    schedules = {"sigmas": sigmas(STEPS), "audio_sigmas": sigmas(STEPS, case.audio_shift)}
    video, audio = denoise(guided, *noise, **schedules, guidance=Guidance(text_scale=1.0))
    return [scene.model.model.latent_format.process_out(video), audio]


CASES = [
    Case(),
    Case(audio=2.0, start=0.25, end=0.75, audio_shift=9.0),
    Case(text=4.0, bridge=4.0),
    Case(text=1.0),
    Case(text=1.0, audio=1.0, bridge=1.0, rescale=1.0),
    Case(bridge=1.0, audio=3.0, rescale=0.7, audio_shift=9.0),
    Case(text=5.0, bridge=0.0, rescale=0.6, audio_shift=2.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_guider_walks_equation_6(pack: Pack, run: Run, scene: Scene, diffusers: Path, case: Case) -> None:
    made = guided(pack, run, scene, case)
    check_finite(made, scene.latent)
    wanted = reference(scene, diffusers / "tiny", case)
    assert max(relative_error(a, b) for a, b in zip(streams(made), wanted)) < 1e-5


@pytest.fixture
def evaluations(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """(conditions evaluated, whether the towers hear each other) of every forward."""
    module, seen = pack.module("nodes.host.model.diffusion"), []
    real = module.runtime

    def logged(options: Any, context: Tensor, *rest: Any) -> Any:
        made = real(options, context, *rest)
        assert (made.audio_to_video, made.video_to_audio) in ((0, 0), (1, 1))
        seen.append((len(context), made.audio_to_video == 1))
        return made

    monkeypatch.setattr(module, "runtime", logged)
    return seen


@pytest.mark.parametrize(
    ("case", "joined", "apart"),
    [
        (Case(text=1, bridge=1), 1, 0),
        (Case(text=1, bridge=1, rescale=1), 1, 0),
        (Case(bridge=1), 2, 0),
        (Case(text=1, audio=3, bridge=1), 1, 0),
        (Case(text=4, bridge=4), 1, 1),
        (Case(text=4, audio=5, bridge=4), 2, 1),
        (Case(), 2, 1),
        (Case(text=1), 2, 1),
    ],
    ids=str,
)
def test_no_step_takes_an_evaluation_it_does_not_need(
    pack: Pack, run: Run, scene: Scene, evaluations: list[tuple[int, bool]], case: Case, joined: int, apart: int
) -> None:
    guided(pack, run, scene, case)
    assert sum(count for count, bridge in evaluations if bridge) == STEPS * joined
    assert sum(count for count, bridge in evaluations if not bridge) == STEPS * apart


def test_outside_its_range_the_bridge_costs_nothing(
    pack: Pack, run: Run, scene: Scene, evaluations: list[tuple[int, bool]]
) -> None:
    guided(pack, run, scene, Case(start=0.25, end=0.75))
    assert sum(count for count, bridge in evaluations if not bridge) == 2
    assert [bridge for _, bridge in evaluations][:2] == [True, True]  # not in the first step


def test_text_guidance_alone_is_comfyuis_own_bit_for_bit(pack: Pack, run: Run, scene: Scene) -> None:
    for text in (5.0, 1.0):
        case = Case(text=text, bridge=1.0)
        assert equal(guided(pack, run, scene, case), guided(pack, run, scene, case, "CFGGuider"))


def test_mova_sampler_reaches_the_same_guidance(pack: Pack, run: Run, scene: Scene) -> None:
    given = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    made = run("MOVASampler", **given, seed=SEED, steps=STEPS, cfg=5.0, bridge_cfg=3.5, audio_cfg=2.0)[0]
    assert equal(made, guided(pack, run, scene, Case(audio=2.0)))
    plain = run("MOVASampler", **given, seed=SEED, steps=STEPS, cfg=5.0)[0]
    assert equal(plain, guided(pack, run, scene, Case(bridge=1.0), "CFGGuider"))


def with_options(scene: Scene, **functions: Any) -> Scene:
    """The scene under functions of `ModelPatcher.set_model_<name>`."""
    model = scene.model.clone()
    for name, function in functions.items():
        getattr(model, f"set_model_{name}")(function)
    return scene.but(model=model)


def test_a_formula_of_another_node_shapes_the_text_term_of_each_stream(pack: Pack, run: Run, scene: Scene) -> None:
    def doubled(args: Any) -> Tensor:
        return args["uncond"] + 2 * args["cond_scale"] * (args["cond"] - args["uncond"])

    ours = guided(pack, run, with_options(scene, sampler_cfg_function=doubled), Case(text=2.5, audio=1.5))
    assert error(ours, guided(pack, run, scene, Case(text=5.0, audio=3.0))) < 1e-5


def test_functions_around_guidance_run_once_a_step_and_see_its_result(pack: Pack, run: Run, scene: Scene) -> None:
    seen: list[str] = []

    def before(args: Any) -> Any:
        seen.append("before")
        assert len(args["conds_out"]) == 2
        return args["conds_out"]

    def after(args: Any) -> Tensor:
        seen.append("after")
        assert args["cond_scale"] == 5.0
        return args["denoised"]

    patched = with_options(scene, sampler_pre_cfg_function=before, sampler_post_cfg_function=after)
    assert equal(guided(pack, run, patched, Case(audio=2.0)), guided(pack, run, scene, Case(audio=2.0)))
    assert seen == ["before", "after"] * STEPS


STOCK = {
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.2},
    "CFGZeroStar": {},
    "RescaleCFG": {},
    "TCFG": {},
    "LTXVModalityGuidance": {"modality_scale": 2.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "1", "single_layers": ""},
    "EasyCache": {"reuse_threshold": 0.2, "start_percent": 0.1, "end_percent": 0.95, "verbose": False},
}


@pytest.mark.parametrize("node", STOCK)
def test_stock_guidance_nodes_combine_with_it(pack: Pack, run: Run, scene: Scene, node: str) -> None:
    patched = scene.but(model=run(node, model=scene.model, **STOCK[node])[0])
    made = guided(pack, run, patched, Case())
    check_finite(made, scene.latent)
    if node != "EasyCache":  # which may find nothing to save in four steps
        assert not equal(made, guided(pack, run, scene, Case()))


def test_prompts_and_context_windows_are_combined_in_every_evaluation(
    pack: Pack, run: Run, scene: Scene, evaluations: list[tuple[int, bool]]
) -> None:
    both = run("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=scene.positive)[0]
    doubled = guided(pack, run, scene.but(positive=both), Case())
    assert sum(count for count, _ in evaluations) == STEPS * 4
    assert error(doubled, guided(pack, run, scene, Case())) < 1e-5

    evaluations.clear()
    windows = run("ContextWindowsManual", model=scene.model, context_length=2, context_overlap=1, dim=2)[0]
    check_finite(guided(pack, run, scene.but(model=windows), Case()), scene.latent)
    assert sum(count for count, bridge in evaluations if bridge) == STEPS * 2 * 2
    assert sum(count for count, bridge in evaluations if not bridge) == STEPS * 2


def test_evaluations_without_the_bridge_have_an_identity_of_their_own(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, seen = pack.module("nodes.host.model.diffusion"), {True: set(), False: set()}
    real = module.runtime

    def logged(options: Any, *rest: Any) -> Any:
        made = real(options, *rest)
        seen[made.audio_to_video == 1].update(options["uuids"])
        return made

    monkeypatch.setattr(module, "runtime", logged)
    guided(pack, run, scene, Case())
    assert (len(seen[True]), len(seen[False])) == (2, 1)  # the same in every step, else caches would never hit
    assert not seen[True] & seen[False]


@pytest.mark.parametrize("wrong", [{"bridge_start": 0.8, "bridge_end": 0.2}, {"rescale": 2.0}])
def test_what_cannot_be_is_refused(run: Run, scene: Scene, pack: Pack, wrong: dict[str, float]) -> None:
    with pytest.raises(pack.module("mova_core.errors").MovaError):
        run("MOVAGuider", model=scene.model, positive=scene.positive, negative=scene.negative, **wrong)
