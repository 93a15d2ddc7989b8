"""The bridge: cross-attention between the towers, in both directions, before each of the first layers.

Both directions read the states from before the bridge. Only the listened-to side is normalised; the residual is added
to the plain state. Positions on both sides are counted in audio latent steps.

Axes: B batch, V video tokens, A audio tokens, D video width, E audio width, N heads, K head width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..config import BridgeConfig
from ..ops import KeysValues, Ops, Runtime, add_, learning, row_slices
from .attention import Projections
from .rope import bridge_positions, bridge_table, rotate_halves

Table = tuple[Tensor, Tensor]
AUDIO_TO_VIDEO, VIDEO_TO_AUDIO = "bridge.audio_to_video", "bridge.video_to_audio"  # sites of attention


class Conditioner(nn.Module):
    """What one tower hears of the other: attention from its tokens `x` to the other's, normalised, `y`."""

    def __init__(self, width: int, other: int, head_width: int, eps: float, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.y_norm = ops.LayerNorm(other, eps=eps, **factory)
        self.inner = Projections(width, other, width // head_width, eps, ops=ops, **factory)

    def add_(
        self, x: Tensor, keys_values: KeysValues, table: Table, strength: float, site: str, run: Runtime
    ) -> Tensor:
        """x + strength * attention from x to `keys_values`: in place, and a few positions at a time where queries come
        in rows, but where a gradient is wanted."""
        positions = table[0].shape[0]
        each = x.shape[1] // positions  # tokens that share a position
        step = None if run.query_rows is None or learning(x, *keys_values) else max(1, run.query_rows // each)
        if step is None or step >= positions:
            return self._add_part_(x, keys_values, table, strength, site, run)
        for p in row_slices(positions, step):
            part, turns = x[:, p.start * each : p.stop * each], (table[0][p], table[1][p])
            self._add_part_(part, keys_values, turns, strength, site, run)
        return x

    def _add_part_(
        self, part: Tensor, keys_values: KeysValues, table: Table, strength: float, site: str, run: Runtime
    ) -> Tensor:
        inner = self.inner
        q = rotate_halves(inner.queries(part), table).flatten(2)
        return add_(part, inner.o(run.attention(q, *keys_values, inner.heads, site)), strength)

    def add_each_(self, x: Tensor, keys_values: KeysValues, *rest: Any) -> Tensor:
        """`add_` for each of the streams that ask the same keys and values: x is (n * B, L, D), they are (B, S, D)."""
        if len(x) == len(keys_values[0]):
            return self.add_(x, keys_values, *rest)
        streams = [self.add_(stream, keys_values, *rest) for stream in x.split(len(keys_values[0]))]
        if not learning(*streams):
            return x
        return torch.cat(streams)

    def keys_values(self, y: Tensor, table: Table) -> KeysValues:
        """Of the other tower's tokens, keys turned by their positions."""
        y = self.y_norm(y)
        return rotate_halves(self.inner.keys(y), table).flatten(2), self.inner.v(y)


class Bridge(nn.Module):
    """One conditioner a direction and layer, under upstream's names."""

    def __init__(self, config: BridgeConfig, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.config = config
        video, audio, sizes = config.video_width, config.audio_width, (config.head_width, config.eps)
        self.audio_to_video_conditioners = nn.ModuleList(
            Conditioner(video, audio, *sizes, ops=ops, **factory) for _ in range(config.layers)
        )
        self.video_to_audio_conditioners = nn.ModuleList(
            Conditioner(audio, video, *sizes, ops=ops, **factory) for _ in range(config.layers)
        )

    def tables(self, latent_frames: int, audio: Tensor, fps: float) -> tuple[Table, Table]:
        """Rotary tables of the video's latent frames and of the (B, A, E) audio tokens."""
        positions = bridge_positions(latent_frames, audio.shape[1], fps, self.config.audio_rate)
        video, sound = (bridge_table(p, self.config.head_width, audio.device) for p in positions)
        return video, sound

    def audio_table(self, audio: Tensor) -> Table:
        """That of the audio tokens alone: their positions count themselves, whatever the pictures a second."""
        steps = torch.arange(audio.shape[1], dtype=torch.float32)
        return bridge_table(steps, self.config.head_width, audio.device)

    def forward(
        self, index: int, video: Tensor, audio: Tensor, tables: tuple[Table, Table], run: Runtime
    ) -> tuple[Tensor, Tensor]:
        """(B, V, D) and (n * B, A, E) tokens, overwritten and returned; the video hears the first B of the sound."""
        into_video: Conditioner = self.audio_to_video_conditioners[index]  # type: ignore[assignment]
        into_audio: Conditioner = self.video_to_audio_conditioners[index]  # type: ignore[assignment]
        # Both read the other before either state changes.
        sound = into_video.keys_values(audio[: len(video)], tables[1]) if run.audio_to_video else None
        sight = into_audio.keys_values(video, tables[0]) if run.video_to_audio else None
        run.keep(index, sight)
        if sight is not None:
            audio = into_audio.add_each_(audio, sight, tables[1], run.video_to_audio, VIDEO_TO_AUDIO, run)
            del sight
        if sound is not None:
            video = into_video.add_(video, sound, tables[0], run.audio_to_video, AUDIO_TO_VIDEO, run)
        return video, audio
