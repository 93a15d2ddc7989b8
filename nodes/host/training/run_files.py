"""A run's files: the LoRA among ComfyUI's, and beside the data set the state to go on from."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import folder_paths

from ....mova_core.checkpoint.files import read_header
from ....mova_core.errors import CheckpointError
from ....mova_core.training import files
from ....mova_core.training.run import Run
from . import data_set

STATE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where a run's files go and how often. `every` 0 saves at the end alone; `keep` 0 keeps all."""

    name: str
    every: int = 200
    keep: int = 3
    naming: str = "official"
    again: bool = False  # begin anew though there is a run of this name

    @property
    def lora(self) -> Path:
        return Path(folder_paths.get_folder_paths("loras")[0]) / f"{self.name}{files.SUFFIX}"

    @property
    def folder(self) -> Path:
        return data_set.folder() / "runs" / self.name

    @property
    def shown(self) -> Path:
        """The folder, from ComfyUI's output folder on."""
        return Path(data_set.CLIPS_FOLDER, "runs", self.name)

    @property
    def state(self) -> Path:
        return self.folder / STATE

    def at(self, step: int) -> Path:
        return self.lora.with_name(f"{self.lora.stem}-{step:06}{files.SUFFIX}")


def save(saving: Saving, run: Run, told: dict[str, object], begun: float, *, last: bool) -> list[Path]:
    """The LoRA and the state to go on from. A save on the way has the step in its name.

    Args:
        told: what the LoRA's metadata says beside the settings.
        begun: when the run began, in seconds since 1970.
    """
    settings = run.settings
    trained = {
        "learning_rate": settings.rates.high if "high" in settings.parts else settings.rates.low,
        "optimizer": settings.optimizer,
        "seed": settings.seed,
        "steps": run.step,
        "gradient_accumulation_steps": settings.accumulate,
        "settings": asdict(settings),
    }
    metadata = files.lora_metadata(
        saving.name, run.parameters, settings.rank, settings.alpha, {**trained, **told}, begun
    )
    path = saving.lora if last else saving.at(run.step)
    written = files.save_lora(path, run.parameters, settings.alpha, metadata, saving.naming)
    files.save_state(saving.state, *run.state())
    if not last and saving.keep:
        _keep_newest(saving, run.step)
    return written


def _keep_newest(saving: Saving, step: int) -> None:
    """Delete all saves on the way but the newest. Those of later steps are of a run that was begun anew: the oldest."""
    found: dict[int, list[Path]] = {}
    for path in saving.lora.parent.glob(f"{saving.name}-*{files.SUFFIX}"):
        number = re.fullmatch(r"-(\d{6,})(_[a-z_0-9]+)?", path.stem.removeprefix(saving.name))
        if number and _output_name(path) == saving.name:
            found.setdefault(int(number[1]), []).append(path)
    for old in sorted(found, key=lambda each: (each <= step, each))[: -saving.keep]:
        for path in found[old]:
            path.unlink(missing_ok=True)


def _output_name(path: Path) -> str:
    """The run that wrote a LoRA, by what it says of itself; empty where it says nothing."""
    try:
        return read_header(path).metadata.get("ss_output_name", "")
    except CheckpointError:
        return ""
