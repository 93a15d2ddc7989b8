"""What a training step costs before it is run: device memory, host memory, work. Arithmetic on sizes, no tensor.

The formulas are held to counts on the meta device (benchmarks/peak.py) by tests. A step is a forward, each layer again,
and the way back through it, where frozen weights cost the half of what trained ones would: three times the forward's
matrix products, and four and a half times its attention.

Axes: D video width, F feed-forward width, E audio width.
"""

from collections.abc import Collection
from dataclasses import dataclass

from ..config import MovaConfig
from ..estimate import LAYERS_IN_FLIGHT, Work, Workload, block_work, work
from .adapters import targets

# Of the hidden states alive at the peak, for each video token:
STATES, WIDE, BRIDGED = 23.4, 3, 3  # of width D, F and E, where all of a layer is kept
LOW_STATES, LOW_ATTENDING = 19.3, 22.5  # of width D, with recomputed rows, in the feed-forward and in attention
LOW_ROWS = 6.6  # of width D, for each token of a chunk, beside WIDE of width F
RECOMPUTED_ROWS = 8192  # tokens of a chunk that is recomputed
PARAMETER_BYTES = 4 + 4  # bytes of a LoRA parameter and its gradient, float32
MOMENTS = {"adamw": 8.0, "adamw8bit": 2.04}  # bytes of both moments of a parameter
CONTEXT = 0.6 * 2**30  # bytes that CUDA and its libraries take
PINNED = 6e9  # bytes of host memory for everything else: Python, ComfyUI, text and pictures in passing


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of one training step. `device` is the sum of what follows; `inputs` lie in host memory."""

    activations: float
    streamed: float  # layers in flight
    adapters: float  # parameters, gradients and moments, of both experts
    inputs: float  # of all layers, kept for the way back

    @property
    def device(self) -> float:
        return self.activations + self.streamed + self.adapters + CONTEXT


def budget(
    config: MovaConfig,
    load: Workload,
    *,
    layer: int,
    parts: Collection[str],
    rank: int,
    layers: str = "all",
    optimizer: str = "adamw",
    low: bool = False,
    element: int = 2,
) -> Budget:
    """Of a step on `load`; `layer` is one layer's weights in bytes as they lie on the device."""
    return Budget(
        activations=activations(config, load, low=low, element=element),
        streamed=LAYERS_IN_FLIGHT * layer,
        adapters=parameters(config, parts, rank, layers) * (PARAMETER_BYTES + MOMENTS[optimizer]),
        inputs=kept(config, load, element),
    )


def activations(config: MovaConfig, load: Workload, *, low: bool, element: int = 2) -> float:
    """Bytes alive at the peak of a step, weights and adapters apart."""
    d, f, e = config.video.width, config.video.ffn_width, config.audio.width
    tokens = load.batch * load.video
    if not low:
        return element * tokens * (STATES * d + WIDE * f + BRIDGED * e)
    chunk = load.batch * min(load.video, RECOMPUTED_ROWS)
    feeding = tokens * LOW_STATES * d + chunk * (WIDE * f + LOW_ROWS * d)
    return element * (max(feeding, tokens * LOW_ATTENDING * d) + tokens * BRIDGED * e)


def kept(config: MovaConfig, load: Workload, element: int = 2) -> float:
    """Bytes of host memory for the inputs of all layers."""
    row = load.video * config.video.width + load.audio * config.audio.width
    return float(load.batch * config.video.layers * row * element)


def parameters(config: MovaConfig, parts: Collection[str], rank: int, layers: str = "all") -> int:
    """LoRA parameters of the chosen parts."""
    return rank * sum(sum(sizes) for sizes in targets(config, parts, layers).values())


def step_work(config: MovaConfig, load: Workload, *, low: bool = False) -> Work:
    """Operations of one step, LoRA apart (a hundredth)."""
    once = work(config, load)
    matrix, attention = 3 * once.matrix, once.attention * 9 // 2
    if low:  # text attention and feed-forward are run a third time
        tower = config.video
        again = block_work(tower, load.video, load.text)
        share = (2 * tower.width**2 + 2 * tower.width * tower.ffn_width) / (
            6 * tower.width**2 + 2 * tower.width * tower.ffn_width
        )
        matrix += int(load.batch * tower.layers * again.matrix * share)
        attention += 4 * load.batch * tower.layers * tower.width * load.video * load.text
    return Work(matrix=matrix, attention=attention)
