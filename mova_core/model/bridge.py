"""The bridge: cross-attention between the towers, in both directions, before each of the first layers.

Both directions read the states from before the bridge. Only the listened-to side is normalised; the residual is added
to the plain state. Positions on both sides are counted in audio latent steps.

Axes: B batch, V video tokens, A audio tokens, D video width, E audio width, N heads, K head width.
"""

from typing import Any

from torch import Tensor, nn

from ..config import BridgeConfig
from ..ops import Ops, Runtime
from .attention import Projections
from .rope import bridge_positions, bridge_table, rotate_halves

Table = tuple[Tensor, Tensor]


class Conditioner(nn.Module):
    """What one tower hears of the other: attention from `x` to the normalised `y`."""

    def __init__(self, width: int, other: int, head_width: int, eps: float, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.y_norm = ops.LayerNorm(other, eps=eps, **factory)
        self.inner = Projections(width, other, width // head_width, eps, ops=ops, **factory)

    def forward(self, x: Tensor, y: Tensor, tables: tuple[Table, Table], site: str, runtime: Runtime) -> Tensor:
        inner = self.inner
        y = self.y_norm(y)
        k, v = rotate_halves(inner.keys(y), tables[1]).flatten(2), inner.v(y)
        del y
        q = rotate_halves(inner.queries(x), tables[0]).flatten(2)
        return inner.o(runtime.attention(q, k, v, inner.heads, site))  # type: ignore[no-any-return]


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

    def forward(
        self, index: int, video: Tensor, audio: Tensor, tables: tuple[Table, Table], runtime: Runtime
    ) -> tuple[Tensor, Tensor]:
        """(B, V, D) and (B, A, E) tokens, overwritten and returned."""
        heard_by_audio = heard_by_video = None
        if runtime.video_to_audio:
            conditioner, site = self.video_to_audio_conditioners[index], "bridge.video_to_audio"
            heard_by_audio = conditioner(audio, video, tables[::-1], site, runtime)
        if runtime.audio_to_video:
            conditioner, site = self.audio_to_video_conditioners[index], "bridge.audio_to_video"
            heard_by_video = conditioner(video, audio, tables, site, runtime)
        if heard_by_audio is not None:
            audio.add_(heard_by_audio, alpha=runtime.video_to_audio)
        if heard_by_video is not None:
            video.add_(heard_by_video, alpha=runtime.audio_to_video)
        return video, audio
