"""What training takes, told before anything is loaded."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy


def test_the_node_tells_memory_time_and_disk(run: Run, scene: Scene, data: Any) -> None:
    report, nothing = run("MOVATrainingBudget", model=scene.model, width=80, height=48, frames=9)
    for words in ("whole path", "low path", "host memory", "disk", "s a step", "for 1000 steps"):
        assert words in report
    assert nothing is None
    of_data, handed_on = run("MOVATrainingBudget", model=scene.model, clips=data, measure=False)
    assert handed_on is data
    with pytest.raises(
        Exception, match="connect 'MOVA Training Clips', and where 'MOVA Training Budget' lies between, its clips too"
    ):
        run("MOVATrainLora", model=scene.model, clips=nothing, name="x", steps=1, rank=2)
    assert "3 clips, the largest 9 pictures of 80x48" in of_data
    assert "s a step" not in of_data


@pytest.fixture
def plan(pack: Pack) -> Any:
    """plan(frames, **settings) at the published size."""
    forecast, run = pack.module("mova_core.training.forecast"), pack.module("mova_core.training.run")
    shapes, optim = pack.module("mova_core.shapes"), pack.module("mova_core.training.optim")
    rates = optim.Rates(high=1e-4, low=1e-4, audio=1e-4, bridge=1e-4)

    def made(frames: int, **more: Any) -> Any:
        chosen = {
            "parts": ("high", "audio", "bridge"),
            "rank": 32,
            "alpha": 32.0,
            "steps": 1000,
            "rates": rates,
            **more,
        }
        shape = shapes.VideoShape(batch=1, frames=frames, height=352, width=640)
        return forecast.TrainingPlan(
            config=pack.module("mova_core.config").MOVA,
            settings=run.Settings(**chosen),
            shape=shape,
            clips=30,
            weights=36.7e9,
            running=36.7e9,
            layer=973_000_000,
            element=2,
            disk=1e12,
        )

    return made


def machine(pack: Pack, gib: float, link: float | None = 25e9) -> Any:
    return pack.module("mova_core.preflight").Machine(device="a card", capacity=gib * 2**30, memory=64e9, link=link)


def test_eight_seconds_fit_24_gb_and_not_12(pack: Pack, plan: Any) -> None:
    forecast = pack.module("mova_core.training.forecast")
    assert forecast.fits(plan(193), machine(pack, 23), low=False)
    assert not forecast.fits(plan(193), machine(pack, 11.5), low=True)
    assert forecast.fits(plan(97, rank=16, optimizer="adamw8bit"), machine(pack, 11.5), low=True)


def test_what_would_make_it_fit_does(pack: Pack, plan: Any) -> None:
    forecast, small = pack.module("mova_core.training.forecast"), machine(pack, 11.5)
    report = forecast.report(plan(193), small, None)
    assert report.count("DOES NOT FIT") == 2
    ways = forecast.ways_to_fit(plan(193), small)
    assert ways
    frames = next(int(re.match(r"\d+", way)[0]) for way in ways if way.endswith("pictures"))  # type: ignore[index]
    assert forecast.fits(plan(frames), small, low=True)
    assert "what would make it fit: " in report
    assert "another card is needed" in forecast.report(plan(193), machine(pack, 1.0), None)


def test_the_predicted_time_of_a_4090(pack: Pack, plan: Any) -> None:
    """150 TFLOP/s of matrix products, 160 of attention: 81, 28 and 11 s a sample at 193, 97 and 49 pictures, less what
    elementwise work takes."""
    forecast = pack.module("mova_core.training.forecast")
    speed = pack.module("mova_core.estimate").Throughput(matrix=1 / 150e12, attention=1 / 160e12)
    for frames, seconds in ((193, 81), (97, 28), (49, 11)):
        told = forecast.step_seconds(plan(frames), machine(pack, 24), speed, low=False)
        assert told == pytest.approx(seconds, rel=0.12)
    slow = forecast.step_seconds(plan(25), machine(pack, 24, link=5e9), speed, low=False)
    assert slow == pytest.approx((2 * 36.7e9 + 2 * plan(25).budget(low=False).inputs) / 5e9)
    assert forecast.step_seconds(plan(25, accumulate=4), machine(pack, 24, link=5e9), speed, low=False) == 4 * slow
