"""Block-sparse self-attention of the video: each tile of 4 x 4 x 4 tokens asks the tiles that matter most to it.

Tokens are regrouped into tiles of the grid, padded up to multiples of 4. A pair of tiles scores its mean query times
its mean key; kept are the largest share of the softmax over key tiles. Attention over the kept tiles is exact.

Axes: B batch, L queries, S keys, N heads, K head width, P query tiles, R key tiles, M = 64 tokens of a tile.
Source: Prism (Tencent-Hunyuan/Prism d8a969b) and ComfyUI's branch for it, 6cba407; see tests/core/model/test_sparse.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..ops import Attention, Grid, Place, sdpa

SIDE = 4  # tokens of a tile along each axis
TOKENS = SIDE**3
HEADS = 8  # whose regrouped copies are held at once


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """How much is left out: `sparsity` of the key tiles, and no more than leaves `cdf` of the softmax (None: no bound).

    With `exact_tail` the last frames, where 4 does not divide them, ask every key: padded tiles serve them badly.
    """

    sparsity: float = 0.75
    cdf: float | None = 0.2
    exact_tail: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(
                f"a sparsity of {self.sparsity} leaves nothing to attend to; it must be 0 (dense) or more, below 1"
            )
        if self.cdf is not None and not 0 <= self.cdf <= 1:
            raise ConfigError(f"a share of {self.cdf} of the attention cannot be kept; cdf is 0 to 1")

    def least(self, tiles: int) -> int:
        """Key tiles kept by number. Without `cdf` this may be none, and the result is then 0."""
        count = int((1 - self.sparsity) * tiles)
        return count if self.cdf is None else max(1, count)


def attended_share(sparsity: Sparsity, frames: int) -> float:
    """Of dense attention over so many latent frames, the share that is computed at the least; `cdf` may add to it."""
    tail = frames % SIDE if sparsity.exact_tail and frames > 1 else 0
    return 1 - sparsity.sparsity * (frames - tail) / frames


class Tiles(NamedTuple):
    """Where the tokens of a grid lie when regrouped: token of each place, and which places are real."""

    token: Tensor  # (tiles * M,) int64, 0 where there is none
    real: Tensor  # (tiles * M,) bool


class Kept(NamedTuple):
    """Key tiles of each query tile, the weightiest first; of the row's entries the first `counts` are kept."""

    tiles: Tensor  # (B, N, P, most) int64
    counts: Tensor  # (B, N, P) int64


Kernel = Callable[[Tensor, Tensor, Tensor, Kept, Tensor], Tensor]
"""(B, N, P * M, K) queries, (B, N, R * M, K) keys and values, what is kept, (R * M,) real keys -> as the queries."""


