"""ComfyUI's transformer_options -> how mova_core runs one forward."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeAlias

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_prefetch
import torch
from comfy.quant_ops import ck
from torch import Tensor, nn

from ....mova_core.estimate import FULL
from ....mova_core.model.sparse import SIDE, Sparsity
from ....mova_core.ops import ELEMENTWISE_ROWS, LayerCall, Place, Runtime, row_slices
from ....mova_core.sampling.bridge_strength import strengths_at
from .. import newer
from ..keys import Options, run_options
from . import sparse
from .pass_weights import NOTHING_WORN, Worn, wearing, worn_by
from .weights import resident

BlockPatch: TypeAlias = Callable[[Options, dict[str, Callable[[Options], Options]]], Options]
"""Of `patches_replace`: called with a block's state and the original block, what comes out."""


class LayersAtHand(Protocol):
    """`mova_core.ops.Prefetch`, to be closed where a forward is broken off."""

    def __call__(self, layers: Sequence[Sequence[nn.Module]]) -> Generator[None, None, None]: ...


class KitchenRotary:
    """ComfyUI's fused rotary kernel, on its (1, L, 1, K/2, 2, 2) table."""

    def table(self, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))[None, :, None]

    def rotate(self, x: Tensor, table: Tensor, start: int) -> Tensor:
        """In place, a few thousand tokens at a time: where the kernel is plain torch, it takes float32 copies of all."""
        for sample in x.split(1):
            for rows in row_slices(x.shape[1], ELEMENTWISE_ROWS):
                ck.apply_rope1_(sample[:, rows], table[:, start + rows.start : start + rows.stop])
        return x


class Layers:
    """Which layer runs, and what the host's patches want done to it."""

    def __init__(self, options: Options, context: Tensor, sparsity: Sparsity | None = None) -> None:
        self.options, self.context, self.sparsity = options, context, sparsity
        self.replace = options.get("patches_replace", {}).get("dit", {})
        self.after = options.get("patches", {}).get("double_block", [])
        self.index = self.asked = 0

    def __call__(self, index: int, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        self.index, self.asked = index, 0
        self.options["block_index"] = index
        patch = self.replace.get(("double_block", index))
        if patch is None:
            video, audio = layer(video, audio)
        else:
            video, audio = self._replaced(patch, layer, video, audio)
        for function in self.after:
            state = {"img": video, "x": video, "vec": None, "block_index": index, "img_offset": 0}
            video = function({**state, "transformer_options": self.options})["img"]
        return video, audio

    def _replaced(self, patch: BlockPatch, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """A patch sees the video stream, as in Wan; the sound follows if and when it runs the original block."""
        sound = [audio]

        def original(args: Options) -> Options:
            picture, sound[0] = layer(args["img"], sound[0])
            return {"img": picture}

        state = {"img": video, "txt": self.context, "vec": None, "pe": None, "transformer_options": self.options}
        return patch(state, {"original_block": original})["img"], sound[0]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None) -> Tensor:
        options = self.options
        if site == "video.self" and self.index in options.get("stg_self_attn_blocks", ()):
            self.asked += q.shape[1]  # queries may come a chunk at a time; each token's value answers it
            return v[:, self.asked - q.shape[1] : self.asked]
        if site == "video.self" and self.sparsity is not None and place is not None:
            out = sparse.attend(q, k, v, heads, place, self.sparsity, self._dense)
        else:
            out = self._dense(q, k, v, heads, site)
        if site == "video.self":
            for function in options.get("patches", {}).get("attn1_output_patch", []):
                out = function(out, {**options, "n_heads": heads, "dim_head": q.shape[-1] // heads})
        return out

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None) -> Tensor:
        """ComfyUI's attention."""
        exact = not site.endswith(".self")  # 512 and some hundred keys: a quantised kernel gains nothing there
        chosen = comfy.ldm.modules.attention.optimized_attention  # looked up late, flags and tests may change it
        kwargs = {"low_precision_attention": False} if exact else {}
        options = self.options if site == "video.self" else sparse.beside_video(self.options)
        out: Tensor = chosen(q, k, v, heads=heads, transformer_options=options, **kwargs)
        return out


def prefetch(
    device: torch.device, options: Options, worn: Worn = NOTHING_WORN, there: frozenset[int] = frozenset()
) -> LayersAtHand:
    """Each layer's weights, once: ahead of time by ComfyUI's prefetch queue where it has one, an entry a layer.

    `worn`: patches that they have while they compute. `there`: layers that are there already, by their first module.
    """

    def step(layers: Sequence[Sequence[nn.Module]]) -> Generator[None, None, None]:
        make = comfy.model_prefetch.make_prefetch_queue
        pop, pops = None, newer.in_scopes(comfy.model_prefetch.prefetch_queue_pop)
        queue = make([list(layer) for layer in layers if id(layer[0]) not in there], device, options)
        for layer in layers:
            if id(layer[0]) in there:
                with wearing(layer, worn, device):
                    yield
                continue
            before, pop = pop, pops(f"mova_layer_of_{len(layer)}")
            if before not in (None, pop):
                before(None, device, None)  # no more layers of that kind
            pop(queue, device, layer[0])
            with resident(layer, device), wearing(layer, worn, device):
                yield
        if pop is not None:
            pop(queue, device, None)
        yield

    return step


def bridge_strengths(options: Options, shift: float) -> tuple[float, float]:
    """Audio-to-video and video-to-audio strength of one forward; the flags are those of core's AV models and nodes."""
    entries = run_options(options).bridge
    sigmas = options.get("sigmas")  # a block that is timed alone has none
    strengths = (1.0, 1.0) if not entries or sigmas is None else strengths_at(entries, float(sigmas[0]), shift)
    flags = options.get("a2v_cross_attn", True), options.get("v2a_cross_attn", True)
    return strengths[0] if flags[0] else 0.0, strengths[1] if flags[1] else 0.0


def runtime(
    options: Options,
    context: Tensor,
    shift: float,
    model: nn.Module | None = None,
    there: frozenset[int] = frozenset(),
) -> Runtime:
    """The Runtime of one forward under `options`.

    `context` is what block patches see as text; `shift` is the video schedule's, to place the forward in it; `model` the
    one whose layers may have LoRAs of this forward alone; `there` its layers that need not be brought.
    """
    sparsity = sparse.active(run_options(options).sparse, options, shift)
    layers = Layers(options, context, sparsity)
    rope = options.get("rope_options") or {}
    axes = ("t", "y", "x")
    into_video, into_audio = bridge_strengths(options, shift)
    rows = run_options(options).chunks or FULL
    return Runtime(
        attention=layers.attention,
        rotary=KitchenRotary(),
        prefetch=prefetch(context.device, options, worn_by(model, run_options(options).weights), there),
        layer=layers,
        ffn_rows=rows.feed_forward,
        query_rows=rows.queries,
        query_frames=None if sparsity is None else SIDE,
        audio_to_video=into_video,
        video_to_audio=into_audio,
        rope_scale=tuple(rope.get(f"scale_{axis}", 1.0) for axis in axes),
        rope_shift=tuple(rope.get(f"shift_{axis}", 0.0) for axis in axes),
    )
