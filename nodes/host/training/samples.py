"""Samples of a run, each shown to its expert: the experts loaded in turn, clips read, noise drawn.

The model is called directly, not through a sampler: its patches, hooks, schedules and caches play no part.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import comfy.model_management
import torch
from torch import Tensor

from ....mova_core.image import condition_mask
from ....mova_core.ops import LayerCall, Runtime
from ....mova_core.sampling.schedule import Expert
from ....mova_core.shapes import DEFAULT_FPS
from ....mova_core.training.adapters import Adapters
from ....mova_core.training.budget import CONTEXT, RECOMPUTED_ROWS
from ....mova_core.training.noise import Draws, noises
from ....mova_core.training.run import Draw, Evaluation, Run, draw, fixed_draws
from ....mova_core.training.step import training_step, validation_step
from ..patching.patcher import MovaPatcher
from . import data_set
from .checks import budget_of, host_memory, largest
from .weights import SHELF_GRAIN, HostShelf, Windows, heads


@dataclass
class Samples:
    """Of a data set, shown to a MODEL whose experts carry the run's adapters."""

    model: MovaPatcher
    data: data_set.DataSet
    run: Run
    low: bool
    patchers: dict[Expert, MovaPatcher]
    adapters: dict[Expert, Adapters] = field(default_factory=dict)
    active: Expert | None = None
    last_clip: str = ""

    def __post_init__(self) -> None:
        settings, base = self.run.settings, self.model.model
        scheduler, shifts = base.model_config.scheduler, base.model_config.sampling_settings
        self.draws = Draws.of(
            scheduler, shifts["audio_shift"], settings.seed, strata=settings.strata, separate=settings.separate
        )
        self.device = torch.empty(0, device=self.model.load_device).device  # as tensors there say it
        self.dtype = base.get_dtype_inference()
        grains = 2 * base.sizes.video.layers * SHELF_GRAIN
        self.shelf = HostShelf(self.device, host_memory(self.model, self.data) + grains)
        for expert, patcher in self.patchers.items():
            module = patcher.model.diffusion_model
            self.adapters[expert] = Adapters.attach(module, self.run.parameters, settings.alpha, expert)

    def close(self) -> None:
        """Give back what a run holds of the host's memory."""
        self.shelf.close()

    def learn(self, expert: Expert, count: int, scale: float) -> tuple[float, float]:
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

    def evaluate(self) -> Evaluation:
        """Mean losses of fixed samples, an expert at a time."""
        found: Evaluation = {"step": self.run.step}
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

    def _shown(self, drawn: Draw) -> tuple[data_set.Clip, dict[str, Tensor]]:
        clip = self.data.clips[drawn.clip]
        self.last_clip = clip.name
        kept = data_set.media(clip)
        latents = kept["video"], kept["audio"]
        noise = noises(*latents, drawn.noise)
        mask = condition_mask(clip.frames, *latents[0].shape[3:])
        context = data_set.context(self.data.blank if drawn.drop_caption else clip.prompt)
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

        rows = RECOMPUTED_ROWS if self.low else None
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
