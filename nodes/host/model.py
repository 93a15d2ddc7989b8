"""MOVA as a ComfyUI model: latents, conditioning and schedules in the host's terms.

LATENT: a NestedTensor of video (B, 16, T, H, W), raw Wan 2.1 VAE latents, and audio (B, C, A), raw DAC latents.
The sampler packs both into one flat tensor. Where the audio has a shift of its own it is carried scaled onto the
video's schedule (ModelSamplingAV), so any stock sampler walks both schedules at once.
"""

import logging
from typing import Any

import comfy.conds
import comfy.context_windows
import comfy.latent_formats
import comfy.model_base
import comfy.nested_tensor
import comfy.ops
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...mova_core.config import MovaConfig, SchedulerConfig
from ...mova_core.errors import ShapeError
from ...mova_core.inputs.latents import check_fit
from ...mova_core.inputs.numbers import real
from ...mova_core.model.audio_only import audio_velocity
from ...mova_core.model.mova import Mova
from ...mova_core.sampling.schedule import reshift
from ...mova_core.shapes import (
    DEFAULT_FPS,
    FPS_RANGE,
    PUBLISHED_GRID,
    AudioGrid,
    AudioShape,
    audio_latent_shape,
    audio_steps,
    frames_of,
)
from ...mova_core.text import CONTEXT_ROWS, pad_context
from . import prism
from .bridge_cache import keeping
from .keys import AUDIO_CONTEXT, AUDIO_STEPS, CLEAN_STREAMS, Options, run_options
from .lora_names import ListedModel, NamedLayer
from .memory import Planned
from .runtime import runtime

log = logging.getLogger("mova")


class MovaLatents(comfy.latent_formats.Wan21):
    """The video stream's format (previews use it); audio latents need no scaling."""

    audio_channels = 128
    audio_grid = PUBLISHED_GRID

    def fix_empty_latent(self, latent: Tensor) -> Any:
        """Give an empty stock video latent its audio stream, at the model's own frame rate."""
        batch, _, length = latent.shape[:3]
        sound = AudioShape(batch=batch, steps=audio_steps(frames_of(length), DEFAULT_FPS, self.audio_grid))
        audio = latent.new_zeros(audio_latent_shape(sound, self.audio_channels))
        return comfy.nested_tensor.NestedTensor((latent, audio))


