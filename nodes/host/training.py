"""LoRA training of a MOVA MODEL: experts loaded in turn, samples from the data set, saves, previews, progress.

The model is called directly, not through a sampler: its patches, hooks, schedules and caches play no part, and a MODEL
that has any is refused.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...mova_core.checkpoint.experts import EXPERTS, Expert
from ...mova_core.errors import ConfigError, MovaError
from ...mova_core.estimate import Workload
from ...mova_core.image import condition_mask
from ...mova_core.ops import LayerCall, Runtime
from ...mova_core.preflight import format_duration
from ...mova_core.shapes import DEFAULT_FPS, VideoShape
from ...mova_core.training import files
from ...mova_core.training.adapters import Adapters, fresh
from ...mova_core.training.budget import CONTEXT, ROWS, Budget, budget, kept
from ...mova_core.training.noise import Draws, generator, noises
from ...mova_core.training.run import Draw, LossError, Record, Run, Settings, draw, fixed_draws
from ...mova_core.training.step import training_step, validation_step
from . import messages, training_clips
from .experts import OURS
from .keys import LOW_NOISE
from .memory import capacity
from .profiling import begin_peak, device_peak
from .training_views import curve
from .training_weights import HostShelf, Windows, check_unpackable, heads

log = logging.getLogger("mova")
GIB = 2**30
STATE = "state.safetensors"
RECENT = 20  # steps whose mean is shown and whose time the rest is told from
MEMORY = ("auto", "normal", "low")


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
        return training_clips.folder() / "runs" / self.name

    @property
    def state(self) -> Path:
        return self.folder / STATE

    def at(self, step: int) -> Path:
        return self.lora.with_name(f"{self.lora.stem}-{step:06}{files.SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What is looked at meanwhile. `preview(tensors, step)` makes a clip with the adapters as they are."""

    evaluate_every: int = 100
    preview_every: int = 0
    preview: Callable[[dict[str, Tensor], int], str] | None = None
    node_id: Any = None


def experts_of(model: Any, settings: Settings) -> dict[Expert, Any]:
    """The patchers that a run needs.

    Raises:
        MovaError: the MODEL lacks an expert, or is patched, hooked, compiled, or packed in a way that cannot be undone.
    """
    lows = model.get_additional_models_with_key(LOW_NOISE)
    there: dict[Expert, Any] = {"high": model, "low": lows[0]} if lows else {}
    if not lows:
        own = model.expert or (settings.parts[0] if len(set(settings.parts) & set(EXPERTS)) == 1 else None)
        if own is None:
            raise ConfigError("this MODEL is one expert without saying which; choose either high or low to train")
        there = {own: model}
    wanted = [expert for expert in settings.experts if expert in there]
    lacking = [part for part in settings.parts if part in EXPERTS and part not in there]
    if lacking:
        raise ConfigError(f"this MODEL lacks the {lacking[0]}-noise expert; connect both, or do not train that one")
    for patcher in there.values():
        check_untouched(patcher)
    return {expert: there[expert] for expert in wanted}


def check_untouched(patcher: Any) -> None:
    """Accept a MODEL as a loader gives it.

    Raises:
        MovaError: LoRAs, hooks, compiled modules, block patches or wrappers of other nodes are on it.
    """
    options = patcher.model_options.get("transformer_options", {})
    wrappers = {key for kind in patcher.wrappers.values() for key in kind} | {
        key for kind in options.get("wrappers", {}).values() for key in kind
    }
    touched = {
        "LoRAs or merges": patcher.patches,
        "hooks": patcher.hook_patches,
        "LoRAs in bypass": patcher.injections,
        "block patches": options.get("patches") or options.get("patches_replace"),
        "replaced modules (torch.compile?)": set(patcher.object_patches) - {"model_sampling"},
        "wrappers (torch.compile, caches, context windows?)": wrappers - OURS,
        "a model function wrapper": patcher.model_options.get("model_function_wrapper"),
    }
    found = [what for what, value in touched.items() if value]
    if found:
        raise MovaError(
            f"this MODEL has {', '.join(found)}; training works on the model as it was loaded. Connect the MODEL of "
            "'MOVA Loader' or 'MOVA Model Loader' directly"
        )
    check_unpackable(patcher.model.diffusion_model)


def budget_of(model: Any, settings: Settings, shape: VideoShape, *, low: bool) -> Budget:
    """What a step on a clip of this shape needs of a device."""
    sizes, element = model.model.sizes, model.model.element
    weights = sum(p.numel() for module in model.model.diffusion_model.layer_modules()[0] for p in module.parameters())
    return budget(
        sizes,
        Workload.of(shape),
        layer=weights * element,
        parts=settings.parts,
        rank=settings.rank,
        layers=settings.layers,
        optimizer=settings.optimizer,
        low=low,
        element=element,
    )


