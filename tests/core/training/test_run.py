"""A run: whose turn it is, what is drawn, what stops it, and that it goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mova_core.errors import CheckpointError, ConfigError
from mova_core.training.noise import Draws
from mova_core.training.optim import Rates
from mova_core.training.run import LossError, Run, Settings, draw, fixed_draws
from tests.fixtures.training import parameters

RATES = Rates(high=1e-2, low=1e-2, audio=1e-2, bridge=1e-2)
SETTINGS = Settings(parts=("high", "low", "audio", "bridge"), rank=2, alpha=2.0, steps=12, rates=RATES, alternate=2)
DRAWS = Draws(seed=0, shift=5.0, audio_shift=5.0, boundary=0.9)


def pull(run: Run) -> Any:
    """A sample that draws all parameters of its expert, and those both have, towards a number of its own."""

    def sample(expert: str, count: int, scale: float) -> tuple[float, float]:
        for name, parameter in run.parameters.items():
            other = "video_dit_2." if expert == "high" else "video_dit."
            if not name.startswith(other):
                gradient = scale * (parameter.detach() - count)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return 1.0 / (1 + count), 2.0

    return sample


def test_experts_take_turns_and_count_for_themselves() -> None:
    turns = [SETTINGS.turn(step) for step in range(9)]
    assert [expert for expert, _ in turns] == ["high", "high", "low", "low"] * 2 + ["high"]
    assert [count for _, count in turns] == [0, 1, 0, 1, 2, 3, 2, 3, 4]
    assert replace(SETTINGS, parts=("low",)).experts == ("low",)
    assert replace(SETTINGS, parts=("audio",)).experts == ("high", "low")


def test_accumulated_samples_are_of_one_expert_and_none_is_left_out() -> None:
    run, seen = Run.begin(replace(SETTINGS, accumulate=3), parameters()), []

    def sample(expert: str, count: int, scale: float) -> tuple[float, float]:
        seen.append((expert, count, scale))
        return pull(run)(expert, count, scale)

    for _ in range(4):
        run.advance(sample)
    assert [each[:2] for each in seen] == [("high", n) for n in range(6)] + [("low", n) for n in range(6)]
    assert {each[2] for each in seen} == {1 / 3}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_taken_up_anywhere_it_is_the_same_run(optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    straight, first = Run.begin(settings, parameters()), Run.begin(settings, parameters())
    for _ in range(7):
        straight.advance(pull(straight))
    for _ in range(3):
        first.advance(pull(first))
    tensors, state = first.state()
    second = Run.begin(settings, parameters())
    second.restore({name: tensor.detach().clone() for name, tensor in tensors.items()}, _as_json(state))
    for _ in range(4):
        second.advance(pull(second))
    ours, theirs = second.state(), straight.state()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in theirs[0])
    assert second.records == straight.records


DAMAGE: dict[str, Any] = {
    "no settings": lambda tensors, state: state.pop("settings"),
    "settings are a list": lambda tensors, state: state.update(settings=[]),
    "no step": lambda tensors, state: state.pop("step"),
    "a step below 0": lambda tensors, state: state.update(step=-1),
    "half a step": lambda tensors, state: state.update(step=1.5),
    "a step that is true": lambda tensors, state: state.update(step=True),
    "records are a number": lambda tensors, state: state.update(records=1),
    "a record of another shape": lambda tensors, state: state["records"].append({"step": 1}),
    "a record of no expert": lambda tensors, state: state["records"][0].update(expert="middle"),
    "a record of no number": lambda tensors, state: state["records"][0].update(norm="x"),
    "an evaluation of text": lambda tensors, state: state.update(evaluations=[{"step": 1, "high": ["x", 1.0]}]),
    "an evaluation of one loss": lambda tensors, state: state.update(evaluations=[{"step": 1, "low": [1.0]}]),
    "a weight is gone": lambda tensors, state: tensors.pop(next(iter(tensors))),
    "a weight of another shape": lambda tensors, state: tensors.update({next(iter(tensors)): torch.zeros(3)}),
    "a weight is NaN": lambda tensors, state: next(iter(tensors.values())).fill_(float("nan")),
    "a moment is infinite": lambda tensors, state: _moment(tensors, "mean/value").fill_(float("inf")),
    "a moment took no step": lambda tensors, state: _moment(tensors, "steps").fill_(0),
    "moments of nothing": lambda tensors, state: tensors.update({"optimizer/x/steps": torch.tensor(1)}),
}


def _moment(tensors: Any, ending: str) -> torch.Tensor:
    return next(tensor for name, tensor in tensors.items() if name.startswith("optimizer/") and name.endswith(ending))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_named_and_leaves_the_run_as_it_was(damage: str) -> None:
    first, second = Run.begin(SETTINGS, parameters()), Run.begin(SETTINGS, parameters())
    first.advance(pull(first))
    tensors, state = first.state()
    tensors, state = {name: tensor.detach().clone() for name, tensor in tensors.items()}, _as_json(state)
    before = {name: tensor.detach().clone() for name, tensor in second.state()[0].items()}
    DAMAGE[damage](tensors, state)
    with pytest.raises((CheckpointError, ConfigError), match=r"[Bb]egin anew"):
        second.restore(tensors, state)
    after, rest = second.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert (rest["step"], rest["records"]) == (0, [])


def _as_json(state: Any) -> Any:
    import json

    return json.loads(json.dumps(state))


def test_another_run_is_not_gone_on_with() -> None:
    tensors, state = Run.begin(SETTINGS, parameters()).state()
    with pytest.raises(ConfigError, match=r"rank 2, now 3.*seed 0, now 9"):
        Run.begin(replace(SETTINGS, rank=3, seed=9), parameters()).restore(tensors, _as_json(state))
    Run.begin(replace(SETTINGS, steps=99, audio_weight=1.0), parameters()).restore(tensors, _as_json(state))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_no_number_changes_nothing(where: str) -> None:
    run = Run.begin(SETTINGS, parameters())
    run.advance(pull(run))
    before = {name: tensor.clone() for name, tensor in run.state()[0].items()}

    def sample(expert: str, count: int, scale: float) -> tuple[float, float]:
        losses = pull(run)(expert, count, scale)
        if where == "gradient":
            next(p for p in run.parameters.values() if p.grad is not None).grad[0, 0] = float("inf")  # type: ignore[index]
            return losses
        return float("nan"), losses[1]

    with pytest.raises(LossError, match="step 2, high-noise expert"):
        run.advance(sample)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.state()[0].items())
    assert run.step == 1
    assert all(parameter.grad is None for parameter in run.parameters.values())


def test_a_step_that_is_broken_off_leaves_no_gradient() -> None:
    run = Run.begin(replace(SETTINGS, accumulate=2), parameters())

    def sample(expert: str, count: int, scale: float) -> tuple[float, float]:
        if count:
            raise KeyboardInterrupt
        return pull(run)(expert, count, scale)

    with pytest.raises(KeyboardInterrupt):
        run.advance(sample)
    assert all(parameter.grad is None for parameter in run.parameters.values())
    assert (run.step, run.records) == (0, [])


def test_samples_follow_from_the_seed() -> None:
    settings = replace(SETTINGS, caption_dropout=0.5, bridge_dropout=0.5)
    one, other = (draw(settings, DRAWS, 5, "high", 3) for _ in range(2))
    assert (one.clip, one.drop_caption, one.drop_bridge) == (other.clip, other.drop_caption, other.drop_bridge)
    assert torch.equal(one.video_timestep, other.video_timestep)
    assert torch.equal(torch.randn(3, generator=one.noise), torch.randn(3, generator=other.noise))
    drops = [draw(settings, DRAWS, 5, "high", n) for n in range(60)]
    assert 15 < sum(d.drop_caption for d in drops) < 45
    assert sum(d.drop_caption != d.drop_bridge for d in drops) > 10


def test_fixed_samples_are_the_same_and_spread() -> None:
    first, second = (list(fixed_draws(SETTINGS, DRAWS, 3, "low")) for _ in range(2))
    assert [d.video_timestep.item() for d in first] == [d.video_timestep.item() for d in second]
    assert len({int(8 * i / 642) for i in range(642)}) == len(first) == 8
    assert max(d.video_timestep.item() for d in first) - min(d.video_timestep.item() for d in first) > 400
    assert {d.clip for d in first} == {0, 1, 2}
    assert not any(d.drop_caption or d.drop_bridge for d in first)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5"),
        ({"audio_weight": float("nan")}, "audio_weight is nan"),
        ({"optimizer": "lion"}, "'lion'"),
        ({"parts": ()}, "cannot train nothing"),
        ({"parts": ("text",)}, "cannot train text"),
    ],
)
def test_impossible_settings_are_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(SETTINGS, **change)
