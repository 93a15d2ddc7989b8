"""MOVA as a ComfyUI model: latents, conditioning, schedules and context windows in the host's terms.

LATENT: a NestedTensor of video (B, 16, T, H, W), raw Wan 2.1 VAE latents, and audio (B, C, A), raw DAC latents.
The sampler packs both into one flat tensor. Where the audio has a shift of its own it is scaled onto the video's schedule
(`mova_core.sampling.av_schedule`), so any stock sampler walks both schedules at once.
"""

import logging
from collections.abc import Callable, Sequence

import comfy.conds
import comfy.context_windows
import comfy.model_base
import comfy.nested_tensor
import comfy.utils
import torch
from comfy.conds import CONDRegular
from comfy.context_windows import IndexListContextWindow
from comfy.model_patcher import ModelPatcher
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ....mova_core.checkpoint.variants import ModelVariant
from ....mova_core.errors import ShapeError
from ....mova_core.inputs.latents import check_finite, check_fit, check_streams
from ....mova_core.inputs.numbers import real, told
from ....mova_core.sampling.av_schedule import clean_scale, latent_share
from ....mova_core.shapes import DEFAULT_FPS, FPS_RANGE, steps_during
from ....mova_core.text import CONTEXT_ROWS, pad_context
from ..keys import AUDIO_CONTEXT, AUDIO_STEPS, CLEAN_STREAMS
from ..patching.lora_names import ListedModel
from ..types import Shapes, Values
from . import prism
from .diffusion import MovaDiffusion
from .memory import Planned
from .settings import MovaSettings

log = logging.getLogger("mova")


