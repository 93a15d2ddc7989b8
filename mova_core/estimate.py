"""What a forward pass costs before it is run: memory, work, time. Arithmetic on sizes, no tensor.

Memory is that of fused attention and rotary kernels; benchmarks/peak.py counts it, and tests hold these formulas to
the count. Work is exact: multiplications and additions of matrix products and of attention.

Axes: B batch, L video tokens, A audio tokens, S text rows, D width, F feed-forward width, N heads, K head width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .config import MovaConfig, TowerConfig
from .sampling.fast import Recipe
from .shapes import (
    DEFAULT_FPS,
    PUBLISHED_GRID,
    SIZE_MULTIPLE,
    AudioGrid,
    VideoShape,
    audio_steps,
    frames_of,
    latent_frames,
    video_tokens,
)
from .text import CONTEXT_ROWS

MARGIN = 1.1  # of the allocator, and of the kernels' own workspace
LAYERS_IN_FLIGHT = 2  # streamed weights: the layer that computes and the one on its way
ROW_STATES = 4.3  # hidden states of a chunk of queries alive at once: modulated, projected, normed, attended to
SOUND_PAIRS = 3.5  # keys and values of a layer: what a step of the sound alone has alive, two streams included
FLOAT = 4  # bytes
LONG_SECONDS = 300.0  # of a run: one that takes longer is kept on its way


@dataclass(frozen=True, kw_only=True)
class ChunkSizes:
    """Tokens at once in the feed-forward layer, and queries at once in attention (None: all of them)."""

    feed_forward: int | None
    queries: int | None


FULL = ChunkSizes(feed_forward=16384, queries=None)
"""Chunks far past what saturates a GPU; at most 0.5 GiB of wide activation at full size."""
CHUNKED = ChunkSizes(feed_forward=8192, queries=8192)
"""About 0.65 of the memory. Keys and values are whole, everything else comes in chunks."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one forward is asked to do."""

    video: int  # tokens of one sample
    audio: int
    batch: int = 1
    text: int = CONTEXT_ROWS

    @classmethod
    def of(cls, shape: VideoShape, fps: float = DEFAULT_FPS, grid: AudioGrid = PUBLISHED_GRID) -> "Workload":
        """The load of a clip with its sound."""
        return cls(video=video_tokens(shape), audio=audio_steps(shape.frames, fps, grid), batch=shape.batch)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating point operations of one forward."""

    matrix: int
    attention: int

    @property
    def total(self) -> int:
        return self.matrix + self.attention


def activations(
    config: MovaConfig, load: Workload, rows: ChunkSizes, element: int = 2, *, quantised: bool = False
) -> float:
    """Bytes alive at the peak of a forward, weights apart, for values of `element` bytes.

    `quantised` attention (sage) makes 8-bit copies of the queries, keys and values it is given.
    """
    tower, tokens = config.video, load.batch * load.video
    row, latents = tower.width * element, tower.in_channels * _patch(tower) * FLOAT
    always = tokens * latents + load.video * tower.head_width // 2 * 4 * FLOAT  # inputs; rotary table of 2x2 matrices
    copies = tower.width if quantised else 0
    if rows.queries is None or rows.queries >= load.video:
        attention = float(tokens * (5 * row + 3 * copies + tower.heads * FLOAT))  # x, q, k, v and the result
    else:
        chunk = load.batch * rows.queries
        attention = tokens * (3 * row + 2 * copies) + chunk * (ROW_STATES * row + copies)  # x, k and v
    chunk = load.batch * min(load.video, rows.feed_forward or load.video)
    feed_forward = tokens * row + chunk * (2 * row + tower.ffn_width * element)
    return always + max(attention, feed_forward)


def required(
    config: MovaConfig, load: Workload, rows: ChunkSizes, layer: int, element: int = 2, **kernels: bool
) -> float:
    """Bytes of a device that a forward needs when every weight is streamed; `layer` is one layer's weights in bytes."""
    return MARGIN * activations(config, load, rows, element, **kernels) + LAYERS_IN_FLIGHT * layer


def decode_bytes(shape: VideoShape, element: int = 2) -> int:
    """Bytes that ComfyUI asks for before it decodes a clip whole with Wan's video VAE.

    Source: ComfyUI `comfy/sd.py`; of few latent frames the decoder holds less.
    """
    few = latent_frames(shape.frames) <= 4
    return (2200 if few else 7000) * shape.height * shape.width * element


