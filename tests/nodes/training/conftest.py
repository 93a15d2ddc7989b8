"""A small data set for all tests of training, and the shortest run that does everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures.clips import write_clip, write_folder
from tests.nodes.graph import Run, Scene

SIZE = {"width": 80, "height": 48, "frames": 9}
RATES = {"learning_rate": 1e-2, "high_noise_rate": 1e-2, "audio_rate": 1e-2, "bridge_rate": 1e-2}
FEW = {"parts": "sound and bridge", "layers": "attention"}  # adapters, where it does not matter which
ALL = {"parts": "both experts, sound and bridge", "layers": "all"}
QUICK = {"rank": 2, "save_every": 0, "evaluate_every": 0, "alternate": 1, "warmup": 0, **RATES, **FEW}


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with sound and captions, and one without sound."""
    folder = write_folder(tmp_path_factory.mktemp("clips"), 2)
    write_clip(folder / "mute.mp4", frames=12, sound=None)
    (folder / "mute.txt").write_text("A ball rolls in silence.")
    return folder


@pytest.fixture(scope="session")
def coders(scene: Scene) -> dict[str, Any]:
    """What the data set node needs."""
    return {"clip": scene.clip, "vae": scene.vae, "audio_vae": scene.audio_vae}


@pytest.fixture(scope="session")
def data(run: Run, coders: dict[str, Any], clips_folder: Path) -> Any:
    """The data set of `clips_folder`."""
    with torch.inference_mode():
        return run("MOVATrainingClips", **coders, folder=str(clips_folder), **SIZE, preview_clips=0)[0]


@pytest.fixture(scope="session")
def train(run: Run, scene: Scene, data: Any) -> Any:
    """train(name, steps, ...): outputs of a short run."""

    def go(name: str, steps: int, **more: Any) -> tuple[Any, ...]:
        given = {"model": scene.model, "clips": data, **QUICK, **more}
        return run("MOVATrainLora", name=name, steps=steps, **given)

    return go


@pytest.fixture(scope="session")
def straight(train: Any) -> dict[str, torch.Tensor]:
    """The LoRA of four steps that nothing disturbed."""
    with torch.inference_mode():
        return train("undisturbed", 4)[0]


@pytest.fixture(scope="session")
def resident(train: Any) -> dict[str, torch.Tensor]:
    """The LoRA of three steps of all adapters, with all weights where they compute."""
    with torch.inference_mode():
        return train("resident", 3, **ALL)[0]
