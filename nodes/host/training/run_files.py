"""A run's files: the LoRA among ComfyUI's, and beside the data set the state to go on from."""

from dataclasses import asdict, dataclass
from pathlib import Path

import folder_paths

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
    if not last:
        stem = saving.lora.stem
        files.keep_newest(sorted(path.parent.glob(f"{stem}-{'[0-9]' * 6}{files.SUFFIX}")), saving.keep)
    return written
