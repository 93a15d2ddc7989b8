"""The benchmark of whole clips on a GPU: its graphs fit our nodes, its figures are read off what ComfyUI says."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import full_checkpoint, gpu_comfy
from benchmarks.gpu_comfy_train import TRAINING
from mova_core.checkpoint.source import from_folder
from mova_core.config import MOVA
from tests.fixtures.tiny_checkpoint import TINY, components
from tests.golden import REPOSITORY
from tools.comfy.events import Event
from tools.comfy.prompts import Result

SCHEMA = json.loads((REPOSITORY / "tests" / "nodes" / "schema.json").read_text(encoding="utf-8"))
CPU = torch.device("cpu")


def said(kind: str, seconds: float, **data: object) -> Event:
    return Event(kind, data, seconds)


EVENTS = (
    said("executing", 1.0, node="load"),
    said("executing", 3.0, node="walk"),
    said("progress", 3.0, node="walk", value=0, max=3),
    said("progress", 13.0, node="walk", value=1, max=3),
    said("progress", 18.0, node="walk", value=2, max=3),
    said("progress", 25.0, node="walk", value=3, max=3),
    said("executing", 25.5, node="decode"),
    said("executing", 29.5, node=None),
)


@pytest.mark.parametrize("case", [*gpu_comfy.CASES, *TRAINING], ids=lambda case: case.name)
def test_every_case_asks_our_nodes_for_what_they_take(case: gpu_comfy.Case) -> None:
    for name, asked in case.graph().items():
        if asked["class_type"] not in SCHEMA:
            continue
        inputs = {each["id"]: each["optional"] for each in SCHEMA[asked["class_type"]]["inputs"]}
        assert set(asked["inputs"]) <= set(inputs), name
        assert {each for each, optional in inputs.items() if not optional} <= set(asked["inputs"]), name


def test_the_sizes_of_every_case_are_valid() -> None:
    for case in (*gpu_comfy.CASES, *TRAINING):
        assert (case.height % 16, case.width % 16, case.frames % 4) == (0, 0, 1)


def test_nodes_and_steps_are_timed_by_what_comfyui_said() -> None:
    result = Result(prompt_id="1", status="success", outputs={}, events=EVENTS)
    assert gpu_comfy.spans(result) == {"load": (1.0, 3.0), "walk": (3.0, 25.5), "decode": (25.5, 29.5)}
    assert gpu_comfy.steps(result) == [10.0, 5.0, 7.0]


def test_the_peak_is_that_of_the_asked_moments() -> None:
    gauge = gpu_comfy.Gauge(pid=0, before=0)
    gauge.seen = [(1.0, 2 * 2**30, 5, 6), (3.5, 4 * 2**30, 7, 8), (9.0, 9 * 2**30, 9, 9)]
    assert gauge.peak(3.0, 8.0) == 4.0
    assert gauge.peak(20.0, 30.0) == 0.0


def test_the_checkpoint_is_a_published_folder_with_one_expert_twice(tmp_path: Path) -> None:
    folder = full_checkpoint.write_full_checkpoint(tmp_path / "bench", CPU, TINY)
    assert from_folder(folder).model == TINY.mova
    high, low = (sorted((folder / name).glob("*.safetensors")) for name in ("video_dit", "video_dit_2"))
    assert len(high) > 1
    assert all(one.samefile(other) for one, other in zip(high, low, strict=True))


def test_its_full_sizes_are_the_published_ones() -> None:
    assert full_checkpoint.SIZES.mova is MOVA
    weights = {name: component.shapes for name, component in components(full_checkpoint.SIZES).items()}
    sizes = {name: sum(torch.Size(shape).numel() for shape in shapes.values()) for name, shapes in weights.items()}
    joint = sizes["video_dit"] + sizes["audio_dit"] + sizes["dual_tower_bridge"]
    assert joint * 2 / 1e9 == pytest.approx(36.74, abs=0.01)
    assert sizes["text_encoder"] / 1e9 == pytest.approx(5.68, abs=0.01)


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_comfy.main([str(tmp_path)]) == 1
    assert "nothing was measured" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
