"""LoRA training of a MOVA MODEL: the loop, with saves, previews and progress.

checks    whether a run can be made of this MODEL and data set here
samples   a sample shown to its expert, there and back; weights brings a layer's weights
run_files the LoRA and the state; words and views tell and show
data_set  what is trained on; told names what of it teaches less than it seems to
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ....mova_core.checkpoint.whole_file import file_state
from ....mova_core.errors import MovaError
from ....mova_core.training import files
from ....mova_core.training.adapters import fresh
from ....mova_core.training.noise import generator
from ....mova_core.training.run import LossError, Record, Run, Settings
from .. import messages
from ..machine.profiling import begin_peak, device_peak
from ..patching.patcher import MovaPatcher
from . import data_set, run_files, words
from .checks import (
    check_channels,
    check_host_memory,
    chosen_path,
    experts_of,
    host_memory,
    largest,
    without_effect,
)
from .run_files import Saving
from .samples import Samples
from .views import curve
from .words import line

log = logging.getLogger("mova")


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What is looked at meanwhile. `preview(tensors, step)` makes a clip with the adapters as they are."""

    evaluate_every: int = 100
    preview_every: int = 0
    preview: Callable[[dict[str, Tensor], int], str] | None = None
    node_id: str | None = None


@dataclass
class Trainer:
    """One run on one MODEL. What it changes is its own: adapters, optimizer, files."""

    samples: Samples
    run: Run
    saving: Saving
    watching: Watching
    memory: str = "auto"
    begun: float = field(default_factory=time.time)
    written: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = self.run.step  # where this call takes it up

    def tensors(self) -> dict[str, Tensor]:
        """The LoRA as it is, as stock loaders take it."""
        return files.lora_tensors(self.run.parameters, self.run.settings.alpha, torch.bfloat16)

    def save(self, *, last: bool) -> None:
        """The LoRA and the state to go on from."""
        told = {
            "num_train_items": len(self.samples.data.clips),
            "mixed_precision": str(self.samples.dtype).removeprefix("torch."),
            "discrete_flow_shift": self.samples.draws.shift,
        }
        self.written = run_files.save(self.saving, self.run, told, self.begun, last=last)

    def train(self) -> str:
        """All steps that are left. Whatever ends it, what was learned up to the last whole step is kept."""
        settings, bar = self.run.settings, comfy.utils.ProgressBar(self.run.settings.steps)
        begin_peak(self.samples.device)
        saved = self.run.step
        if self.watching.evaluate_every and not self.run.evaluations and self.run.step == 0:
            self.samples.evaluate()  # what it began with, or a curve that only falls later says nothing
        try:
            while self.run.step < settings.steps:
                started = time.perf_counter()
                record = self._advance()
                record.seconds = time.perf_counter() - started
                bar.update_absolute(self.run.step, settings.steps)
                messages.show(line(self.run, record, device_peak(self.samples.device)), self.watching.node_id)
                saved = self._between(saved)
        except BaseException:
            if self.run.step > saved:
                self.save(last=True)
            raise
        self.save(last=True)
        return self.report()

    def _advance(self) -> Record:
        try:
            return self.run.advance(self.samples.learn)
        except LossError as error:
            raise LossError(f"{error} (the last one was {self.samples.last_clip})") from error
        except Exception as error:
            if not comfy.model_management.is_oom(error):
                raise
            if self.samples.low or self.memory != "auto":
                raise MovaError(
                    f"step {self.run.step + 1} did not fit the device ({error!s:.150}); what was learned until then is "
                    "kept. End other programs, set memory to 'low', or take fewer pictures, a smaller size or a lower rank"
                ) from error
        self._on_the_low_path()  # out of the exception, which holds all that the step had made
        return self._advance()

    def _on_the_low_path(self) -> None:
        """For the rest of the run: another program took what the budget counted on."""
        log.warning("a training step did not fit the device; the rest of the run takes the low-memory path")
        self.samples.low, self.samples.active = True, None
        comfy.model_management.soft_empty_cache()

    def _between(self, saved: int) -> int:
        """Evaluation, save and preview where they are due; the step that is saved now."""
        step, last = self.run.step, self.run.step == self.run.settings.steps
        if self.watching.evaluate_every and (step % self.watching.evaluate_every == 0 or last):
            self.samples.evaluate()
        if self.saving.every and step % self.saving.every == 0 and not last:
            self.save(last=False)
            saved = step
        every, preview = self.watching.preview_every, self.watching.preview
        if preview is not None and every and (step % every == 0 or last):
            messages.show(preview(self.tensors(), step), self.watching.node_id)
            self.samples.active = None  # sampling loaded what it needed
        return saved

    def report(self) -> str:
        """The run in words."""
        told = words.report(self.run, self.first, self.written, self.saving.shown, low=self.samples.low)
        unused = without_effect(self.samples.model)
        return f"{told}\non the MODEL, of no effect in training: {', '.join(unused)}" if unused else told

    def loss_map(self) -> dict[str, list[float]]:
        """What ComfyUI's 'Plot Loss Graph' takes."""
        return {"loss": [record.total(self.run.settings.audio_weight) for record in self.run.records]}


def trainer(
    model: MovaPatcher, data: data_set.DataSet, settings: Settings, saving: Saving, watching: Watching, memory: str
) -> Trainer:
    """A run that is ready to go, or to go on: everything that can be wrong is said now.

    Raises:
        MovaError: the MODEL, the data set, the device, the disk or the kept state does not fit.
    """
    patchers = experts_of(model, settings)
    settings = replace(settings, among=tuple(patchers))
    check_channels(model, data)
    low = chosen_path(model, settings, largest(data), memory)
    sizes = model.model.sizes
    state = fresh(sizes, settings.parts, settings.rank, generator(settings.seed, "adapters"), settings.layers)
    values = sum(parameter.numel() for parameter in state.values())
    files.check_room(saving.lora.parent, 2 * values * (2 + saving.keep))
    files.check_room(saving.folder, 2 * 12 * values)  # the state there is, and the one that takes its place
    there = None if saving.again else file_state(saving.state)
    check_host_memory(host_memory(model, data) + (there[1] if there else 0))
    device = model.load_device
    placed = {name: torch.nn.Parameter(parameter.detach().to(device)) for name, parameter in state.items()}
    run = Run.begin(settings, placed)
    before = None if saving.again else files.kept_state(saving.state)
    if before is not None:
        run.restore(*before)
    return Trainer(Samples(model, data, run, low, patchers), run, saving, watching, memory)


@contextmanager
def learning_mode() -> Iterator[None]:
    """Out of the inference mode that ComfyUI runs nodes in, and its models told."""
    management = comfy.model_management
    before = management.in_training
    management.in_training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        management.in_training = before


def train(
    model: MovaPatcher, data: data_set.DataSet, settings: Settings, saving: Saving, watching: Watching, memory: str
) -> tuple[dict[str, Tensor], dict[str, list[float]], str]:
    """Run, and the LoRA's tensors, the losses, and a report; the loss curve lies beside the LoRA.

    Raises:
        MovaError: see `trainer` and `Run.advance`; DiskError: a save did not fit.
    """
    with learning_mode():
        made = trainer(model, data, settings, saving, watching, memory)
        try:
            report = made.train()
        finally:
            made.samples.close()
            if made.run.records:
                curve(saving.lora.with_suffix(".png"), made.run.records, made.run.evaluations)
        return made.tensors(), made.loss_map(), report
