"""One diffusion transformer of Wan's shape: embeddings, blocks, head. Both towers are this, over other patches.

Axes: B batch, C channels, T latent frames, H W latent rows and columns, A audio steps, L tokens, S text rows, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TowerConfig
from ..ops import Grid, Ops, Place, Runtime, add_, changed_, learning, row_slices
from .attention import SelfAttention, TextAttention
from .layers import FeedForward, Head, add_gated_, modulated, timestep_embedding
from .rope import audio_table, video_table

Modulation = tuple[Tensor, Tensor, Tensor]
"""(B, 1, D) float32 shift, scale and gate."""


@dataclass(frozen=True)
class Prepared:
    """What a tower reads in one forward beside its tokens: the same for all of its blocks, and for the head."""

    time: Tensor  # (B, D) float32, for the head
    modulation: Tensor  # (B, 6, D) float32
    rope: Any  # in the form of the runtime's `rotary`
    text: Tensor  # (B, S, D)
    grid: Grid | None = None  # of a video


class Block(nn.Module):
    """Self-attention, attention to the text, feed-forward. Works on its input in place."""

    def __init__(self, config: TowerConfig, name: str, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.name, self.eps = name, config.eps
        width, heads, eps = config.width, config.heads, config.eps
        self.self_attn = SelfAttention(width, width, heads, eps, ops=ops, **factory)
        self.norm3 = ops.LayerNorm(width, eps=eps, **factory)  # of the text attention, affine
        self.cross_attn = TextAttention(width, width, heads, eps, ops=ops, **factory)
        self.ffn = FeedForward(config, ops=ops, **factory)
        self.modulation = nn.Parameter(torch.empty(1, 6, width, **factory))

    def forward(
        self, x: Tensor, time: Tensor, rope: Any, context: Tensor, runtime: Runtime, grid: Grid | None = None
    ) -> Tensor:
        """(B, L, D) tokens, overwritten and returned, but where a gradient is wanted; `time` (B, 6, D) float32;
        `context` (B, S, D); `grid` of a video."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation.to(time) + time).chunk(6, dim=1)
        step = runtime.query_rows_of(grid)
        if learning(x) or step is None or step >= x.shape[1]:
            x = self._attend(x, (shift, scale, gate), rope, runtime, grid)
        else:
            self._attend_by_rows(x, (shift, scale, gate), rope, runtime, grid, step)

        def read(part: Tensor, *keys_values: Tensor) -> Tensor:
            return add_(part, self.cross_attn(self.norm3(part), keys_values, f"{self.name}.text", runtime))

        def fed(part: Tensor) -> Tensor:
            return add_gated_(part, self.ffn(modulated(part, ffn_shift, ffn_scale, self.eps)), ffn_gate)

        again = runtime.recompute
        x = changed_(x, runtime.query_rows, read, *self.cross_attn.keys_values(context), recompute=again)
        return changed_(x, runtime.ffn_rows, fed, recompute=again)

    def _attend(self, x: Tensor, modulation: Modulation, rope: Any, runtime: Runtime, grid: Grid | None) -> Tensor:
        attn, (shift, scale, gate) = self.self_attn, modulation
        h = modulated(x, shift, scale, self.eps)
        q = attn.rotated_queries(h, rope, 0, runtime)
        k = attn.rotated_keys(h, rope, 0, runtime)
        v = attn.v(h)
        del h  # x, q, k, v and the result: five hidden states at the peak
        y = runtime.attention(q, k, v, attn.heads, f"{self.name}.self", grid and Place(grid, 0))
        del q, k, v
        return add_gated_(x, attn.o(y), gate)

    def _attend_by_rows(
        self, x: Tensor, modulation: Modulation, rope: Any, runtime: Runtime, grid: Grid | None, step: int
    ) -> None:
        """The same with queries a chunk at a time: x, k and v, three hidden states at the peak."""
        attn, (shift, scale, gate) = self.self_attn, modulation
        k, v = torch.empty_like(x), torch.empty_like(x)
        for rows in row_slices(x.shape[1], runtime.query_rows):
            h = modulated(x[:, rows], shift, scale, self.eps)
            k[:, rows] = attn.rotated_keys(h, rope, rows.start, runtime)
            v[:, rows] = attn.v(h)
        for rows in row_slices(x.shape[1], step):
            h = modulated(x[:, rows], shift, scale, self.eps)
            q = attn.rotated_queries(h, rope, rows.start, runtime)
            y = runtime.attention(q, k, v, attn.heads, f"{self.name}.self", grid and Place(grid, rows.start))
            add_gated_(x[:, rows], attn.o(y), gate)