def tiles_of(grid: Grid, device: torch.device) -> Tiles:
    """In (t, h, w) order of the tiles and of the tokens in each."""
    padded = [math.ceil(length / SIDE) * SIDE for length in grid]
    token = torch.full(padded, -1, dtype=torch.int64)
    t, h, w = grid
    token[:t, :h, :w] = torch.arange(t * h * w).view(grid)
    sides = [part for length in padded for part in (length // SIDE, SIDE)]
    token = token.view(sides).permute(0, 2, 4, 1, 3, 5).flatten().to(device)
    return Tiles(token.clamp_min(0), token >= 0)


def kept_tiles(queries: Tensor, keys: Tensor, sparsity: Sparsity) -> Kept:
    """From (B, N, P, K) and (B, N, R, K) float32 means of the tiles."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    weights, count = scores.softmax(dim=-1), keys.shape[-2]
    least = sparsity.least(count)
    if (
        sparsity.cdf is None or math.ceil(sparsity.cdf * count) <= least
    ):  # so many of the largest have that mass already
        tiles = weights.topk(least, dim=-1).indices
        return Kept(tiles, torch.full(tiles.shape[:-1], least, device=tiles.device))
    weights, tiles = weights.sort(dim=-1, descending=True)
    enough = (weights.cumsum(dim=-1) < sparsity.cdf).sum(dim=-1) + 1
    kept = enough.clamp(least, count)
    return Kept(tiles[..., : int(kept.max())], kept)


def tile_means(x: Tensor, real: Tensor) -> Tensor:
    """(B, N, tiles * M, K), 0 at places that are not real -> (B, N, tiles, K) float32 means of the real ones."""
    total: Tensor = x.unflatten(2, (-1, TOKENS)).sum(dim=3, dtype=torch.float32)
    return total / real.view(-1, TOKENS).sum(dim=1).clamp_min(1)[:, None]


def exact(q: Tensor, k: Tensor, v: Tensor, kept: Kept, real: Tensor) -> Tensor:
    """A `Kernel` of plain torch, a query tile at a time: slow, for every device, and what the fast one is held to."""
    k, v = (x.unflatten(2, (-1, TOKENS)) for x in (k, v))
    out, most = torch.zeros_like(q), kept.tiles.shape[-1]
    place = torch.arange(most, device=q.device)
    for tile in range(q.shape[2] // TOKENS if most else 0):
        wanted = kept.tiles[:, :, tile]  # (B, N, most)
        keys, values = (torch.take_along_dim(x, wanted[..., None, None], dim=2).flatten(2, 3) for x in (k, v))
        asked = real.view(-1, TOKENS)[wanted] & (place < kept.counts[:, :, tile, None])[..., None]
        rows = slice(tile * TOKENS, (tile + 1) * TOKENS)
        out[:, :, rows] = F.scaled_dot_product_attention(q[:, :, rows], keys, values, asked.flatten(2)[:, :, None])
    return out


def fused(q: Tensor, k: Tensor, v: Tensor, kept: Kept, real: Tensor) -> Tensor:
    """The same by PyTorch's flex attention, compiled for the device: it reads kept tiles and no others."""
    from torch.nn.attention.flex_attention import BlockMask  # a second of imports that few need

    def is_real(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return real[key]

    tiles = kept.tiles.int()
    indices = F.pad(tiles, (0, k.shape[2] // TOKENS - tiles.shape[-1]))
    mask = BlockMask.from_kv_blocks(kept.counts.int(), indices, BLOCK_SIZE=TOKENS, mask_mod=is_real)
    out: Tensor = _compiled()(q, k, v, block_mask=mask, kernel_options={"BLOCK_M": TOKENS, "BLOCK_N": TOKENS})
    return out


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    place: Place,
    sparsity: Sparsity,
    *,
    kernel: Kernel = exact,
    dense: Attention = sdpa,
) -> Tensor:
    """(B, L, N*K) for queries of whole groups of 4 frames, or the last of the grid, and the keys and values of all.

    `dense` serves the queries of an exact tail.
    """
    frames, height, width = place.grid
    frame = height * width
    first, asked = place.start // frame, q.shape[1] // frame
    whole = min(asked, max(0, frames - frames % SIDE - first)) if sparsity.exact_tail and frames > 1 else asked
    out = torch.empty_like(q)
    if whole:
        _sparse_(
            out[:, : whole * frame],
            q[:, : whole * frame],
            k,
            v,
            heads,
            (whole, height, width),
            place.grid,
            sparsity,
            kernel,
        )
    if whole < asked:
        out[:, whole * frame :] = dense(q[:, whole * frame :], k, v, heads, "video.self")
    return out


def _sparse_(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    asking: Grid,
    asked: Grid,
    sparsity: Sparsity,
    kernel: Kernel,
) -> None:
    own, all_keys = tiles_of(asking, q.device), tiles_of(asked, q.device)
    q, k, v, out = (x.unflatten(-1, (heads, -1)) for x in (q, k, v, out))
    for start in range(0, heads, HEADS):
        some = slice(start, start + HEADS)
        queries = _regrouped(q[:, :, some], own)
        keys, values = (_regrouped(x[:, :, some], all_keys) for x in (k, v))
        kept = kept_tiles(tile_means(queries, own.real), tile_means(keys, all_keys.real), sparsity)
        made = kernel(queries, keys, values, kept, all_keys.real)
        out[:, own.token[own.real], some] = made[:, :, own.real].transpose(1, 2)


def _regrouped(x: Tensor, tiles: Tiles) -> Tensor:
    """(B, L, N, K) -> (B, N, tiles * M, K), 0 at places that are not real."""
    moved: Tensor = x.transpose(1, 2)[:, :, tiles.token]
    return moved.mul_(tiles.real[:, None].to(moved.dtype))
