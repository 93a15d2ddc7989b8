"""The seam: what a host may replace. Plain torch by default.

Layers come in at construction (`ops`), the rest with each call (`Runtime`), so one set of weights can run under
different settings and nothing is stored on the model.

Axes: B batch, L queries, S keys, N heads, K head width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ELEMENTWISE_ROWS = 4096  # tokens whose float32 copies are held at once by elementwise arithmetic


Ops: TypeAlias = Any
"""A namespace of layer classes with torch.nn's names and signatures (Linear, LayerNorm, RMSNorm, Conv1d, Conv3d,
ConvTranspose1d) whose weights follow the dtype of their input."""


Grid: TypeAlias = tuple[int, int, int]
"""Tokens of a video: frames, rows, columns."""


class Place(NamedTuple):
    """Where queries of the video lie: in this grid, whose tokens all are keys, from token `start`."""

    grid: Grid
    start: int


class Attention(Protocol):
    """(B, L, N*K) queries, (B, S, N*K) keys and values in; (B, L, N*K) out. Full attention, scale K**-0.5.

    `site` says which attention asks: "video.self", "video.text", "audio.self", "audio.text",
    "bridge.audio_to_video" or "bridge.video_to_audio". "video.self" comes with the `place` of its queries.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None
    ) -> Tensor: ...


class Rotary(Protocol):
    """Rotates pairs of neighbouring channels; `table` fixes the form in which angles are kept."""

    def table(self, cos: Tensor, sin: Tensor) -> Any:
        """Anything `rotate` understands, from (L, K/2) float32 cosines and sines."""

    def rotate(self, x: Tensor, table: Any, start: int) -> Tensor:
        """(B, rows, N, K), tokens `start` and following, turned by the table's angles; may overwrite and return `x`,
        but not where `learning(x)`."""


class Prefetch(Protocol):
    """Called once a forward with the modules of each layer in order; stepped once before each layer and once after."""

    def __call__(self, layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]: ...


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, site: str, place: Place | None = None) -> Tensor:
    """torch's scaled dot product attention on (B, L, N*K) tensors."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, N, L, K)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class RotaryPairs:
    """Interleaved rotary embedding as a product of complex numbers in float32, a few thousand tokens at a time."""

    def table(self, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.complex(cos, sin)

    def rotate(self, x: Tensor, table: Tensor, start: int) -> Tensor:
        if learning(x):
            return Turned.apply(x, table[start : start + x.shape[1]])  # type: ignore[no-any-return]
        if x.shape[1] <= ELEMENTWISE_ROWS:
            turn_(x.unflatten(-1, (-1, 2)), table[start : start + x.shape[1], None])
            return x
        for rows in row_slices(x.shape[1], ELEMENTWISE_ROWS):
            turn_(x[:, rows].unflatten(-1, (-1, 2)), table[start + rows.start : start + rows.stop, None])
        return x


def learning(*tensors: Tensor) -> bool:
    """Whether autograd follows what is made of these: then nothing may be overwritten."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # no generator: this is asked a dozen times a layer
            if tensor.requires_grad:
                return True
    return False