class Tower(nn.Module):
    """Embeddings, blocks and head; `patchify` and `unpatchify` belong to the kind of latents."""

    name: str

    def __init__(self, config: TowerConfig, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.config = config
        width = config.width
        convolution = ops.Conv3d if len(config.patch) == 3 else ops.Conv1d
        patch = config.patch
        self.patch_embedding = convolution(config.in_channels, width, kernel_size=patch, stride=patch, **factory)
        self.text_embedding = nn.Sequential(
            ops.Linear(config.text_width, width, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(width, width, **factory),
        )
        self.time_embedding = nn.Sequential(
            ops.Linear(config.frequency_width, width, **factory), nn.SiLU(), ops.Linear(width, width, **factory)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), ops.Linear(width, 6 * width, **factory))
        self.blocks = nn.ModuleList(Block(config, self.name, ops=ops, **factory) for _ in range(config.layers))
        self.head = Head(config, ops=ops, **factory)

    def embed_time(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) time embedding for the head and (B, 6, D) for the blocks, float32 whatever the weights' dtype."""
        time: Tensor = self.time_embedding(timestep_embedding(timesteps, self.config.frequency_width))
        return time, self.time_projection(time).unflatten(1, (6, -1))

    def prepared(self, timesteps: Tensor, context: Tensor, rope: Any, grid: Grid | None = None) -> Prepared:
        """From (B,) timesteps 0..1000, (B, S, text width) prompt embeddings and a rotary table."""
        return Prepared(*self.embed_time(timesteps), rope, self.text_embedding(context), grid)

    def layer(self, index: int, x: Tensor, given: Prepared, runtime: Runtime) -> Tensor:
        """(B, L, D) tokens through block `index`, overwritten and returned."""
        return self.blocks[index](x, given.modulation, given.rope, given.text, runtime, given.grid)  # type: ignore[no-any-return]


class VideoTower(Tower):
    """Wan 2.2 I2V-A14B: (B, 36, T, H, W) noisy latents, mask and image latents -> (B, 16, T, H, W) velocity."""

    name = "video"

    def patchify(self, latents: Tensor) -> tuple[Tensor, Grid]:
        """(B, T*H/2*W/2, D) tokens, w fastest, and their (T, H/2, W/2) grid."""
        tokens = self.patch_embedding(latents)
        return tokens.flatten(2).transpose(1, 2).contiguous(), tuple(tokens.shape[2:])

    def rope(self, grid: Grid, runtime: Runtime, device: torch.device) -> Any:
        """The rotary table of a (T, H/2, W/2) grid."""
        width, scale, shift = self.config.head_width, runtime.rope_scale, runtime.rope_shift
        return runtime.rotary.table(*video_table(grid, width, scale, shift, device))

    def unpatchify(self, values: Tensor, grid: Grid) -> Tensor:
        """(B, L, 1*2*2*C), channels fastest -> (B, C, T, H, W)."""
        t, h, w = grid
        _, ph, pw = self.config.patch
        values = values.view(values.shape[0], t, h, w, ph, pw, self.config.out_channels)
        return values.permute(0, 6, 1, 2, 4, 3, 5).reshape(values.shape[0], -1, t, h * ph, w * pw)


class AudioTower(Tower):
    """(B, C, A) noisy audio latents -> (B, C, A) velocity, one token a latent step."""

    name = "audio"

    def patchify(self, latents: Tensor) -> Tensor:
        return self.patch_embedding(latents).transpose(1, 2).contiguous()  # type: ignore[no-any-return]

    def rope(self, steps: int, runtime: Runtime, device: torch.device) -> Any:
        """The rotary table of that many latent steps."""
        return runtime.rotary.table(*audio_table(steps, self.config.head_width, device))

    def unpatchify(self, values: Tensor) -> Tensor:
        return values.transpose(1, 2)