def kept_keys_values(config: MovaConfig, load: Workload, element: int = 2) -> int:
    """Bytes of the keys and values by which the audio asks the video, of all layers, for values of `element` bytes."""
    return 2 * config.bridge.layers * load.batch * load.video * config.audio.width * element


def sound_room(
    config: MovaConfig, load: Workload, rows: ChunkSizes, layer: int, element: int = 2, **kernels: bool
) -> float:
    """Bytes of what a forward needs that the sound's own steps leave free, for weights that stay between them."""
    asked = SOUND_PAIRS * kept_keys_values(config, load, element) / config.bridge.layers
    return max(0.0, required(config, load, rows, layer, element, **kernels) - MARGIN * asked)


def choose(
    config: MovaConfig, load: Workload, capacity: float, layer: int, element: int = 2, **kernels: bool
) -> ChunkSizes:
    """FULL where it fits into `capacity` bytes, else CHUNKED."""
    return FULL if required(config, load, FULL, layer, element, **kernels) <= capacity else CHUNKED


def work(config: MovaConfig, load: Workload) -> Work:
    """Operations of one forward."""
    video, audio = config.video, config.audio
    matrix = _ends_matrix(video, load.video, load.text) + _ends_matrix(audio, load.audio, load.text)
    layers = _layers_work(config, load, video.layers, audio.layers, config.bridge.layers)
    return Work(matrix=load.batch * (matrix + layers.matrix), attention=load.batch * layers.attention)


def _layers_work(config: MovaConfig, load: Workload, video: int, audio: int, bridge: int) -> Work:
    """Of so many blocks of each tower and layers of the bridge, for one sample."""
    d, e, tokens, steps, text = config.video.width, config.audio.width, load.video, load.audio, load.text
    matrix = video * _block_matrix(config.video, tokens, text) + audio * _block_matrix(config.audio, steps, text)
    matrix += bridge * 2 * (tokens * (2 * d * d + 2 * d * e) + steps * (2 * e * e + 2 * e * d))
    attention = 4 * video * d * tokens * (tokens + text) + 4 * audio * e * steps * (steps + text)
    attention += 4 * bridge * tokens * steps * (d + e)
    return Work(matrix=matrix, attention=attention)


def audio_only_work(config: MovaConfig, load: Workload, streams: int = 1) -> Work:
    """Operations of one evaluation of the audio tower alone, which asks the kept keys and values."""
    audio, bridge, e, steps = config.audio, config.bridge, config.audio.width, load.audio
    matrix = _tower_matrix(audio, steps, load.text) + bridge.layers * 2 * steps * 2 * e * e
    attention = 4 * audio.layers * e * steps * (steps + load.text) + 4 * bridge.layers * load.video * steps * e
    return Work(matrix=streams * load.batch * matrix, attention=streams * load.batch * attention)


def teacher_work(config: MovaConfig, load: Workload, start: int = 0) -> Work:
    """Operations of a forward from layer `start` that only collects keys and values, into the last joint layer."""
    last = config.bridge.layers - 1
    if start > last:
        return Work(matrix=0, attention=0)
    ran = last - start
    layers = _layers_work(config, load, ran, ran, ran)
    matrix = _ends_matrix(config.video, load.video, load.text) + _ends_matrix(config.audio, load.audio, load.text)
    matrix += layers.matrix + 2 * load.video * 2 * config.video.width * config.audio.width
    return Work(matrix=load.batch * matrix, attention=load.batch * layers.attention)


def recipe_work(config: MovaConfig, load: Workload, recipe: Recipe, attended: float = 1.0) -> Work:
    """Operations of a whole run: evaluations, the teacher's, and the sound's own steps with two streams.

    `attended`: the share of the video's self-attention that is computed, the teacher's as well.
    """
    parts = [(recipe.evaluations, thinned(config, load, attended))]
    if recipe.substeps:
        streams = 1 if recipe.audio_scale == 1 else 2
        parts.append((recipe.steps * recipe.substeps, audio_only_work(config, load, streams)))
    if recipe.teacher is not None:
        taught, layers = teacher_work(config, load, recipe.teacher), config.bridge.layers - 1 - recipe.teacher
        parts.append((recipe.steps, _without(taught, config, load, attended, max(0, layers))))
    return Work(matrix=sum(n * w.matrix for n, w in parts), attention=sum(n * w.attention for n, w in parts))