class Turned(torch.autograd.Function):
    """`turn_` on a copy; its gradient turns back. Nothing but the table is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor) -> Tensor:
        ctx.table = table
        return turned(x, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return turned(gradient, ctx.table.conj()), None


def turned(x: Tensor, table: Tensor) -> Tensor:
    """A copy of (B, L, N, K) tokens, turned by an (L, K/2) complex table."""
    copy = x.clone(memory_format=torch.contiguous_format)
    for rows in row_slices(x.shape[1], ELEMENTWISE_ROWS):
        turn_(copy[:, rows].unflatten(-1, (-1, 2)), table[rows, None])
    return copy


def turn_(pairs: Tensor, table: Tensor) -> None:
    """(..., K/2, 2) pairs times complex (..., K/2) numbers, in place; other dtypes by way of a float32 copy."""
    turned = torch.view_as_complex(pairs.float())
    turned *= table
    if pairs.dtype != torch.float32:
        pairs.copy_(torch.view_as_real(turned))


PAIRS = RotaryPairs()


def no_prefetch(layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
    """Every weight is where it is needed already."""
    for _ in range(len(layers) + 1):
        yield


KeysValues: TypeAlias = tuple[Tensor, Tensor]
"""(B, S, N*K) keys, turned by their positions, and values."""


def keep_nothing(layer: int, keys_values: KeysValues | None) -> None:
    """The audio tower takes no steps of its own after this forward."""


LayerCall = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def plain_layer(index: int, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Run layer `index` on the hidden states of both towers."""
    return layer(video, audio)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How one forward runs.

    `ffn_rows` bounds the tokens in the wide feed-forward activation, `query_rows` the tokens whose queries are held
    at once (keys and values are computed first; their weights are then used once a chunk). None means all. Both
    change memory only, not results beyond the rounding of a differently shaped matrix product.
    `query_frames`: queries held in rows come in whole groups of that many frames, as sparse attention wants them.
    `audio_to_video` and `video_to_audio` scale what the bridge adds to the tower that listens; 0 cuts it.
    `keep` is given, layer by layer, the video's keys and values that the audio asks, or None where it asks none.
    `recompute` is for training: what text attention and feed-forward need on the way back is computed again, as many
    tokens at a time as the rows say, rather than kept.
    `rope_scale` and `rope_shift` stretch and move the positions of the video's (frames, height, width) axes.
    """

    attention: Attention = sdpa
    rotary: Rotary = PAIRS
    prefetch: Prefetch = no_prefetch
    layer: Callable[[int, LayerCall, Tensor, Tensor], tuple[Tensor, Tensor]] = plain_layer
    keep: Callable[[int, KeysValues | None], None] = keep_nothing
    ffn_rows: int | None = None
    query_rows: int | None = None
    query_frames: int | None = None
    audio_to_video: float = 1.0
    video_to_audio: float = 1.0
    recompute: bool = False
    rope_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rope_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def query_rows_of(self, grid: Grid | None) -> int | None:
        """Tokens whose queries are held at once in self-attention over such a grid, or over no grid."""
        if self.query_rows is None or grid is None or self.query_frames is None:
            return self.query_rows
        group = self.query_frames * grid[1] * grid[2]
        return max(1, self.query_rows // group) * group


PLAIN = Runtime()
"""All at once, with plain torch."""


def row_slices(length: int, rows: int | None) -> Iterator[slice]:
    """Cover 0..length in slices of at most `rows`."""
    step = length if rows is None else rows
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def add_(x: Tensor, y: Tensor, alpha: float = 1.0) -> Tensor:
    """x + alpha * y; in place, but where a gradient is wanted."""
    return x.add(y, alpha=alpha) if learning(x, y) else x.add_(y, alpha=alpha)


Elementwise = Callable[..., Tensor]
"""(rows of tokens, others that take gradients) -> the rows, changed: in place, but where a gradient is wanted."""


def changed_(x: Tensor, rows: int | None, change: Elementwise, *others: Tensor, recompute: bool = False) -> Tensor:
    """(B, L, D) tokens after `change`, at most `rows` at a time; in place, but where a gradient is wanted."""
    if not learning(x, *others):
        if rows is None or rows >= x.shape[1]:  # no view of all of it
            change(x, *others)
            return x
        for part in row_slices(x.shape[1], rows):
            change(x[:, part], *others)
        return x
    if not recompute:  # all is kept for the way back, so chunks would save nothing
        return change(x, *others)
    parts = [Recomputed.apply(change, x[:, part], *others) for part in row_slices(x.shape[1], rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Recomputed(torch.autograd.Function):
    """`change` of some rows, of which nothing is kept but what went in; on the way back it is run again."""

    @staticmethod
    def forward(ctx: Any, change: Elementwise, *given: Tensor) -> Tensor:
        ctx.change = change
        ctx.save_for_backward(*given)
        rows, *others = given
        return change(rows.clone(), *others)  # no gradient is wanted in here, so it works in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        again = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            out = ctx.change(*again)
        torch.autograd.backward(out, gradient)
        return None, *(tensor.grad for tensor in again)


def _like(weight: Tensor | None, x: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(x.dtype)


class _Unfilled:
    """A layer on the meta device is not initialised: it only waits for its weights, and there are thousands."""

    weight: Any

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()  # type: ignore[misc]


class cast:  # noqa: N801, a namespace used like torch.nn
    """torch.nn layers that cast their weights to the dtype of the input, so float32 islands need no float32 weights."""

    class Linear(_Unfilled, nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.to(x.dtype), _like(self.bias, x))

    class LayerNorm(_Unfilled, nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return F.layer_norm(x, self.normalized_shape, _like(self.weight, x), _like(self.bias, x), self.eps)

    class RMSNorm(_Unfilled, nn.RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            return F.rms_norm(x, self.normalized_shape, _like(self.weight, x), self.eps)

    class Conv1d(_Unfilled, nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight.to(x.dtype), _like(self.bias, x))  # type: ignore[no-any-return]

    class Conv3d(_Unfilled, nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight.to(x.dtype), _like(self.bias, x))  # type: ignore[no-any-return]

    class ConvTranspose1d(_Unfilled, nn.ConvTranspose1d):
        def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
            return F.conv_transpose1d(
                x,
                self.weight.to(x.dtype),
                _like(self.bias, x),
                self.stride,
                self.padding,  # type: ignore[arg-type]
                self.output_padding,
                self.groups,
                self.dilation,
            )
