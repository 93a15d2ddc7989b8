"""The joint model under the signature by which ComfyUI calls a diffusion model."""

from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....mova_core.config import MovaConfig
from ....mova_core.model.audio_only import audio_layers, audio_velocity
from ....mova_core.model.mova import Mova
from ....mova_core.model.teacher import collect
from ....mova_core.ops import Ops
from ....mova_core.sampling.av_schedule import audio_sigma, scaled_velocity, to_video_step, unscaled
from ..keys import Options, run_options
from ..patching.lora_names import NamedLayer
from .bridge_cache import keeping
from .pass_weights import outside_layers
from .runtime import runtime
from .sound_streams import SoundStreams


class MovaDiffusion(Mova):
    """The joint model under the signature ComfyUI calls."""

    def __init__(
        self, *, sizes: MovaConfig, dtype: torch.dtype, device: torch.device, operations: Ops, image_model: str
    ) -> None:
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

    def forward(  # type: ignore[override]  # as ComfyUI calls its models
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        options = {} if transformer_options is None else transformer_options
        forward = run_options(options).forward
        if forward != "full":  # no evaluation that caches and their like should take for one
            return (self._audio_only if forward == "audio" else self._taught)(x, timestep, context, options, **kwargs)
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
        audio_negative: Tensor | None = None,
        control: object = None,
    ) -> list[Tensor]:
        """`timestep` is the video's, (B,). The audio stream arrives and leaves in the sampler's scaled form; where the
        audio's sigma is given, it arrives as it is, and leaves so that x - (video sigma) * output is its clean estimate.

        A stream of `clean_streams` arrives clean and is shown to the model at timestep 0.
        """
        video, asked = x[0], run_options(transformer_options)
        audio, own = _shown_audio(x[1], timestep, asked.audio_sigma, shifts, clean_streams)
        sound = SoundStreams(asked.audio_scale, audio_negative)
        run = keeping(transformer_options, runtime(transformer_options, context, shifts[0], self))
        with outside_layers(self, asked.weights, context.device):
            video_velocity, velocity = super().forward(
                video,
                sound.each(audio),
                context,
                torch.zeros_like(timestep) if clean_streams[0] else timestep,
                sound.each(torch.zeros_like(timestep) if clean_streams[1] else 1000.0 * own),
                condition=condition,
                fps=fps,
                audio_context=sound.texts(context if audio_context is None else audio_context),
                runtime=run,
            )
        velocity = sound.guided(velocity)
        if shifts[0] != shifts[1] or asked.audio_sigma is None:
            return [video_velocity, scaled_velocity(audio, velocity, own, shifts)]
        return [video_velocity, to_video_step(velocity, timestep / 1000.0, own)]

    def _audio_only(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        options: Options,
        shifts: tuple[float, float],
        clean_streams: tuple[bool, bool],
        audio_context: Tensor | None = None,
        audio_negative: Tensor | None = None,
        **_: object,
    ) -> list[Tensor]:
        """The audio tower at the audio's sigma given, asking the video of the last full forward; no velocity of that."""
        video, audio = x
        asked = run_options(options)
        assert asked.bridge_cache is not None, "who asks for the sound alone gives what it heard"
        assert asked.audio_sigma is not None, "who asks for the sound alone says its noise level"
        sound, own = SoundStreams(asked.audio_scale, audio_negative), torch.full_like(timestep, asked.audio_sigma)
        times = torch.zeros_like(timestep) if clean_streams[1] else 1000.0 * own
        texts = sound.texts(context if audio_context is None else audio_context)
        kept = asked.bridge_cache.keys_values(options, audio.device, context.dtype)
        stay = asked.bridge_cache.weights
        stay.bring(audio_layers(self, sorted(kept)), asked.sound_room, context.device)
        run = runtime(options, context, shifts[0], self, stay.layers)
        with outside_layers(self, asked.weights, context.device):
            velocity = audio_velocity(self, sound.each(audio), texts, sound.each(times), kept, run)
        return [torch.zeros_like(video), to_video_step(sound.guided(velocity), timestep / 1000.0, own)]

    def _taught(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        options: Options,
        condition: Tensor,
        fps: float,
        shifts: tuple[float, float],
        clean_streams: tuple[bool, bool],
        audio_context: Tensor | None = None,
        **_: object,
    ) -> list[Tensor]:
        """Fill the cache with the keys and values of the teacher's weights; no velocities."""
        asked = run_options(options)
        assert asked.bridge_cache is not None, "who asks a teacher gives what it fills"
        audio, own = _shown_audio(x[1], timestep, asked.audio_sigma, shifts, clean_streams)
        start, states = asked.bridge_cache.keeping.teacher or 0, asked.bridge_cache.teacher_states(options)
        if not start or states is not None:  # else a step cache has left the forward out: nothing new to hear
            with outside_layers(self, asked.weights, context.device):
                collect(
                    self,
                    x[0],
                    audio,
                    (context, context if audio_context is None else audio_context),
                    (
                        torch.zeros_like(timestep) if clean_streams[0] else timestep,
                        torch.zeros_like(timestep) if clean_streams[1] else 1000.0 * own,
                    ),
                    condition=condition,
                    fps=fps,
                    runtime=keeping(options, runtime(options, context, shifts[0], self)),
                    start=start,
                    states=states,
                )
        return [torch.zeros_like(stream) for stream in x]


def _shown_audio(
    scaled: Tensor, timestep: Tensor, given: float | None, shifts: tuple[float, float], clean: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The audio as the model sees it, and its (B,) sigma: `given`, or the one that its shift makes of the video's."""
    sigma = timestep / 1000.0
    own = audio_sigma(sigma, shifts) if given is None else torch.full_like(sigma, given)
    return unscaled(scaled, sigma, own, shifts, clean=clean[1]), own