class MovaSettings(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a model's configuration."""

    unet_extra_config: dict[str, Any] = {}
    latent_format = MovaLatents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    memory_usage_factor = 1.0  # MovaModel.memory_required does not use it

    def __init__(
        self,
        sizes: MovaConfig,
        scheduler: SchedulerConfig,
        audio_shift: float | None = None,
        audio_grid: AudioGrid = PUBLISHED_GRID,
    ) -> None:
        super().__init__({"image_model": "mova", "sizes": sizes})
        self.sizes = sizes
        self.sampling_settings = {"shift": scheduler.shift, "multiplier": 1000, "audio_shift": audio_shift}
        self.latent_format.audio_channels = sizes.audio.in_channels
        self.latent_format.audio_grid = audio_grid
        self.scheduler = scheduler

    def inpaint_model(self) -> bool:
        return False


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
        self, x: list[Tensor], timestep: Tensor, context: Tensor, transformer_options: Any = None, **kwargs: Any
    ) -> list[Tensor]:
        options = {} if transformer_options is None else transformer_options
        if run_options(options).audio_only:  # no evaluation that caches and their like should take for one
            return self._hear(x, timestep, context, options, **kwargs)
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._denoise, self, wrappers)
        return executor.execute(x, timestep, context, transformer_options=options, **kwargs)

    def _denoise(
        self,
        x: list[Tensor],
        timestep: Tensor,
        context: Tensor,
        transformer_options: Any,
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
        video, carried = x
        sigma = timestep / 1000.0
        audio_sigma = sigma if shifts[0] == shifts[1] else reshift(sigma, *shifts)
        given = run_options(transformer_options).audio_sigma
        if given is not None:
            audio_sigma = torch.full_like(sigma, given)
        view = (-1,) + (1,) * (carried.ndim - 1)
        ratio = shifts[1] / shifts[0] if clean_streams[1] else (audio_sigma / sigma.clamp(min=1e-6)).view(view)
        audio = carried if shifts[0] == shifts[1] else (carried.float() * ratio).to(carried.dtype)
        run = keeping(transformer_options, runtime(transformer_options, context, shifts[0]))
        video_velocity, velocity = super().forward(
            video,
            audio,
            context,
            torch.zeros_like(timestep) if clean_streams[0] else timestep,
            torch.zeros_like(timestep) if clean_streams[1] else 1000.0 * audio_sigma,
            condition=condition,
            fps=fps,
            audio_context=audio_context,
            runtime=run,
        )
        if shifts[0] != shifts[1]:
            scale = shifts[0] / shifts[1]
            noise_share = 1.0 + (scale - 1.0) * audio_sigma.view(view)
            velocity = ((1.0 - scale) * audio.float() + noise_share * velocity.float()).to(carried.dtype)
        elif given is not None:
            velocity = velocity.float() * (audio_sigma / sigma).view(view)  # to be taken times the video's sigma
        return [video_velocity, velocity]

    def _hear(
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


class MovaModel(Planned, ListedModel):
    """One expert with audio tower and bridge, as ComfyUI samples it."""

    model_config: MovaSettings

    def __init__(self, settings: MovaSettings, device: Any = None) -> None:
        super().__init__(settings, comfy.model_base.ModelType.FLOW_AV, device=device, unet_model=MovaDiffusion)

    # Latents

    def _streams(self, latent: Any) -> list[Tensor] | None:
        """Video and audio of a nested or packed latent; None for a plain video latent."""
        if getattr(latent, "is_nested", False):
            return list(latent.unbind())
        if latent.ndim == 3 and self.latent_shapes is not None and len(self.latent_shapes) > 1:
            return comfy.utils.unpack_latents(latent, self.latent_shapes)
        return None

    def _each(self, latent: Any, video: Any, audio_scale: float) -> Any:
        streams = self._streams(latent)
        if streams is None:
            return video(latent)
        pair = [video(streams[0]), streams[1] * audio_scale]
        if getattr(latent, "is_nested", False):
            return comfy.nested_tensor.NestedTensor(pair)
        return comfy.utils.pack_latents(pair)[0]

    def process_latent_in(self, latent: Any) -> Any:
        return self._each(latent, self.latent_format.process_in, self._audio_scale())

    def process_latent_out(self, latent: Any) -> Any:
        return self._each(latent, self.latent_format.process_out, 1.0 / self._audio_scale())

    # Schedules

    def shifts(self) -> tuple[float, float]:
        """Shift of the video's schedule and of the audio's, which follows the video's unless it was set."""
        video = getattr(self.model_sampling, "shift", self.model_config.scheduler.shift)
        return video, getattr(self.model_sampling, "audio_shift", None) or video

    def _audio_scale(self) -> float:
        video, audio = self.shifts()
        return video / audio

    def carried_surplus(self, packed: Tensor, sigma: float) -> Tensor:
        """What x - denoised holds of a packed latent beside sigma * velocity (or a multiple of it): for an audio stream
        carried on the video's schedule a share of the latent itself."""
        shifts = self.shifts()
        video, audio = comfy.utils.unpack_latents(packed, self.latent_shapes)
        share = (1.0 - shifts[0] / shifts[1]) * reshift(torch.tensor(sigma), *shifts).item()
        return comfy.utils.pack_latents([torch.zeros_like(video), share * audio])[0]

    # Conditioning

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        kwargs = prism.translated(kwargs)
        out = super().extra_conds(**kwargs)
        shapes = kwargs.get("latent_shapes")
        if shapes is None or len(shapes) < 2:
            raise ShapeError(
                "MOVA denoises picture and sound together, but this latent holds one stream. Make it with "
                "'MOVA Image to Video+Audio', or join a video and an audio latent with 'Concat AV Latent'"
            )
        self._check_channels(shapes[0][1], shapes[1][1])
        image = kwargs.get("concat_latent_image")
        if image is not None:
            check_fit(shapes[0], shapes[1][-1], image.shape, kwargs.get(AUDIO_STEPS))
        text = kwargs.get("cross_attn")
        if text is not None:
            out["c_crossattn"] = comfy.conds.CONDRegular(text if text.shape[1] > CONTEXT_ROWS else pad_context(text))
        sound_text = kwargs.get(AUDIO_CONTEXT)
        if sound_text is not None:
            out["audio_context"] = comfy.conds.CONDRegular(pad_context(sound_text))
        out["condition"] = comfy.conds.CONDRegular(self._condition(shapes[0], **kwargs))
        out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        stated = kwargs.get("frame_rate")
        out["fps"] = comfy.conds.CONDConstant(real(DEFAULT_FPS if stated is None else stated, *FPS_RANGE))
        out["shifts"] = comfy.conds.CONDConstant(self.shifts())
        out[CLEAN_STREAMS] = comfy.conds.CONDConstant(self.clean_streams(kwargs.get("denoise_mask"), shapes))
        return out

    def _check_channels(self, video: int, audio: int) -> None:
        sizes = self.diffusion_model.sizes
        if (video, audio) != (sizes.video.out_channels, sizes.audio.out_channels):
            raise ShapeError(
                f"this latent has {video} video and {audio} audio channels, the model {sizes.video.out_channels} and "
                f"{sizes.audio.out_channels}; make it with 'MOVA Image to Video+Audio' and the VAE of the same 'MOVA Loader'"
            )

    def _condition(self, shape: Any, **kwargs: Any) -> Tensor:
        """(1 or B, 20, T, H, W) mask and normalised image latents, from Wan's conditioning values, or of Prism's as it is."""
        batch, _, frames, height, width = shape
        device, image, mask = kwargs["device"], kwargs.get("concat_latent_image"), kwargs.get("concat_mask")
        reference = kwargs.get(prism.REFERENCE)
        if image is None and reference is None:
            log.warning(
                "no first-frame condition: MOVA was never trained with zeros there. Put 'MOVA Image to Video+Audio' "
                "before the sampler; without a picture it makes the white frame the model knows"
            )
            return torch.zeros((1, self.diffusion_model.sizes.condition_channels, *shape[2:]), device=device)
        known_frames = image if reference is None else reference
        if len(known_frames) not in (1, batch):
            raise ShapeError(
                f"the conditioning holds first frames for a batch of {len(known_frames)}, the latent is a batch of {batch}; "
                "connect conditioning and latent of the same 'MOVA Image to Video+Audio'"
            )
        if reference is not None:
            return _fitted(reference.to(device), frames, height, width)
        image = self.latent_format.process_in(_fitted(image.to(device), frames, height, width))
        known = (
            torch.zeros_like(image[:, :4])
            if mask is None
            else 1.0 - _fitted(mask.to(image), frames, height, width, 1.0)
        )
        return torch.cat((known.expand(image.shape[0], 4, -1, -1, -1), image), dim=1)

    # Held streams

    def clean_streams(self, mask: Tensor | None, shapes: Any) -> tuple[bool, bool]:
        """Which streams the packed mask keeps whole and the model is to see clean, as training with separate
        timesteps showed it; a stream kept in part runs along at the common noise level."""
        if mask is None:
            return False, False
        video, audio = (not bool(part.any()) for part in comfy.utils.unpack_latents(mask, shapes))
        return video, audio

    def scale_latent_inpaint(
        self, sigma: Tensor, noise: Tensor, latent_image: Tensor, denoise_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """What the model sees where the mask keeps the latent: noised to `sigma`, or clean where a whole stream is held."""
        noised = super().scale_latent_inpaint(sigma=sigma, noise=noise, latent_image=latent_image)
        clean = self.clean_streams(denoise_mask, self.latent_shapes)
        if not any(clean):
            return noised
        pairs = zip(comfy.utils.unpack_latents(latent_image, self.latent_shapes), self._streams(noised) or [], clean)
        return comfy.utils.pack_latents([clean if keep else along for clean, along, keep in pairs])[0]

    # Context windows

    def map_context_window_to_modalities(
        self, primary_indices: list[int], latent_shapes: Any, dim: int
    ) -> list[list[int]]:
        """The audio steps that sound during the given latent frames."""
        windows = [list(primary_indices)]
        frames = latent_shapes[0][dim]
        for shape in latent_shapes[1:]:
            steps = shape[dim]
            heard: dict[int, None] = {}
            for index in primary_indices:
                begin = min(round(index * steps / frames), steps - 1)
                heard |= dict.fromkeys(range(begin, max(begin + 1, min(round((index + 1) * steps / frames), steps))))
            windows.append(list(heard))
        return windows

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: Any, device: Any, retain_index_list: Any = ()
    ) -> Any:
        if cond_key != "condition":
            return None
        keep = list(retain_index_list)
        return comfy.context_windows.slice_cond(
            cond_value, window, x_in, device, temporal_dim=2, retain_index_list=keep
        )


def _fitted(latent: Tensor, frames: int, height: int, width: int, fill: float = 0.0) -> Tensor:
    """A conditioning latent on the grid of the clip: resized as core's Wan does, padded or cut in time."""
    if latent.shape[-2:] != (height, width):
        latent = comfy.utils.common_upscale(latent, width, height, "bilinear", "center")
    if latent.shape[2] < frames:
        latent = torch.nn.functional.pad(latent, (0, 0, 0, 0, 0, frames - latent.shape[2]), value=fill)
    return latent[:, :, :frames]
