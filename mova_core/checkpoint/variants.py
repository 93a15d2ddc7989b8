"""Where a file keeps the parts of the joint model, and the variants of MOVA: a key table and defaults for each.

A part is one of the published components. A file names the parts of its weights by prefix; without one they are the
video tower's, under Wan's names, which is how Wan's LoRAs, loaders and merges fit them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config import MOVA_SCHEDULER, SchedulerConfig
from ..image import MOVA_FIT, PRISM_FIT, PictureFit
from .keys import Rows, V
from .lora_keys import WRAPPED

SMALLEST_SHARE = 0.85  # of the smallest height that a shift is stated for, below which none is: 480p is not 720p

HIGH, LOW, AUDIO, BRIDGE = "video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"
MODEL_PARTS = (HIGH, LOW, AUDIO, BRIDGE)

CONTAINERS = re.compile(r"^((model\.)?diffusion_model|model|net)\.")
"""What saving nodes and trainers put before every key."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Shifts of picture and sound, and the shortest and longest clip, that a model was trained with."""

    shift: float
    audio_shift: float
    frames: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ModelVariant:
    """A model of MOVA's architecture. `key_prefix` begins keys that only its files have; `rows` lead to MOVA's names.

    In `rows`, <+n> is n counted on from the number of layers that both towers have. `header_prefix` begins what its
    files say of themselves in their header. `scheduler` and `audio_shift` are what it is run with, on `frames` frames;
    `trained` is what it was trained with. `shifts` are the video's by height: (pixels, from, to). `fit` brings a first
    picture to size.
    """

    name: str
    key_prefix: str
    header_prefix: str
    rows: Rows
    scheduler: SchedulerConfig
    audio_shift: float
    frames: int
    trained: Training
    shifts: tuple[tuple[int, float, float], ...] = ()
    fit: PictureFit = MOVA_FIT

    def shift_at(self, height: int, width: int) -> float:
        """The video's shift at a size: the least that is stated for the nearest, by the shorter side; else its own."""
        if not self.shifts or min(height, width) < SMALLEST_SHARE * self.shifts[0][0]:
            return self.scheduler.shift
        _, shift, _ = min(self.shifts, key=lambda stated: abs(stated[0] - min(height, width)))
        return shift

    def told(self, shift: float, audio_shift: float) -> str:
        """What it is run with and was trained with, for the loader's node."""
        text = f"{self.name}, run with shift {shift:g}, audio_shift {audio_shift:g}, on {self.frames} frames"
        spans = [f"shift {_span(low, high)} at {height}p" for height, low, high in self.shifts]
        if (shift, audio_shift) != (self.trained.shift, self.trained.audio_shift):
            frames = _span(*self.trained.frames)
            trained = f"trained with {self.trained.shift:g} and {self.trained.audio_shift:g} on {frames} frames"
            spans = [trained, *spans]
        return f"{text} ({'; '.join(spans)})" if spans else text


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


PLAIN_MOVA = ModelVariant(
    name="MOVA",
    key_prefix="",
    header_prefix="",
    rows=(),
    scheduler=MOVA_SCHEDULER,
    audio_shift=MOVA_SCHEDULER.shift,
    frames=193,
    trained=Training(shift=MOVA_SCHEDULER.shift, audio_shift=MOVA_SCHEDULER.shift, frames=(193, 193)),
)
PRISM = ModelVariant(
    name="Prism",
    key_prefix="fusion_blocks.",
    header_prefix="prism.",
    rows=(
        (r"^fusion_blocks\.(\d+)\.video_block\.", r"video_dit.blocks.\1."),
        (r"^fusion_blocks\.(\d+)\.audio_block\.", r"audio_dit.blocks.\1."),
        (r"^fusion_blocks\.(\d+)\.a2v_conditioner\.", r"dual_tower_bridge.audio_to_video_conditioners.\1."),
        (r"^fusion_blocks\.(\d+)\.v2a_conditioner\.", r"dual_tower_bridge.video_to_audio_conditioners.\1."),
        (r"^remaining_video_blocks\.(\d{1,5})\.", r"video_dit.blocks.<+\1>."),
    ),
    scheduler=SchedulerConfig(shift=9.0, sigma_min=0.0, boundary=0.9),
    audio_shift=7.0,
    frames=205,
    trained=Training(shift=9.0, audio_shift=5.0, frames=(49, 289)),
    shifts=((720, 7.0, 7.0), (1080, 9.0, 13.0), (1440, 13.0, 17.0)),
    fit=PRISM_FIT,
)
"""Tencent's derivative of MOVA-360p: the layers of both towers and the bridge fused under other names, 3735 tensors.
The audio tower may read a prompt of its own. Its block-sparse attention is a choice at run time and no weight.

Source: the layout of the published checkpoint as read by Comfy-Org/ComfyUI at 667a5de (structure tests, loader);
Tencent-Hunyuan/Prism d8a969b, its scripts of inference (9 and 7 on 205 frames) and training configurations.
"""

VARIANTS = (PRISM, PLAIN_MOVA)


def plain_name(key: str) -> str:
    """`key` without what a saving node put before it, and what torch.compile and sharding put into it."""
    return CONTAINERS.sub("", WRAPPED.sub("", key))


def variant_of(keys: Iterable[str], metadata: Mapping[str, str]) -> ModelVariant:
    """The variant whose files have such keys, or such words in their header."""
    names = [plain_name(key) for key in keys]
    for variant in VARIANTS:
        if any(name.startswith(variant.key_prefix) for name in names if variant.key_prefix):
            return variant
        if any(word.startswith(variant.header_prefix) for word in metadata if variant.header_prefix):
            return variant
    return PLAIN_MOVA


def parts(entries: Mapping[str, V]) -> dict[str, dict[str, V]]:
    """The entries of a file by part, under the names of the part's own published file. Empty parts are left out."""
    variant = variant_of(entries, {})
    prefix = variant.key_prefix
    shared_layers = len(
        {plain_name(key).split(".")[1] for key in entries if prefix and plain_name(key).startswith(prefix)}
    )
    found: dict[str, dict[str, V]] = {}
    for key, value in entries.items():
        name = plain_name(key)
        for pattern, replacement in variant.rows:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"<\+(\d{1,5})>", lambda m: str(int(m[1]) + shared_layers), name)
        head, _, rest = name.partition(".")
        part, name = (head, rest) if head in MODEL_PARTS else (HIGH, name)
        found.setdefault(part, {})[name] = value
    return found