def largest(data: training_clips.DataSet) -> VideoShape:
    """The clip of a data set that needs most."""
    clip = max(data.clips, key=lambda each: each.frames * each.height * each.width)
    return VideoShape(batch=1, frames=clip.frames, height=clip.height, width=clip.width)


def chosen_path(model: Any, settings: Settings, shape: VideoShape, memory: str) -> bool:
    """Whether the low path is taken.

    Raises:
        MovaError: not even that fits the device.
    """
    if memory == "normal" or comfy.model_management.is_device_cpu(model.load_device):
        return memory == "low"
    room = capacity(model.load_device)
    whole, low = (budget_of(model, settings, shape, low=low).device for low in (False, True))
    if low > room:
        raise MovaError(
            f"a step on {shape.frames} pictures of {shape.width}x{shape.height} needs {low / GIB:.1f} GiB of this device, "
            f"which has {room / GIB:.1f}: fewer pictures, a smaller size, a lower rank or adamw8bit would make it fit. "
            "'MOVA Training Budget' tells by how much"
        )
    return memory == "low" or whole > room


@dataclass
class Trainer:
    """One run on one MODEL. What it changes is its own: adapters, optimizer, files."""

    model: Any
    data: training_clips.DataSet
    run: Run
    saving: Saving
    watching: Watching
    low: bool
    patchers: dict[Expert, Any]
    adapters: dict[Expert, Adapters] = field(default_factory=dict)
    active: Expert | None = None
    begun: float = field(default_factory=time.time)
    last_clip: str = ""

    def __post_init__(self) -> None:
        settings, base = self.run.settings, self.model.model
        scheduler, shifts = base.model_config.scheduler, base.model_config.sampling_settings
        self.draws = Draws.of(
            scheduler, shifts["audio_shift"], settings.seed, strata=settings.strata, separate=settings.separate
        )
        self.device = torch.empty(0, device=self.model.load_device).device  # as tensors there say it
        self.dtype = base.get_dtype_inference()
        self.shelf = HostShelf(self.device)
        for expert, patcher in self.patchers.items():
            module = patcher.model.diffusion_model
            self.adapters[expert] = Adapters.attach(module, self.run.parameters, settings.alpha, expert)

    # Steps

    def sample(self, expert: Expert, count: int, scale: float) -> tuple[float, float]:
        """One sample's losses; its gradients are added to the adapters'."""
        drawn = draw(self.run.settings, self.draws, len(self.data.clips), expert, count)
        clip, given = self._shown(drawn)
        weight = self.run.settings.audio_weight if clip.audible else 0.0
        with self._ready(expert) as runtime:
            done = training_step(
                self.patchers[expert].model.diffusion_model,
                self.adapters[expert],
                **given,
                fps=DEFAULT_FPS,
                audio_weight=weight,
                runtime=self._cut(runtime, drawn),
                shelf=self.shelf.empty,
                scale=scale,
            )
        return float(done.video_loss), float(done.audio_loss)

    def evaluate(self) -> dict[str, Any]:
        """Mean losses of fixed samples, an expert at a time."""
        found: dict[str, Any] = {"step": self.run.step}
        for expert in self.run.settings.experts:
            pairs = []
            for drawn in fixed_draws(self.run.settings, self.draws, len(self.data.clips), expert):
                _, given = self._shown(drawn)
                with self._ready(expert) as runtime:
                    pairs.append(
                        validation_step(
                            self.patchers[expert].model.diffusion_model,
                            self.adapters[expert],
                            *(
                                (given[f"video_{kind}"], given[f"audio_{kind}"])
                                for kind in ("latents", "noise", "timestep")
                            ),
                            context=given["context"],
                            condition=given["condition"],
                            fps=DEFAULT_FPS,
                            runtime=runtime,
                        )
                    )
            found[expert] = tuple(sum(each) / len(pairs) for each in zip(*pairs, strict=True))
        self.run.evaluations.append(found)
        return found

    def _shown(self, drawn: Draw) -> tuple[training_clips.Clip, dict[str, Tensor]]:
        clip = self.data.clips[drawn.clip]
        self.last_clip = clip.name
        kept = training_clips.media(clip)
        latents = kept["video"], kept["audio"]
        noise = noises(*latents, drawn.noise)
        mask = condition_mask(clip.frames, *latents[0].shape[3:])
        context = training_clips.context(self.data.blank if drawn.drop_caption else clip.prompt)
        given = {
            "video_latents": latents[0],
            "audio_latents": latents[1],
            "video_noise": noise[0],
            "audio_noise": noise[1],
            "video_timestep": drawn.video_timestep,
            "audio_timestep": drawn.audio_timestep,
            "condition": torch.cat((mask, kept["image"]), dim=1),
        }
        placed = {name: tensor.to(self.device) for name, tensor in given.items()}
        return clip, {**placed, "context": context.to(self.device, self.dtype)}

    @contextmanager
    def _ready(self, expert: Expert) -> Iterator[Runtime]:
        """The expert loaded, its weights to come a layer at a time; cancelling is heard within one layer."""
        self.activate(expert)
        windows = Windows(self.device, self.dtype, {"prefetch_dynamic_vbars": True})

        def layer(index: int, call: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()
            return call(video, audio)

        rows = ROWS if self.low else None
        module = self.patchers[expert].model.diffusion_model
        with closing(windows), heads(module, self.device, self.dtype):
            yield Runtime(prefetch=windows, layer=layer, recompute=self.low, ffn_rows=rows, query_rows=rows)

    def _cut(self, runtime: Runtime, drawn: Draw) -> Runtime:
        if not drawn.drop_bridge:
            return runtime
        return Runtime(**{**vars(runtime), "audio_to_video": 0.0, "video_to_audio": 0.0})

    def activate(self, expert: Expert) -> None:
        """Have ComfyUI load an expert, evicting what it must, if it is not the one at work."""
        if self.active == expert:
            return
        needed = budget_of(self.model, self.run.settings, largest(self.data), low=self.low).device - CONTEXT
        with torch.inference_mode():  # as ComfyUI moves weights everywhere else
            comfy.model_management.load_models_gpu(
                [self.patchers[expert]], memory_required=needed, minimum_memory_required=needed
            )
        self.active = expert

    # Files

    def tensors(self) -> dict[str, Tensor]:
        """The LoRA as it is, as stock loaders take it."""
        return files.lora_tensors(self.run.parameters, self.run.settings.alpha, torch.bfloat16)

    def save(self, *, last: bool) -> list[Path]:
        """The LoRA and the state to go on from. A save on the way has the step in its name."""
        settings, saving = self.run.settings, self.saving
        told = {
            "learning_rate": settings.rates.high if "high" in settings.parts else settings.rates.low,
            "optimizer": settings.optimizer,
            "seed": settings.seed,
            "steps": self.run.step,
            "num_train_items": len(self.data.clips),
            "mixed_precision": str(self.dtype).removeprefix("torch."),
            "discrete_flow_shift": self.draws.shift,
            "gradient_accumulation_steps": settings.accumulate,
            "settings": asdict(settings),
        }
        metadata = files.lora_metadata(
            saving.name, self.run.parameters, settings.rank, settings.alpha, told, self.begun
        )
        path = saving.lora if last else saving.at(self.run.step)
        written = files.save_lora(path, self.run.parameters, settings.alpha, metadata, saving.naming)
        files.save_state(saving.state, *self.run.state())
        if not last:
            stem = saving.lora.stem
            files.keep_newest(sorted(path.parent.glob(f"{stem}-{'[0-9]' * 6}{files.SUFFIX}")), saving.keep)
        return written

    # The loop

    def train(self) -> str:
        """All steps that are left. Whatever ends it, what was learned up to the last whole step is kept."""
        settings, bar = self.run.settings, comfy.utils.ProgressBar(self.run.settings.steps)
        begin_peak(self.device)
        saved = self.run.step
        try:
            while self.run.step < settings.steps:
                started = time.perf_counter()
                record = self._advance()
                record.seconds = time.perf_counter() - started
                bar.update_absolute(self.run.step, settings.steps)
                messages.show(self.line(record), self.watching.node_id)
                saved = self._between(saved)
        except BaseException:
            if self.run.step > saved:
                self.save(last=True)
            raise
        self.save(last=True)
        return self.report()

    def _advance(self) -> Record:
        try:
            return self.run.advance(self.sample)
        except LossError as error:
            raise LossError(f"{error} (the last one was {self.last_clip})") from error

    def _between(self, saved: int) -> int:
        """Evaluation, save and preview where they are due; the step that is saved now."""
        step, last = self.run.step, self.run.step == self.run.settings.steps
        if self.watching.evaluate_every and (step % self.watching.evaluate_every == 0 or last):
            self.evaluate()
        if self.saving.every and step % self.saving.every == 0 and not last:
            self.save(last=False)
            saved = step
        every, preview = self.watching.preview_every, self.watching.preview
        if preview is not None and every and (step % every == 0 or last):
            messages.show(preview(self.tensors(), step), self.watching.node_id)
            self.active = None  # sampling loaded what it needed
        return saved

    # Words

    def line(self, record: Record) -> str:
        """`Step 120 of 1000, low: 28.1 s a step, 6 h 52 min to go; picture 0.081, sound 0.412`."""
        done, total = self.run.step, self.run.settings.steps
        recent = self.run.records[-RECENT:]
        pace = sum(each.seconds for each in recent) / len(recent)
        parts = [
            f"Step {done} of {total}, {record.expert}: {pace:.3g} s a step, {format_duration(pace * (total - done))} to go"
        ]
        for expert in self.run.settings.experts:
            own = [each for each in recent if each.expert == expert]
            if own:
                video, audio = (sum(getattr(r, kind) for r in own) / len(own) for kind in ("video", "audio"))
                parts.append(f"{expert}-noise expert: picture {video:.4g}, sound {audio:.4g}")
        peak = device_peak(self.device)
        return "\n".join(parts + ([f"{peak / GIB:.1f} GiB of VRAM at most"] if peak else []))

    def report(self) -> str:
        """The run in words: what was trained, losses of the fixed samples, files."""
        settings, records = self.run.settings, self.run.records
        seconds = sum(record.seconds for record in records)
        lines = [
            f"{self.run.step} steps of {settings.accumulate} samples in {format_duration(seconds)}: "
            f"{', '.join(settings.parts)}, rank {settings.rank}, alpha {settings.alpha:g}, {settings.optimizer}",
            f"{'low-memory' if self.low else 'whole'} path, attention by PyTorch (others give no gradient)",
        ]
        for evaluation in (self.run.evaluations[:1] + self.run.evaluations[-1:])[: len(self.run.evaluations)]:
            told = ", ".join(
                f"{expert} picture {values[0]:.4g} sound {values[1]:.4g}"
                for expert, values in evaluation.items()
                if expert != "step"
            )
            lines.append(f"fixed samples after step {evaluation['step']}: {told}")
        lines.append(f"saved: {self.saving.lora.name}, state in {self.saving.state.parent.name}")
        return "\n".join(lines)

    def loss_map(self) -> dict[str, list[float]]:
        """What ComfyUI's 'Plot Loss Graph' takes."""
        return {"loss": [record.total(self.run.settings.audio_weight) for record in self.run.records]}


def trainer(
    model: Any, data: training_clips.DataSet, settings: Settings, saving: Saving, watching: Watching, memory: str
) -> Trainer:
    """A run that is ready to go, or to go on: everything that can be wrong is said now.

    Raises:
        MovaError: the MODEL, the data set, the device, the disk or the kept state does not fit.
    """
    patchers = experts_of(model, settings)
    check_channels(model, data)
    low = chosen_path(model, settings, largest(data), memory)
    sizes = model.model.sizes
    state = fresh(sizes, settings.parts, settings.rank, generator(settings.seed, "adapters"), settings.layers)
    values = sum(parameter.numel() for parameter in state.values())
    files.check_room(saving.lora.parent, 2 * values * (2 + saving.keep))
    files.check_room(saving.folder, 2 * 12 * values)  # the state there is, and the one that takes its place
    check_host_memory(kept(sizes, Workload.of(largest(data)), model.model.element))
    device = model.load_device
    placed = {name: torch.nn.Parameter(parameter.detach().to(device)) for name, parameter in state.items()}
    run = Run.begin(settings, placed)
    if saving.state.is_file() and not saving.again:
        run.restore(*files.load_state(saving.state))
    return Trainer(model, data, run, saving, watching, low, patchers)


def check_host_memory(needed: float) -> None:
    """Accept a clip whose layers' inputs have room in host memory, beside the weights that are there.

    Raises:
        MovaError: they have not.
    """
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MovaError(
            f"a step keeps {needed / GIB:.1f} GiB of layers' inputs in host memory, of which {free / GIB:.1f} are free: "
            "fewer pictures, a smaller size, or int8 weights leave more"
        )


def check_channels(model: Any, data: training_clips.DataSet) -> None:
    """Accept a data set that this model's encoders made.

    Raises:
        MovaError: its latents or prompts have other sizes.
    """
    sizes, clip = model.model.sizes, data.clips[0]
    kept, width = training_clips.media(clip), training_clips.context(clip.prompt).shape[-1]
    found = kept["video"].shape[1], kept["audio"].shape[1], width
    wanted = sizes.video.out_channels, sizes.audio.in_channels, sizes.video.text_width
    if found != wanted:
        raise MovaError(
            f"the data set has {found} channels of picture, sound and text, this MODEL {wanted}; make it with the VAEs and "
            "the CLIP of the same 'MOVA Loader'"
        )


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
    model: Any, data: training_clips.DataSet, settings: Settings, saving: Saving, watching: Watching, memory: str
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
            if made.run.records:
                curve(saving.lora.with_suffix(".png"), made.run.records, made.run.evaluations)
        return made.tensors(), made.loss_map(), report
