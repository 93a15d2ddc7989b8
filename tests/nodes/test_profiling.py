"""What stands under the sampler while it runs, and the one line that is logged."""

import logging
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shown(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: texts.append(text))
    return texts


def walk(progress: Any, clock: Clock, seconds: list[float], steps: int) -> None:
    for step, taken in enumerate(seconds):
        clock.now += taken
        progress(step, None, steps)


def test_the_pace_is_that_of_the_last_steps_without_loading(pack: Pack, shown: list[str]) -> None:
    clock = Clock()
    progress = pack.module("nodes.host.machine.profiling").Progress(torch.device("cpu"), "7", clock=clock)
    walk(progress, clock, [60.0, 9.0, 9.0, 40.0, 9.0], 50)
    assert shown[0] == "Step 1 of 50"  # the first one loaded the model: nothing can be said yet
    assert shown[1] == "Step 2 of 50, 9 s a step, 7 min 12 s to go"
    assert shown[4] == "Step 5 of 50, 9 s a step, 6 min 45 s to go"


def test_the_end_is_logged_once_with_total_and_pace(
    pack: Pack, shown: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    progress = pack.module("nodes.host.machine.profiling").Progress(torch.device("cpu"), "7", clock=clock)
    with caplog.at_level(logging.INFO, "mova"):
        walk(progress, clock, [5.0, 2.0, 2.0], 3)
    assert [record.message for record in caplog.records] == ["3 steps in 9.0 s, 2 s a step"] == shown[-1:]


def test_the_most_memory_is_kept(pack: Pack, shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, used = pack.module("nodes.host.machine.profiling"), iter([3, 5, 4])
    monkeypatch.setattr(module, "device_peak", lambda device: next(used) * 2**30)
    clock = Clock()
    walk(module.Progress(torch.device("cpu"), "7", clock=clock), clock, [1.0, 1.0, 1.0], 4)
    assert [text.split(", ")[-1].split(" GiB")[0] for text in shown] == ["3.0", "5.0", "5.0"]


def test_what_stands_beside_it_stays(pack: Pack, shown: list[str]) -> None:
    clock = Clock()
    progress = pack.module("nodes.host.machine.profiling").Progress(
        torch.device("cpu"), "7", lambda: "listen here", clock=clock
    )
    walk(progress, clock, [1.0], 4)
    assert shown == ["Step 1 of 4\nlisten here"]


@pytest.mark.parametrize(("seconds", "text"), [(8.44, "8.4 s"), (345, "5 min 45 s"), (7620, "2 h 07 min")])
def test_durations_are_read_at_a_glance(pack: Pack, seconds: float, text: str) -> None:
    assert pack.module("nodes.host.machine.profiling").format_duration(seconds) == text


def test_the_sampler_shows_every_step_and_logs_one_line(
    run: Run, scene: Scene, shown: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    inputs = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent, "steps": 4}
    with caplog.at_level(logging.INFO, "mova"):
        run("MOVASampler", model=scene.model, **inputs)
    assert [text.split(",")[0] for text in shown[:3]] == [f"Step {n} of 4" for n in (1, 2, 3)]
    lines = [record.message for record in caplog.records if "s a step" in record.message]
    assert len(lines) == 1
    assert lines[0].startswith("4 steps in ")
