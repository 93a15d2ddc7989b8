"""The loop: video and audio denoised together, one Euler step of a straight path at a time.

In ComfyUI its own samplers do this; this loop needs no host, and is what the tests hold them to.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ShapeError
from .guidance import Guidance, Velocities, guide
from .schedule import check_sigmas, timesteps

OnStep = Callable[[int, int, Tensor, Tensor], None]
"""Called as (step, steps, denoised video, denoised audio) when step 0..steps-1 is done; cancels by raising."""

OFFICIAL_GUIDANCE = Guidance()


class Denoiser(Protocol):
    """The model as the loop knows it.

    Latents (B, ...) float32 and timesteps (B,) float32 in; velocities, noise minus clean, out. It chooses the expert
    (`schedule.expert_for`) and holds both prompts. `bridge` is passed, as False, only for guidance by the bridge.
    """

    def __call__(
        self,
        video: Tensor,
        audio: Tensor,
        video_timestep: Tensor,
        audio_timestep: Tensor,
        positive: bool,
        *,
        bridge: bool = True,
    ) -> Velocities: ...


def initial_noise(
    video_shape: Sequence[int], audio_shape: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Float32 noise on the generator's device, video drawn first, audio second.

    One generator for both: two of the same seed would give the audio the first numbers of the video. A CPU generator
    gives the same noise on every machine.
    """
    video, audio = (
        torch.randn(tuple(shape), generator=generator, device=generator.device) for shape in (video_shape, audio_shape)
    )
    return video, audio


def denoise(
    model: Denoiser,
    video: Tensor,
    audio: Tensor,
    sigmas: Tensor,
    *,
    audio_sigmas: Tensor | None = None,
    guidance: Guidance = OFFICIAL_GUIDANCE,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents at the last sigma, float32, from latents at the first: x + velocity * (next sigma - sigma).

    `audio_sigmas` lets the audio follow its own schedule over the same steps (`schedule.reshift`).

    Raises:
        ShapeError: sigmas that do not fall, two schedules of different length, or batches of different size.
    """
    audio_sigmas = sigmas if audio_sigmas is None else audio_sigmas
    check_sigmas(sigmas)
    check_sigmas(audio_sigmas)
    if len(sigmas) != len(audio_sigmas):
        raise ShapeError(f"{len(sigmas)} video sigmas and {len(audio_sigmas)} audio sigmas; give as many of each")
    if len(video) != len(audio):
        raise ShapeError(f"a batch of {len(video)} video and {len(audio)} audio latents; give as many of each")

    video, audio = video.float(), audio.float()  # bfloat16 would add up an error over the steps
    steps = len(sigmas) - 1
    for step in range(steps):
        predict = _at(model, video, audio, sigmas[step], audio_sigmas[step])
        video_velocity, audio_velocity = guide(predict, guidance)
        if on_step is not None:
            denoised_video = _euler(video, video_velocity, sigmas[step], 0.0)
            denoised_audio = _euler(audio, audio_velocity, audio_sigmas[step], 0.0)
            on_step(step, steps, denoised_video, denoised_audio)
        video = _euler(video, video_velocity, sigmas[step], sigmas[step + 1])
        audio = _euler(audio, audio_velocity, audio_sigmas[step], audio_sigmas[step + 1])
    return video, audio


def _at(
    model: Denoiser, video: Tensor, audio: Tensor, sigma: Tensor, audio_sigma: Tensor
) -> Callable[[bool, bool], Velocities]:
    """The model at one step, waiting for its prompt and bridge."""
    video_timestep, audio_timestep = (
        timesteps(s.float()).to(video.device).expand(len(video)) for s in (sigma, audio_sigma)
    )

    def predict(positive: bool, bridge: bool) -> Velocities:
        if bridge:
            return model(video, audio, video_timestep, audio_timestep, positive)
        return model(video, audio, video_timestep, audio_timestep, positive, bridge=False)

    return predict


def _euler(latents: Tensor, velocity: Tensor, sigma: Tensor, to: Tensor | float) -> Tensor:
    return latents + velocity * (float(to) - float(sigma))
