"""A forward that only collects the keys and values by which the audio asks the video: no velocity, fewer layers.

A distilled video tower has forgotten some of what the sound listens for. The one it was made from still knows: run over
the joint layers with the same inputs, or over the later ones from the distilled tower's states, it gives the sound its
keys and values, while the picture goes on as the distilled tower says.

Axes: B batch, V video tokens, D video width, A audio steps, E audio width.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..errors import ShapeError
from ..ops import LayerCall, Runtime
from .bridge import Conditioner
from .mova import Joint, Mova

States = tuple[Tensor, Tensor]
"""(B, V, D) and (B, A, E) tokens."""


def with_states_kept(run: Runtime, start: int, keep: Callable[[States], Any]) -> Runtime:
    """The same runtime, which also gives `keep` copies of both towers' tokens as they enter layer `start`."""

    def layer(index: int, call: LayerCall, video: Tensor, audio: Tensor) -> States:
        if index == start:
            keep((video.clone(), audio.clone()))
        return run.layer(index, call, video, audio)

    return replace(run, layer=layer)


def collect(
    model: Mova,
    video_latents: Tensor,
    audio_latents: Tensor,
    texts: tuple[Tensor, Tensor],
    timesteps: tuple[Tensor, Tensor],
    *,
    condition: Tensor,
    fps: float,
    runtime: Runtime,
    start: int = 0,
    states: States | None = None,
) -> None:
    """Give `runtime.keep` the keys and values of layers `start` and following. Arguments as `Mova.forward`'s, in pairs.

    The last joint layer is entered for them alone. `states` are overwritten.

    Raises:
        ShapeError: a start without its states, or one beyond the bridge.
    """
    last = model.dual_tower_bridge.config.layers - 1
    if not 0 <= start <= last + 1 or (start > 0 and states is None):
        raise ShapeError(f"a teacher starts at a layer of 0..{last + 1}, and after 0 from states; this one at {start}")
    if start > last or not runtime.video_to_audio:
        return
    given, video, audio = model.begun(video_latents, audio_latents, texts, timesteps, condition, fps, runtime)
    if states is not None and start:
        video, audio = states
    ear: Conditioner = model.dual_tower_bridge.video_to_audio_conditioners[last]  # type: ignore[assignment]
    fetched = runtime.prefetch([*model.layer_modules(runtime)[start:last], [ear]])
    for index in range(start, last):
        next(fetched)
        video, audio = runtime.layer(index, partial(model.joint_layer, index, given), video, audio)
    next(fetched)
    runtime.layer(last, partial(_asked, given, ear, last), video, audio)
    next(fetched)


def _asked(given: Joint, ear: Conditioner, layer: int, video: Tensor, audio: Tensor) -> States:
    given.run.keep(layer, ear.keys_values(video, given.tables[0]))
    return video, audio
