"""What ComfyUI asks of MOVA's configuration: precision, sampling, and the format of its latents."""

import comfy.latent_formats
import comfy.nested_tensor
import comfy.supported_models_base
import torch
from torch import Tensor

from ....mova_core.checkpoint.variants import PLAIN_MOVA, ModelVariant
from ....mova_core.config import MovaConfig, SchedulerConfig
from ....mova_core.shapes import (
    DEFAULT_FPS,
    PUBLISHED_GRID,
    AudioGrid,
    AudioShape,
    audio_latent_shape,
    audio_steps,
    frames_of,
)


class MovaLatents(comfy.latent_formats.Wan21):
    """The video stream's format (previews use it); audio latents need no scaling."""

    audio_channels = 128
    audio_grid = PUBLISHED_GRID

    def fix_empty_latent(self, latent: Tensor) -> Tensor | comfy.nested_tensor.NestedTensor:
        """Give an empty stock video latent its audio stream, at the model's own frame rate. What is no video stays as it
        is, and is refused by the model."""
        if latent.ndim != 5:
            return latent
        batch, _, length = latent.shape[:3]
        sound = AudioShape(batch=batch, steps=audio_steps(frames_of(length), DEFAULT_FPS, self.audio_grid))
        audio = latent.new_zeros(audio_latent_shape(sound, self.audio_channels))
        return comfy.nested_tensor.NestedTensor((latent, audio))


class MovaSettings(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a model's configuration."""

    unet_extra_config: dict[str, object] = {}
    latent_format = MovaLatents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    memory_usage_factor = 1.0  # MovaModel.memory_required does not use it

    def __init__(
        self,
        sizes: MovaConfig,
        scheduler: SchedulerConfig,
        audio_shift: float | None = None,
        audio_grid: AudioGrid = PUBLISHED_GRID,
        variant: ModelVariant = PLAIN_MOVA,
    ) -> None:
        super().__init__({"image_model": "mova", "sizes": sizes})
        self.sizes = sizes
        self.sampling_settings = {"shift": scheduler.shift, "multiplier": 1000, "audio_shift": audio_shift}
        self.latent_format.audio_channels = sizes.audio.in_channels
        self.latent_format.audio_grid = audio_grid
        self.scheduler = scheduler
        self.variant = variant

    def inpaint_model(self) -> bool:
        return False
