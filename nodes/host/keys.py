"""Every key by which this host, the core and ComfyUI talk about a MODEL, a run or a LATENT.

| key | where it stands | what it holds |
|---|---|---|
| `EXPERT` | attachment of a patcher | "high" or "low"; absent where nothing says which |
| `BOUNDARY` | attachment of a MODEL of two experts | video sigma below which the low-noise expert works |
| `OWN_OPTIONS` | attachment of a MODEL of two experts | (high, low): what each expert's model options were when they were joined |
| `SOURCE_FILES` | attachment of a MODEL | part -> files it was read from |
| `TIMELINE` | attachment of a MODEL, key of its wrappers | moments of the last run |
| `LOW_NOISE` | additional model, key of a wrapper | the low-noise expert's patcher; the wrapper that changes experts |
| `COPIES` | additional models, ComfyUI's own key | copies of a MODEL on other devices |
| `BY_DEVICE` | model option of a run, ComfyUI's own key | device -> patcher, the MODEL's own included |
| `EVERY_RUN` | key of wrappers | what a MODEL carries from the beginning |
| `RUN` | transformer option | a frozen `RunOptions`: all that this pack says to a forward |
| `AUDIO_CONTEXT` | conditioning value | embeddings that the audio tower reads instead |
| `AUDIO_STEPS` | conditioning value | audio steps of the clip that the conditioning was made for |
| `AUDIO_NEGATIVE` | model conditioning | embeddings that a second stream of the sound reads |
| `NO_PICTURE` | conditioning value | that the first frame is the white one that stands for no picture |
| `CLEAN_STREAMS` | model conditioning | whether (video, audio) are shown clean, at timestep 0 |

Of ComfyUI's own options a forward reads `patches`, `patches_replace`, `block_index`, `rope_options`, `sigmas`, `uuids`,
`context_window`, `stg_self_attn_blocks`, `a2v_cross_attn` and `v2a_cross_attn`. A LATENT is `samples`, `noise_mask`,
`batch_index`, `frame_rate` and, of ours, `AUDIO_RATE`: audio steps a second, by the codec it was made for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ...mova_core.estimate import ChunkSizes
from ...mova_core.sampling.bridge_strength import BridgeStrength

if TYPE_CHECKING:
    from .experts.unasked import Unasked
    from .model.bridge_cache import BridgeCache, Keeping
    from .model.pass_weights import PassWeights
    from .model.sparse import SparseSpan

Options: TypeAlias = dict[str, Any]
"""ComfyUI's model options or transformer options: whatever anybody puts there."""

EXPERT = "mova_expert"
BOUNDARY = "mova_boundary"
OWN_OPTIONS = "mova_own_options"
SOURCE_FILES = "mova_files"
TIMELINE = "mova_timeline"
LOW_NOISE = "mova_low_noise"
COPIES = "multigpu"
BY_DEVICE = "multigpu_clones"
EVERY_RUN = "mova_every_run"
RUN = "mova"
AUDIO_CONTEXT = "mova_audio_context"
AUDIO_NEGATIVE = "audio_negative"
CLEAN_STREAMS = "clean_streams"
AUDIO_STEPS = "mova_audio_steps"
NO_PICTURE = "mova_no_picture"
AUDIO_RATE: Final = "audio_steps_per_second"


Forward: TypeAlias = Literal["full", "audio", "teacher"]
"""A whole forward; the audio tower alone, asking what the cache holds; or one that only fills the cache."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What this pack says to a forward."""

    chunks: ChunkSizes | None = None  # None: chosen for each run
    bridge: tuple[BridgeStrength, ...] = ()  # these multiply
    audio_sigma: float | None = None  # the audio's noise level, where no shift ties it to the video's
    keeping: "Keeping | None" = None  # what a run keeps for steps of the sound alone
    eight_bits: bool | None = None  # whether it keeps them in eight bits; None: where the model has sixteen
    keeping_room: float = math.inf  # bytes on the device that it has for that, as planned
    sound_room: float = 0.0  # bytes that the sound's own steps have for weights that stay from one to the next
    bridge_cache: "BridgeCache | None" = None  # where a run keeps the keys and values by which the audio asks the video
    forward: Forward = "full"
    text_scale: float | None = None  # text guidance of this step, where it is not the guider's
    audio_scale: float | None = None  # of the sound, within one forward: a second stream reads the negative prompt
    weights: "PassWeights | None" = None  # LoRAs of this forward alone
    sparse: "SparseSpan | None" = None  # self-attention of the video
    idle: "Unasked | None" = None  # what of a run has no effect


NOTHING_ASKED = RunOptions()


def run_options(options: Mapping[str, Any]) -> RunOptions:
    """What transformer options hold of ours."""
    found: RunOptions = options.get(RUN, NOTHING_ASKED)
    return found


def asking(options: Options, **changes: Any) -> Options:
    """A copy of transformer options that asks for more of ours."""
    return {**options, RUN: replace(run_options(options), **changes)}
