"""The training step against the official trainer: its losses, gradients, optimizer steps (../shared/golden_train)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mova_core.checkpoint.load import load_joint
from mova_core.model.mova import Mova
from mova_core.ops import PLAIN, Runtime
from mova_core.sampling.schedule import Expert
from mova_core.training.adapters import Adapters
from mova_core.training.optim import AdamW, Rates
from mova_core.training.step import Step, training_step
from tests.golden import CHECKPOINT, TRAINED, larger, needs_trained, relative_error, tensors

EXPERTS: dict[str, Expert] = {
    "train_step_low": "low",
    "step_high": "high",
    "step_low": "low",
    "step_separate": "low",
}
LARGER_CASES = [larger(case, folder=TRAINED) for case in ("step_high", "step_low", "step_separate")]
CASES = ["train_step_low", *LARGER_CASES]  # the first is step_low with the gradients of the first layers
LOW_PATH = Runtime(recompute=True, ffn_rows=17, query_rows=23)


def trained(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file of the set, and its header."""
    if name == "train_step_low":
        return tensors(name)[0], {}
    with safe_open(TRAINED / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


@pytest.fixture(scope="module")
def models() -> dict[str, Mova]:
    return {expert: load_joint(CHECKPOINT, expert) for expert in ("high", "low")}


def run(model: Mova, adapters: Adapters, given: dict[str, Tensor], prefix: str = "", **more: Any) -> Step:
    names = ("latents", "noise", "timestep")
    inputs = {f"{s}_{n}": given[f"{prefix}in.{s}_{n}"] for s in ("video", "audio") for n in names}
    context = given[f"{prefix}in.context"].to(model.blocks[0].self_attn.q.weight.dtype)
    condition, fps = given[f"{prefix}in.condition"], float(given[f"{prefix}in.fps"])
    return training_step(model, adapters, **inputs, context=context, condition=condition, fps=fps, **more)


def gradients(adapters: Adapters) -> dict[str, Tensor]:
    return {name: p.grad for name, p in adapters.named_parameters() if p.grad is not None}


def joined(found: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([found[name].flatten() for name in names])


def attached(model: Mova, expert: Expert) -> Adapters:
    start, _ = tensors("lora")
    return Adapters.attach(model, start, 8.0, expert=expert)


@pytest.mark.parametrize(
    "runtime", [PLAIN, Runtime(ffn_rows=17, query_rows=23), LOW_PATH], ids=["whole", "rows", "low"]
)
@pytest.mark.parametrize("case", CASES)
def test_losses_velocities_and_every_gradient_are_the_official_ones(
    models: dict[str, Mova], case: str, runtime: Runtime
) -> None:
    given, _ = trained(case)
    adapters = attached(models[EXPERTS[case]], EXPERTS[case])
    step = run(models[EXPERTS[case]], adapters, given, runtime=runtime)
    for name in ("video_velocity", "audio_velocity"):
        assert relative_error(getattr(step, name), given[f"out.{name}"]) < 5e-6
    for name in ("video_loss", "audio_loss", "loss"):
        assert float(getattr(step, name)) == pytest.approx(float(given[f"out.{name}"]), rel=1e-5)
    ours = gradients(adapters)
    wanted = {key.removeprefix("grad_total/"): t for key, t in given.items() if key.startswith("grad_total/")}
    assert ours.keys() == dict(adapters.named_parameters()).keys()
    assert wanted.keys() == ours.keys() if case != "train_step_low" else len(wanted) > 50
    assert max(relative_error(ours[name], wanted[name]) for name in wanted) < 5e-5
    assert relative_error(joined(ours, [*wanted]), joined(wanted, [*wanted])) < 5e-6


@needs_trained
@pytest.mark.parametrize("audio_weight", [0.0, 0.2])
def test_any_audio_weight_is_the_sum_of_both_streams_gradients(models: dict[str, Mova], audio_weight: float) -> None:
    given, _ = trained("step_high")
    adapters = attached(models["high"], "high")
    step = run(models["high"], adapters, given, audio_weight=audio_weight)
    video, audio = (
        {k.split("/", 1)[1]: t for k, t in given.items() if k.startswith(kind)}
        for kind in ("grad_video/", "grad_audio/")
    )
    ours = gradients(adapters)
    for name, gradient in video.items():
        wanted = gradient + audio_weight * audio.get(name, torch.zeros_like(gradient))
        assert relative_error(ours[name], wanted) < 5e-5, name
    assert float(step.loss) == pytest.approx(float(step.video_loss) + audio_weight * float(step.audio_loss), rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_bfloat16_base_gives_nearly_the_same_gradients(case: str) -> None:
    given, _ = trained(case)
    model = load_joint(CHECKPOINT, EXPERTS[case], torch.bfloat16)
    adapters = attached(model, EXPERTS[case])
    run(model, adapters, given)
    wanted = {key.removeprefix("grad_total/"): t for key, t in given.items() if key.startswith("grad_total/")}
    ours, theirs = joined(gradients(adapters), [*wanted]), joined(wanted, [*wanted])
    assert ours.dtype == torch.float32
    assert relative_error(ours, theirs) < 3e-2
    assert float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0)) > 0.999


@needs_trained
def test_three_steps_of_the_official_optimizer(models: dict[str, Mova]) -> None:
    given, header = trained("three_steps")
    start = {name: t if "lora_A" in name else torch.zeros_like(t) for name, t in tensors("lora")[0].items()}
    state = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    rate = float(header["lr"])
    rates = Rates(high=rate, low=rate, audio=rate, bridge=rate, weight_decay=float(header["weight_decay"]), clip=1.0)
    optimizer, norms = AdamW(state, rates), []
    for index, expert in enumerate(("high", "low", "high")):
        adapters = Adapters.attach(models[expert], state, float(header["alpha"]), expert=expert)
        step = run(models[expert], adapters, given, f"step{index}/")
        for name in ("video_loss", "audio_loss"):
            assert float(getattr(step, name)) == pytest.approx(float(given[f"step{index}/out.{name}"]), rel=1e-5)
        norms.append(optimizer.step(index))
    assert torch.tensor(norms).tolist() == pytest.approx(given["grad_norm"].tolist(), rel=1e-5)
    changed = {name: parameter.detach() - start[name] for name, parameter in state.items()}
    wanted = {name: given[f"end/{name}"] - start[name] for name in start}
    assert relative_error(joined(changed, [*start]), joined(wanted, [*start])) < 2e-4


def test_one_sample_is_learned(models: dict[str, Mova]) -> None:
    """A rate of 1e-2 and 100 steps on one sample at one noise level: below a tenth of the first loss."""
    given, _ = trained("train_step_low")
    state = {k: torch.nn.Parameter(t if "lora_A" in k else 0 * t) for k, t in tensors("lora")[0].items()}
    rates = Rates(high=1e-2, low=1e-2, audio=1e-2, bridge=1e-2, weight_decay=0.0)
    adapters, optimizer = Adapters.attach(models["low"], state, 4.0), AdamW(state, rates)
    seen = []
    while len(seen) < 100 and seen[-1:] >= [0.1 * value for value in seen[:1]]:
        seen.append(float(run(models["low"], adapters, given).loss))
        optimizer.step(len(seen))
    assert seen[-1] < 0.1 * seen[0]


def test_the_reverse_walk_is_one_backward_through_everything(models: dict[str, Mova]) -> None:
    """Autograd over the whole forward at once says the same: the walk is no approximation."""
    given, _ = trained("train_step_low")
    adapters, whole = attached(models["low"], "low"), attached(models["low"], "low")
    step = run(models["low"], adapters, given)
    noisy = [
        (1 - given[f"in.{s}_sigma"]) * given[f"in.{s}_latents"] + given[f"in.{s}_sigma"] * given[f"in.{s}_noise"]
        for s in ("video", "audio")
    ]
    noisy[0].requires_grad_()
    times = given["in.video_timestep"], given["in.audio_timestep"]
    with whole.beside():
        velocities = models["low"](*noisy, given["in.context"], *times, condition=given["in.condition"], fps=24.0)
    pairs = zip(("video", "audio"), velocities, strict=True)
    loss = sum(((given[f"in.{s}_noise"] - given[f"in.{s}_latents"]) - v).square().mean() for s, v in pairs)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(step.loss), rel=1e-6)
    for name, gradient in gradients(whole).items():
        assert relative_error(gradients(adapters)[name], gradient) < 5e-5, name
