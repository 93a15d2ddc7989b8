"""From a folder of clips to a LoRA and a clip made with it, in a real ComfyUI, by the pack's own workflows."""

from __future__ import annotations

import json
from typing import Any

import av
import pytest
from safetensors import safe_open

from tests.comfy import needs_comfy
from tests.fixtures.clips import write_folder
from tools.comfy.server import ComfyServer

from .graphs import api_graph, node_of, read, small, tiny_text

pytestmark = needs_comfy

NAME = "from_clips"


def graph(key: str, **changes: Any) -> dict[str, Any]:
    return small(tiny_text(api_graph(read(key))), seed=1, **changes)


@pytest.fixture(scope="module")
def trained(comfy: ComfyServer) -> Any:
    """How the training workflow ended on a folder of two clips."""
    write_folder(comfy.input / "my_clips", 2)
    asked = graph("mova_train_lora", name=NAME, alternate=1, rank=2)
    return asked, comfy.run(asked)


def test_the_workflow_trains_a_lora_of_every_part_and_shows_how(comfy: ComfyServer, trained: Any) -> None:
    asked, result = trained
    assert result.status == "success", result.message
    with safe_open(comfy.models / "loras" / f"{NAME}.safetensors", framework="pt") as file:
        parts = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118
        told = file.metadata()
    assert parts == {"video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"}
    assert json.loads(told["ss_steps"]) == 4
    train = node_of(asked, "MOVATrainLora")
    steps = [data["value"] for data in result.of("progress") if data["node"] == train]
    assert steps[-1] == 4
    assert (comfy.models / "loras" / f"{NAME}.png").is_file()
    assert any(path.suffix == ".png" for path in result.files)  # losses


def test_what_is_learned_and_what_it_takes_is_shown_before_training(trained: Any) -> None:
    """ComfyUI chooses among output nodes that are ready as it likes: hours may lie between."""
    asked, result = trained
    shown = [data["node"] for data in result.of("executed")]
    clips, budget, train = (node_of(asked, f"MOVA{kind}") for kind in ("TrainingClips", "TrainingBudget", "TrainLora"))
    assert shown.index(clips) < shown.index(train)
    assert shown.index(budget) < shown.index(train)


def test_running_it_again_has_nothing_left_to_do(comfy: ComfyServer, trained: Any) -> None:
    asked, _ = trained
    again = json.loads(json.dumps(asked))
    again[node_of(again, "MOVATrainLora")]["inputs"]["save_every"] = 7  # else the server need not run it
    before = (comfy.models / "loras" / f"{NAME}.safetensors").read_bytes()
    assert comfy.run(again).status == "success"
    after = (comfy.models / "loras" / f"{NAME}.safetensors").read_bytes()
    assert after[-1000:] == before[-1000:]  # the same tensors; the header tells another time


def test_a_clip_is_made_with_it_at_several_strengths(comfy: ComfyServer, trained: Any) -> None:
    asked = graph("mova_try_lora", lora_name=f"{NAME}.safetensors")
    for node in asked.values():
        if node["class_type"] == "MOVALoraLoader":
            node["inputs"]["lora_name"] = f"{NAME}.safetensors"
    result = comfy.run(asked)
    assert result.status == "success", result.message
    (clip,) = (path for path in result.files if path.suffix == ".mp4")
    with av.open(str(clip)) as file:
        assert file.streams.video[0].width == 160
        assert file.streams.audio
