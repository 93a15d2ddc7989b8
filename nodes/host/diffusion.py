"""The joint model under the signature by which ComfyUI calls a diffusion model."""

from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ...mova_core.config import MovaConfig
from ...mova_core.model.audio_only import audio_velocity
from ...mova_core.model.mova import Mova
from ...mova_core.sampling.av_schedule import audio_sigma, scaled_velocity, to_video_step, unscaled
from .bridge_cache import keeping
from .keys import Options, run_options
from .lora_names import NamedLayer
from .runtime import runtime


class MovaDiffusion(Mova):
    """The joint model under the signature ComfyUI calls."""

    def __init__(self, *, sizes: MovaConfig, dtype: Any, device: Any, operations: Any, image_model: str) -> None:
        super().__init__(sizes, ops=operations, device=device, dtype=dtype)
        self.dtype = dtype
        self.in_channels, self.out_channels, self.patch_size = (
            sizes.video.out_channels,
            sizes.video.out_channels,
            (1, 2, 2),
        )

    @property
    def video_dit(self) -> NamedLayer:
        """The video tower under upstream's folder names, by which a LoRA may call it."""
        return NamedLayer(self, "high")

    @property
    def video_dit_2(self) -> NamedLayer:
        return NamedLayer(self, "low")

    def forward(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        options = {} if transformer_options is None else transformer_options
        if run_options(options).audio_only:  # no evaluation that caches and their like should take for one
            return self._audio_only(x, timestep, context, options, **kwargs)
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._denoise, self, wrappers)
        return executor.execute(x, timestep, context, transformer_options=options, **kwargs)

    def _denoise(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        transformer_options: Options,
        condition: Tensor,
        fps: float,
        shifts: tuple[float, float],
        clean_streams: tuple[bool, bool],
        audio_context: Tensor | None = None,
        control: Any = None,
    ) -> list[Tensor]:
        """`timestep` is the video's, (B,). The audio stream arrives and leaves in the sampler's scaled form; where the
        audio's sigma is given, it arrives as it is, and leaves so that x - (video sigma) * output is its clean estimate.

        A stream of `clean_streams` arrives clean and is shown to the model at timestep 0.
        """
        video, scaled = x
        sigma = timestep / 1000.0
        own, given = audio_sigma(sigma, shifts), run_options(transformer_options).audio_sigma
        if given is not None:
            own = torch.full_like(sigma, given)
        audio = unscaled(scaled, sigma, own, shifts, clean=clean_streams[1])
        run = keeping(transformer_options, runtime(transformer_options, context, shifts[0]))
        video_velocity, velocity = super().forward(
            video,
            audio,
            context,
            torch.zeros_like(timestep) if clean_streams[0] else timestep,
            torch.zeros_like(timestep) if clean_streams[1] else 1000.0 * own,
            condition=condition,
            fps=fps,
            audio_context=audio_context,
            runtime=run,
        )
        if shifts[0] != shifts[1] or given is None:
            return [video_velocity, scaled_velocity(audio, velocity, own, shifts)]
        return [video_velocity, to_video_step(velocity, sigma, own)]

    def _audio_only(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        options: Options,
        shifts: tuple[float, float],
        clean_streams: tuple[bool, bool],
        audio_context: Tensor | None = None,
        **_: Any,
    ) -> list[Tensor]:
        """The audio tower alone at the audio's sigma given, asking the video of the last full forward, which has no velocity."""
        video, audio = x
        asked = run_options(options)
        audio_timestep = torch.full_like(timestep, 0.0 if clean_streams[1] else 1000.0 * asked.audio_sigma)
        run = runtime(options, context, shifts[0])
        text = context if audio_context is None else audio_context
        kept = asked.bridge_cache.keys_values(options, audio.device)
        velocity = audio_velocity(self, audio, text, audio_timestep, kept, run).float()
        ratio = 1000.0 * asked.audio_sigma / timestep
        return [torch.zeros_like(video), velocity * ratio.view((-1,) + (1,) * (audio.ndim - 1))]
