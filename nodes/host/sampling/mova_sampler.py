"""A run of 'MOVA Sampler': from its settings to schedules, sampler, guidance, what watches it, and the LATENT."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor

from ....mova_core.errors import MovaError
from ....mova_core.sampling.guidance import Guidance
from ....mova_core.sampling.schedule import Span
from ....mova_core.shapes import VideoShape
from ....mova_core.waveform import clip_samples
from .. import checks, joint_latents, messages
from ..experts import every_run
from ..loaders.audio_vae import MovaAudioVAE
from ..machine.profiling import Progress
from ..model.bridge_cache import Keeping
from ..patching.patcher import MovaPatcher
from ..types import Conditioning, Latent
from . import guiders, long_runs, samplers
from .audio_preview import AudioPreview
from .collapse_guard import CollapseError, first_spread, sample_guarded
from .long_runs import Node
from .samplers import Watcher

LEAST_DENOISE = 0.01  # the run that a share of is walked has steps / denoise steps
NOT_COMPUTED_WITH = {
    "listen_every",
    "resume",
    "keep_every",
    "keep_minutes",
}  # settings that change nothing of the result


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """The widgets of 'MOVA Sampler', as its schema explains them."""

    seed: int
    steps: int
    cfg: float
    shift: float
    audio_shift: float
    sampler: str
    scheduler: str
    denoise: float
    bridge_cfg: float = 1.0
    audio_cfg: float = 0.0
    audio_denoise: float = 0.0
    collapse_guard: str = "off"
    listen_every: int = 0
    audio_substeps: int = 1
    resume: str = long_runs.AUTO
    keep_every: int = 1
    keep_minutes: int = 0

    @property
    def guidance(self) -> Guidance:
        return Guidance(text_scale=self.cfg, audio_text_scale=self.audio_cfg or None, bridge_scale=self.bridge_cfg)

    @property
    def two_schedules(self) -> bool:
        """Whether the sound walks a schedule that no shift ties to the picture's."""
        return self.audio_denoise not in (0.0, self.denoise) or self.audio_substeps > 1


def run(
    model: MovaPatcher,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    settings: SamplerSettings,
    *,
    audio_vae: MovaAudioVAE | None = None,
    node: Node = long_runs.NOWHERE,
) -> tuple[Latent, int]:
    """The sampled LATENT, and the seed it was made with.

    Raises:
        MovaError: settings that do not go together, or what sampling raises.
    """
    if settings.listen_every and audio_vae is None:
        raise MovaError("listen_every needs the audio VAE: connect the AUDIO VAE of 'MOVA Loader', or set it to 0")
    shifted, values, audio_values = schedules(model, settings, joint_latents.video_shape(latent))
    guider = guiders.guider(shifted, positive, negative, settings.guidance, Span())
    sampler = samplers.sampler_of(settings.sampler, audio_values, settings.audio_substeps)
    long_run = _long_run(shifted, (positive, negative), latent, settings, (values, audio_values), node)
    unkept = long_runs.not_kept(settings.sampler, settings.resume)
    if unkept:
        messages.show(unkept, node.node_id)
    notes = [partial(str, unkept) if long_run is None else long_run.said]
    sample = partial(
        sample_guarded,
        guider,
        latent,
        seed=settings.seed,
        sampler=sampler if long_run is None else long_run.around(sampler),
        values=values,
        action=settings.collapse_guard,
        first=first_spread(shifted, positive) if settings.collapse_guard != "off" else None,
        watchers=watchers(shifted, latent, values, settings, audio_vae, node.node_id, notes),
        begin=None if long_run is None else long_run.seed(settings.seed),
    )
    made, kept = sample() if long_run is None else _kept_on_its_way(long_run, sample)
    if kept != settings.seed:
        messages.show(f"Seed {settings.seed} turned into flat colour; made with seed {kept}.", node.node_id)
    return made, kept


def _kept_on_its_way(long_run: long_runs.LongRun, sample: Callable[[], tuple[Latent, int]]) -> tuple[Latent, int]:
    """What `sample` gives, or a clip that was left by the same run before; what was kept goes when it is of no more use."""
    try:
        return long_run.completed(sample)
    except CollapseError:
        long_run.forget()
        raise


def _long_run(
    model: MovaPatcher,
    conds: tuple[Conditioning, Conditioning],
    latent: Latent,
    settings: SamplerSettings,
    schedules: tuple[Tensor, Tensor | None],
    node: Node,
) -> long_runs.LongRun | None:
    """What keeps this run on its way; None where nothing does."""
    way = "steps" if settings.two_schedules else long_runs.way_of(settings.sampler, settings.resume)
    widgets = {name: value for name, value in asdict(settings).items() if name not in NOT_COMPUTED_WITH}
    inputs = {"model": model, "positive": conds[0], "negative": conds[1], "noise schedule": schedules, **widgets}
    keeping = long_runs.StepKeeping(mode=settings.resume, every=settings.keep_every, minutes=settings.keep_minutes)
    return long_runs.long_run(inputs, latent, way, keeping, node, model.model_options)


def schedules(
    model: MovaPatcher, settings: SamplerSettings, shape: VideoShape
) -> tuple[MovaPatcher, Tensor, Tensor | None]:
    """The model with its shifts, the video's sigmas, and the audio's where they are its own."""
    shift, audio_shift = samplers.shifts_of(model, settings.shift, settings.audio_shift, shape)
    shifted = samplers.with_shifts(model, shift, shift if settings.two_schedules else audio_shift)
    if settings.audio_substeps > 1:
        shifted = samplers.with_keeping(shifted, Keeping(settings.guidance.evaluations))
    walk = partial(samplers.schedule, shifted, settings.scheduler)
    values = walk(settings.steps, shift, settings.denoise)
    if not settings.two_schedules:
        return shifted, values, None
    share = settings.audio_denoise or settings.denoise
    if share < LEAST_DENOISE:
        raise MovaError(
            f"audio_denoise: {share:g} leaves nothing to make; give 0, as the picture, or {LEAST_DENOISE:g} to 1"
        )
    audio = samplers.audio_schedule(
        shifted, settings.scheduler, settings.steps, shift, audio_shift, share, settings.audio_substeps
    )
    return shifted, values, audio


def watchers(
    model: MovaPatcher,
    latent: Latent,
    values: Tensor,
    settings: SamplerSettings,
    audio_vae: MovaAudioVAE | None,
    node_id: str | None,
    more: Iterable[Callable[[], str]] = (),
) -> list[Watcher]:
    """What is told of each step: the preview of the sound where one is wanted, and the pace with it and `more` beneath."""
    found: list[Watcher] = []
    notes: list[Callable[[], str]] = [*more, partial(str, every_run.wrong_side(model, values) or "")]
    if settings.listen_every and audio_vae is not None:
        samples = clip_samples(
            joint_latents.video_shape(latent).frames, checks.frame_rate(latent), audio_vae.audio_sample_rate
        )
        preview = AudioPreview(model, audio_vae, every=settings.listen_every, samples=samples)
        found.append(preview)
        notes.append(preview.shown)
    beside = partial(_lines, notes)
    return [*found, Progress(model.load_device, node_id, beside)]


def _lines(notes: Iterable[Callable[[], str]]) -> str:
    return "\n".join(filter(None, (note() for note in notes)))