def _tower_matrix(tower: TowerConfig, tokens: int, text: int) -> int:
    return tower.layers * _block_matrix(tower, tokens, text) + _ends_matrix(tower, tokens, text)


def _ends_matrix(tower: TowerConfig, tokens: int, text: int) -> int:
    """Before and after the blocks."""
    d, patch = tower.width, _patch(tower)
    ends = tokens * d * patch * (tower.in_channels + tower.out_channels)
    prompt = text * d * (tower.text_width + d)
    time = d * (tower.frequency_width + d) + 6 * d * d
    return 2 * (ends + prompt + time)


def _block_matrix(tower: TowerConfig, tokens: int, text: int) -> int:
    d = tower.width
    return 2 * (tokens * (6 * d * d + 2 * d * tower.ffn_width) + text * 2 * d * d)


def _patch(tower: TowerConfig) -> int:
    """Latent positions of a token."""
    return math.prod(tower.patch)


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of one operation of a matrix product, and of one of attention, with what goes with each."""

    matrix: float
    attention: float


def block_work(tower: TowerConfig, tokens: int, text: int = CONTEXT_ROWS) -> Work:
    """Operations of one block of a tower."""
    return Work(matrix=_block_matrix(tower, tokens, text), attention=4 * tower.width * tokens * (tokens + text))


def fit_throughput(few: tuple[Work, float], many: tuple[Work, float]) -> Throughput:
    """From the work and seconds of a shorter and a longer pass. Where noise leaves no room for one term, it is 0."""
    (less, short), (more, long) = few, many
    rise = more.attention * less.matrix - less.attention * more.matrix
    attention = (long * less.matrix - short * more.matrix) / rise
    attention = min(max(attention, 0.0), short / less.attention)
    return Throughput(matrix=(short - attention * less.attention) / less.matrix, attention=attention)


def forward_seconds(config: MovaConfig, load: Workload, measured: Throughput, attended: float = 1.0) -> float:
    """Seconds of one forward at that speed, of whose video self-attention the share `attended` is computed."""
    done = thinned(config, load, attended)
    return measured.matrix * done.matrix + measured.attention * done.attention


def thinned(config: MovaConfig, load: Workload, attended: float) -> Work:
    """Operations of one forward where the video's self-attention is sparse: the share `attended` of it is left."""
    return _without(work(config, load), config, load, attended, config.video.layers)


def _without(done: Work, config: MovaConfig, load: Workload, attended: float, layers: int) -> Work:
    own = 4 * layers * config.video.width * load.batch * load.video**2
    return replace(done, attention=done.attention - round((1 - attended) * own))


def longest(
    config: MovaConfig,
    shape: VideoShape,
    capacity: float,
    layer: int,
    rows: ChunkSizes,
    element: int = 2,
    load: Callable[[VideoShape], Workload] = Workload.of,
    **kernels: bool,
) -> int:
    """The most frames of the size of `shape` that fit into `capacity` bytes; 0 if not even one does. `load` is that of
    a clip at its frame rate and with its codec."""

    def fits(count: int) -> bool:
        clip = replace(shape, frames=frames_of(count))
        return required(config, load(clip), rows, layer, element, **kernels) <= capacity

    count = _most(fits)
    return frames_of(count) if count else 0


def largest(
    config: MovaConfig,
    shape: VideoShape,
    capacity: float,
    layer: int,
    rows: ChunkSizes,
    element: int = 2,
    load: Callable[[VideoShape], Workload] = Workload.of,
    **kernels: bool,
) -> tuple[int, int]:
    """The largest (width, height) of about the proportions of `shape` whose frames fit; (0, 0) if none does."""

    def sides(height: int) -> tuple[int, int]:
        width = max(1, round(height * shape.width / shape.height)) * SIZE_MULTIPLE
        return width, height * SIZE_MULTIPLE

    def fits(height: int) -> bool:
        width, tall = sides(height)
        clip = replace(shape, width=width, height=tall)
        return required(config, load(clip), rows, layer, element, **kernels) <= capacity

    height = _most(fits)
    return sides(height) if height else (0, 0)


def _most(fits: Callable[[int], bool], limit: int = 1 << 16) -> int:
    """The largest n up to `limit` for which `fits(n)`, which holds up to some n and not beyond; 0 if for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
