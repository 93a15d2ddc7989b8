"""One training step: the ordinary forward without gradients, then back through it a layer at a time.

On the way forward each layer's two inputs are laid on a shelf (in host memory, where the host says so). On the way back
each layer is run again with autograd, and its graph is gone before the next begins: no graph spans two layers, so a
layer's weights need be there only while it runs, and are brought twice a step.

torch.utils.checkpoint would run a layer again whenever autograd comes to it. Where weights are streamed through a
buffer that the next layer takes, that gives wrong gradients without a word.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ..model.mova import Mova
from ..ops import PLAIN, LayerCall, Runtime
from . import loss
from .adapters import Adapters


class Shelf(Protocol):
    """Where a step keeps what it needs on the way back: last in, first out."""

    def put(self, state: Tensor) -> None:
        """Keep the values that `state` has now; it is overwritten afterwards."""

    def take(self) -> Tensor:
        """The values of the last one that was put and not taken yet, for nobody else."""


class Copies(list[Tensor]):
    """A shelf beside the model."""

    def put(self, state: Tensor) -> None:
        self.append(state.clone())

    def take(self) -> Tensor:
        return self.pop()


@dataclass(frozen=True)
class Step:
    """What a step found: float32 losses without axes, and velocities in the shapes of the latents."""

    video_loss: Tensor
    audio_loss: Tensor
    loss: Tensor
    video_velocity: Tensor
    audio_velocity: Tensor


@torch.inference_mode(False)  # a caller's own, under which autograd would do nothing
def training_step(
    model: Mova,
    adapters: Adapters,
    *,
    video_latents: Tensor,
    audio_latents: Tensor,
    video_noise: Tensor,
    audio_noise: Tensor,
    context: Tensor,
    video_timestep: Tensor,
    audio_timestep: Tensor,
    condition: Tensor,
    fps: float,
    audio_weight: float = 1.0,
    runtime: Runtime = PLAIN,
    shelf: Callable[[], Shelf] = Copies,
    scale: float = 1.0,
) -> Step:
    """Losses and velocities of one sample or batch; `scale` times the gradients are added to the parameters' `.grad`.

    Args:
        video_latents, audio_latents: clean, (B, 16, T, H, W) and (B, channels, A).
        video_noise, audio_noise: of the same shapes; what is shown is (1 - sigma) * clean + sigma * noise.
        context, condition, fps, video_timestep, audio_timestep: as `Mova.forward`; the model computes in the dtype of
            `context`.
        audio_weight: of the sound's mean square beside the picture's; 1 is official, the paper states 0.2.
        runtime: how the host wants layers run, on both ways; with `recompute` less is kept within a layer.
        shelf: makes what keeps the layers' inputs.
        scale: of the gradients, 1 / n where n steps are accumulated.

    Raises:
        ShapeError: the tensors do not fit each other or the model. ConfigError: the adapters are another model's.
    """
    adapters.check_model(model)
    latents, noises = (video_latents, audio_latents), (video_noise, audio_noise)
    timesteps = video_timestep, audio_timestep
    video, audio = (loss.noised(*each) for each in zip(latents, noises, timesteps, strict=True))
    way = _Way(shelf(), len(model.blocks) - 1, runtime)
    given: dict[str, Any] = {"condition": condition, "fps": fps, "runtime": replace(runtime, layer=way.there)}
    forward = partial(Mova.forward, model, video, audio, context, *timesteps, **given)  # a host's is called otherwise
    with adapters.beside():
        step = _to_the_heads(forward, latents, noises, audio_weight, scale)
        way.back(model)
    return step


def _to_the_heads(
    forward: Callable[[], tuple[Tensor, Tensor]],
    latents: tuple[Tensor, Tensor],
    noises: tuple[Tensor, Tensor],
    audio_weight: float,
    scale: float,
) -> Step:
    """There, and back through the heads. Their graph, which holds the last states, ends with this call."""
    with torch.no_grad():
        velocities = forward()
    video_target, audio_target = (loss.target(*each) for each in zip(latents, noises, strict=True))
    with torch.enable_grad():
        found = loss.losses(velocities, (video_target, audio_target), audio_weight)
        (scale * found.total).backward()
    return Step(*(value.detach() for value in (found.video, found.audio, found.total, *velocities)))


@torch.no_grad()
def validation_step(
    model: Mova,
    adapters: Adapters,
    latents: tuple[Tensor, Tensor],
    noises: tuple[Tensor, Tensor],
    timesteps: tuple[Tensor, Tensor],
    *,
    context: Tensor,
    condition: Tensor,
    fps: float,
    runtime: Runtime = PLAIN,
) -> tuple[float, float]:
    """Mean squares of picture and sound, without gradients; as `training_step`, with picture and sound in pairs."""
    video, audio = (loss.noised(*each) for each in zip(latents, noises, timesteps, strict=True))
    with adapters.beside():
        velocities = Mova.forward(
            model, video, audio, context, timesteps[0], timesteps[1], condition=condition, fps=fps, runtime=runtime
        )
    targets = loss.target(latents[0], noises[0]), loss.target(latents[1], noises[1])
    found = loss.losses(velocities, targets, 0.0)
    return float(found.video), float(found.audio)


class _Way:
    """Through the layers and back. `ends` are the states after the last one, the leaves of the heads' graph."""

    def __init__(self, shelf: Shelf, last: int, runtime: Runtime) -> None:
        self.shelf, self.last, self.runtime = shelf, last, runtime
        self.calls: list[LayerCall] = []
        self.ends: list[Tensor] = []

    def there(self, index: int, layer: LayerCall, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """In place of `Runtime.layer`. After the last layer gradients are on: what follows are the heads."""
        self.shelf.put(video)
        self.shelf.put(audio)
        self.calls.append(layer)
        video, audio = self.runtime.layer(index, layer, video, audio)
        if index == self.last:
            self.ends = [video.detach().requires_grad_(), audio.detach().requires_grad_()]
            video, audio = self.ends
            torch.set_grad_enabled(True)  # until the caller's no_grad ends
        return video, audio

    def back(self, model: Mova) -> None:
        """From the gradients of `ends` to those of every adapter."""
        gradients = [end.grad for end in self.ends]
        self.ends.clear()
        fetched = self.runtime.prefetch(model.layer_modules(self.runtime)[::-1])
        while self.calls:
            states = [
                self.shelf.take(),
                self.shelf.take(),
            ]  # before the next layer's weights, behind which they would queue
            next(fetched)
            gradients = self._layer(len(self.calls) - 1, self.calls.pop(), states, gradients)
        next(fetched)

    def _layer(
        self, index: int, layer: LayerCall, states: list[Tensor], gradients: list[Tensor | None]
    ) -> list[Tensor | None]:
        """One layer again, with its graph: its states and gradients of its outputs in, used up; of its inputs out."""
        audio, video = (state.requires_grad_() for state in states)
        states.clear()
        with torch.enable_grad():
            outputs = self.runtime.layer(index, layer, video, audio)
        pairs = [(out, gradient) for out, gradient in zip(outputs, gradients) if gradient is not None]
        del outputs
        gradients.clear()
        torch.autograd.backward([out for out, _ in pairs], [gradient for _, gradient in pairs])
        return [video.grad, audio.grad]