class MovaModel(Planned, ListedModel):
    """One expert with audio tower and bridge, as ComfyUI samples it."""

    model_config: MovaSettings

    def __init__(self, settings: MovaSettings, device: torch.device | None = None) -> None:
        super().__init__(settings, comfy.model_base.ModelType.FLOW_AV, device=device, unet_model=MovaDiffusion)

    # Latents

    def _streams(self, latent: NestedTensor | Tensor) -> list[Tensor] | None:
        """Video and audio of a nested or packed latent; None for a plain video latent."""
        if getattr(latent, "is_nested", False):
            return list(latent.unbind())
        if latent.ndim == 3 and self.latent_shapes is not None and len(self.latent_shapes) > 1:
            return comfy.utils.unpack_latents(latent, self.latent_shapes)
        return None

    def _each(
        self, latent: NestedTensor | Tensor, video: Callable[[Tensor], Tensor], audio_scale: float
    ) -> NestedTensor | Tensor:
        streams = self._streams(latent)
        if streams is None:
            return video(latent)
        pair = [video(streams[0]), streams[1] * audio_scale]
        if getattr(latent, "is_nested", False):
            return comfy.nested_tensor.NestedTensor(pair)
        return comfy.utils.pack_latents(pair)[0]

    def process_latent_in(self, latent: NestedTensor | Tensor) -> NestedTensor | Tensor:
        return self._each(latent, self.latent_format.process_in, clean_scale(self.shifts()))

    def process_latent_out(self, latent: NestedTensor | Tensor) -> NestedTensor | Tensor:
        return self._each(latent, self.latent_format.process_out, 1.0 / clean_scale(self.shifts()))

    # Schedules

    def shifts(self) -> tuple[float, float]:
        """Shift of the video's schedule and of the audio's, which follows the video's unless it was set."""
        video = getattr(self.model_sampling, "shift", self.model_config.scheduler.shift)
        return video, getattr(self.model_sampling, "audio_shift", None) or video

    def latent_share(self, packed: Tensor, sigma: float) -> Tensor:
        """What x - denoised holds of a packed latent beside a multiple of the velocity."""
        video, audio = comfy.utils.unpack_latents(packed, self.latent_shapes)
        share = latent_share(sigma, self.shifts())
        return comfy.utils.pack_latents([torch.zeros_like(video), share * audio])[0]

    # Conditioning

    def extra_conds(self, **kwargs: object) -> Values:
        values: Values = prism.translated(kwargs)
        out: Values = {}  # not core's: MOVA has no input for a ControlNet's prompt, or for pictures beside the latent
        shapes: Shapes = values.get("latent_shapes") or ()
        check_streams(shapes)
        self._check_channels(shapes[0][1], shapes[1][1])
        image = values.get("concat_latent_image")
        if image is not None:
            check_fit(shapes[0], shapes[1][-1], image.shape, values.get(AUDIO_STEPS))
        text = values.get("cross_attn")
        if text is not None:
            check_finite("the prompt in this conditioning", text)
            out["c_crossattn"] = comfy.conds.CONDRegular(text if text.shape[1] > CONTEXT_ROWS else pad_context(text))
        sound_text = values.get(AUDIO_CONTEXT)
        if sound_text is not None:
            out["audio_context"] = comfy.conds.CONDRegular(pad_context(sound_text))
        out["condition"] = comfy.conds.CONDRegular(self._condition(shapes[0], values))
        out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        stated = values.get("frame_rate")
        out["fps"] = comfy.conds.CONDConstant(real(DEFAULT_FPS if stated is None else stated, *FPS_RANGE))
        out["shifts"] = comfy.conds.CONDConstant(self.shifts())
        out[CLEAN_STREAMS] = comfy.conds.CONDConstant(self.clean_streams(values.get("denoise_mask"), shapes))
        return out

    def _check_channels(self, video: int, audio: int) -> None:
        sizes = self.diffusion_model.sizes
        if (video, audio) != (sizes.video.out_channels, sizes.audio.out_channels):
            raise ShapeError(
                f"this latent has {video} video and {audio} audio channels, the model {sizes.video.out_channels} and "
                f"{sizes.audio.out_channels}; make it with 'MOVA Image to Video+Audio' and the VAE of the same 'MOVA Loader'"
            )

    def _condition(self, shape: Sequence[int], values: Values) -> Tensor:
        """(1 or B, 20, T, H, W) mask and normalised image latents, from Wan's conditioning values, or of Prism's as it is."""
        batch, _, frames, height, width = shape
        device, image, mask = values["device"], values.get("concat_latent_image"), values.get("concat_mask")
        reference = values.get(prism.REFERENCE)
        known_frames = image if reference is None else reference
        if known_frames is None:
            log.warning(
                "no first-frame condition: MOVA was never trained with zeros there. Put 'MOVA Image to Video+Audio' "
                "before the sampler; without a picture it makes the white frame the model knows"
            )
            return torch.zeros((1, self.diffusion_model.sizes.condition_channels, *shape[2:]), device=device)
        if len(known_frames) not in (1, batch):
            raise ShapeError(
                f"the conditioning holds first frames for a batch of {len(known_frames)}, the latent is a batch of {batch}; "
                "connect conditioning and latent of the same 'MOVA Image to Video+Audio'"
            )
        if reference is not None:
            return _fitted(reference.to(device), frames, height, width)
        if mask is not None and (
            mask.ndim != 5 or mask.shape[1] not in (1, 4) or len(mask) not in (1, len(known_frames))
        ):
            raise ShapeError(
                f"the mask of the first frames in this conditioning is {tuple(mask.shape)}; it must be (batch, 1 or 4, frames, "
                "height, width). Use 'MOVA Image to Video+Audio'"
            )
        image = self.latent_format.process_in(_fitted(known_frames.to(device), frames, height, width))
        known = (
            torch.zeros_like(image[:, :4])
            if mask is None
            else 1.0 - _fitted(mask.to(image), frames, height, width, 1.0)
        )
        return torch.cat((known.expand(image.shape[0], 4, -1, -1, -1), image), dim=1)

    # Held streams

    def clean_streams(self, mask: Tensor | None, shapes: Shapes) -> tuple[bool, bool]:
        """Which streams the packed mask keeps whole and the model is to see clean, as training with separate
        timesteps showed it; a stream kept in part runs along at the common noise level."""
        if mask is None:
            return False, False
        video, audio = (not bool(part.any()) for part in comfy.utils.unpack_latents(mask, shapes))
        return video, audio

    def scale_latent_inpaint(
        self, sigma: Tensor, noise: Tensor, latent_image: Tensor, denoise_mask: Tensor | None = None, **kwargs: object
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
        self, primary_indices: list[int], latent_shapes: Shapes, dim: int
    ) -> list[list[int]]:
        """The audio steps that sound during the given latent frames."""
        frames = latent_shapes[0][dim]
        sounding = (steps_during(primary_indices, frames, shape[dim]) for shape in latent_shapes[1:])
        return [list(primary_indices), *sounding]

    def resize_cond_for_context_window(
        self,
        cond_key: str,
        cond_value: CONDRegular,
        window: IndexListContextWindow,
        x_in: Tensor,
        device: torch.device,
        retain_index_list: Sequence[int] = (),
    ) -> CONDRegular | None:
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


def model_variant(model: ModelPatcher) -> ModelVariant:
    """Which of MOVA's variants a MODEL is: its words, defaults, and how it takes pictures."""
    variant: ModelVariant = model.model.model_config.variant
    return variant


def check_model(model: object) -> None:
    """Accept MOVA only.

    Raises:
        ShapeError: the MODEL is another one.
    """
    inner = getattr(model, "model", None)
    if inner is None:
        raise ShapeError(f"{told(model)} is no MODEL; connect that of 'MOVA Loader'")
    if not isinstance(inner, MovaModel):
        raise ShapeError(f"this MODEL is {type(inner).__name__}, not MOVA; connect the MODEL of 'MOVA Loader'")
