"""The audio tower alone, hearing the video as it was in an earlier forward.

A full evaluation is nearly all video. Between two of them the audio tower may take steps of its own, if each layer goes
on asking the keys and values that the video gave it: the sound's queries change with its noise level, the video does
not. Kept are 2 x V x E numbers a layer, 7.4 GiB in all at 360p for 8 seconds in bfloat16. MOVA was not trained so.

Axes: B batch, V video tokens, A audio steps, E audio width, S text rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from torch import Tensor, nn

from ..ops import KeysValues, Runtime
from .bridge import VIDEO_TO_AUDIO, Conditioner
from .mova import Mova

Layers: TypeAlias = Mapping[int, KeysValues | None]
"""By layer that ran: (B, V, E) keys and values; None where the audio asked nothing."""


def audio_velocity(
    model: Mova, audio_latents: Tensor, context: Tensor, timestep: Tensor, kept: Layers, run: Runtime
) -> Tensor:
    """Velocity of (n * B, C, A) audio latents, n streams, in their dtype, through the layers that `kept` names.

    Args:
        context: (n * B, S, text width) prompt embeddings the audio tower reads.
        timestep: (n * B,) float32, 0..1000.
        kept: what `Runtime.keep` was given in a full forward.
        run: its `video_to_audio` scales what is heard.
    """
    tower, bridge = model.audio_dit, model.dual_tower_bridge
    ears: list[Conditioner] = list(bridge.video_to_audio_conditioners)  # type: ignore[arg-type]
    audio = tower.patchify(audio_latents.to(context.dtype))
    given = tower.prepared(timestep, context, tower.rope(audio.shape[1], run, audio.device))
    table = bridge.audio_table(audio)
    layers = sorted(index for index in kept if index < tower.config.layers)
    fetched = run.prefetch(audio_layers(model, layers))
    for index in layers:
        next(fetched)
        sight = kept[index]
        if sight is not None and run.video_to_audio:
            ears[index].add_each_(audio, sight, table, run.video_to_audio, VIDEO_TO_AUDIO, run)
        audio = tower.layer(index, audio, given, run)
    next(fetched)
    return tower.unpatchify(tower.head(audio, given.time)).to(audio_latents.dtype)


def audio_layers(model: Mova, layers: Iterable[int]) -> list[list[nn.Module]]:
    """What each of these layers brings to an evaluation of the audio tower alone."""
    tower = model.audio_dit
    ears: list[Conditioner] = list(model.dual_tower_bridge.video_to_audio_conditioners)  # type: ignore[arg-type]
    return [[tower.blocks[index], *_asking(ears, index)] for index in layers]


def staying(layers: Sequence[Sequence[nn.Module]], room: float) -> int:
    """How many of the first layers' weights fit into `room` bytes, to be brought once for several evaluations."""
    sizes = (sum(p.numel() * p.element_size() for module in layer for p in module.parameters()) for layer in layers)
    return sum(total <= room for total in accumulate(sizes))


def _asking(conditioners: list[Conditioner], layer: int) -> list[nn.Module]:
    """The part of a layer's conditioner that works on the side which asks."""
    if layer >= len(conditioners):
        return []
    inner = conditioners[layer].inner
    return [inner.q, inner.norm_q, inner.o]
