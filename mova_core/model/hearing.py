"""The audio tower alone, hearing what it heard of the video in an earlier forward.

A full evaluation is nearly all video. Between two of them the audio tower may take steps of its own, if it goes on
hearing the video as it last did: `Hearing` keeps what the bridge's attention gave it at each layer, `hear` adds that
again. It is A x E numbers a layer, 35 MiB in all for 8 seconds in bfloat16; the video's keys and values, which would
let it ask anew, are 7.4 GiB at 360p and 30 GiB at 720p. MOVA was not trained so.

Axes: B batch, A audio steps, E audio width, S text rows.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..ops import LayerCall, Runtime
from .mova import Mova
from .rope import audio_table

SITE = "bridge.video_to_audio"


class Hearing:
    """Filled by a forward under `recording`: layers that ran, and what the audio heard there."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Tensor]] = {}
        self._layer = 0

    def recording(self, run: Runtime) -> Runtime:
        """The same runtime, which also remembers."""

        def layer(index: int, call: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
            def marked(video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
                self._layer, self._parts[index] = index, []
                return call(video, audio)

            return run.layer(index, marked, video, audio)

        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, site: str) -> Tensor:
            out = run.attention(q, k, v, heads, site)
            if site == SITE:
                self._parts[self._layer].append(out)
            return out

        return replace(run, layer=layer, attention=attention)

    def heard(self) -> dict[int, Tensor | None]:
        """(B, A, E) by layer; None where a layer ran and the audio heard nothing."""
        return {index: torch.cat(parts, dim=1) if parts else None for index, parts in self._parts.items()}


def hear(
    model: Mova,
    audio_latents: Tensor,
    context: Tensor,
    timestep: Tensor,
    heard: Mapping[int, Tensor | None],
    run: Runtime,
) -> Tensor:
    """Velocity of (B, C, A) audio latents, in their dtype, through the layers that `heard` names.

    Args:
        context: (B, S, text width) prompt embeddings the audio tower reads.
        timestep: (B,) float32, 0..1000.
        heard: of a forward on as many audio steps.
        run: its `video_to_audio` scales what was heard.
    """
    tower, conditioners = model.audio_dit, model.dual_tower_bridge.video_to_audio_conditioners
    audio = tower.patchify(audio_latents.to(context.dtype))
    time, modulation = tower.embed_time(timestep)
    text = tower.text_embedding(context)
    rope = run.rotary.table(*audio_table(audio.shape[1], tower.config.head_width, audio.device))
    layers = sorted(index for index in heard if index < tower.config.layers)
    fetched = run.prefetch([[tower.blocks[i], conditioners[i].inner.o] for i in layers])  # type: ignore[union-attr,list-item]
    for index in layers:
        next(fetched)
        message = heard[index]
        if message is not None:
            audio.add_(conditioners[index].inner.o(message), alpha=run.video_to_audio)  # type: ignore[union-attr,operator]
        audio = tower.blocks[index](audio, modulation, rope, text, run)
    next(fetched)
    return tower.unpatchify(tower.head(audio, time)).to(audio_latents.dtype)
