"""The DAC codec with the interface of comfy.sd.VAE, so stock audio nodes work on it."""

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ....mova_core.audio_vae.codec import AudioVAE
from ....mova_core.checkpoint.load import assign, encodes, shapes_of
from ....mova_core.checkpoint.source import audio_vae
from ....mova_core.config import AudioVAEConfig
from ....mova_core.errors import CheckpointError, ShapeError
from ....mova_core.inputs.numbers import told
from ....mova_core.shapes import VIDEO_LATENT_CHANNELS, AudioGrid, check_audio_steps, frames_of
from ....mova_core.waveform import mono
from .. import newer

STEP_BYTES = 1.2 * 2**20  # float32 activations a latent step of the full-size decoder, counted 0.94 MiB
ENCODE_STEP_BYTES = 2.3 * 2**20  # of the encoder, counted 1.9 MiB


class MovaAudioVAE(comfy.sd.VAE):
    """48 kHz mono audio <-> (B, C, A) latents, always computed in float32."""

    def __init__(self, codec: AudioVAE, disk: dict[str, bool]) -> None:
        self.first_stage_model = codec
        self.audio_sample_rate = codec.sample_rate
        self.downscale_ratio = self.upscale_ratio = codec.hop_length
        self.latent_channels, self.latent_dim, self.output_channels = codec.latent_channels, 1, 1
        self.memory_used_encode = lambda shape, dtype: shape[0] * shape[-1] / codec.hop_length * ENCODE_STEP_BYTES
        self.memory_used_decode = lambda shape, dtype: shape[0] * shape[-1] * STEP_BYTES
        self.process_input = self.process_output = lambda audio: audio
        self.working_dtypes, self.vae_dtype = [torch.float32], torch.float32
        self.disable_offload = self.not_video = self.handles_tiling = self.crop_input = False
        self.pad_channel_value = self.format_encoded = self.size = self.extra_1d_channel = None
        self.downscale_index_formula = self.upscale_index_formula = None
        self.device = comfy.model_management.vae_device()
        self.output_device = comfy.model_management.intermediate_device()
        comfy.model_management.archive_model_dtypes(codec)
        offload = comfy.model_management.vae_offload_device()
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            codec, load_device=self.device, offload_device=offload, **disk
        )
        self.model_size()

    @property
    def audio_grid(self) -> AudioGrid:
        """How it counts sound."""
        return AudioGrid(sample_rate=self.audio_sample_rate, hop_length=self.downscale_ratio)

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """(B, samples, channels) mixed down to one channel, whole latent steps."""
        one = mono(pixels.movedim(-1, 1)).movedim(1, -1)
        return torch.nn.functional.pad(one, (0, 0, 0, -one.shape[1] % self.downscale_ratio))

    def vae_output_dtype(self) -> torch.dtype:
        return torch.float32


def check(vae: object) -> "MovaAudioVAE":
    """Accept the audio VAE of MOVA only.

    Raises:
        CheckpointError: another VAE is connected.
    """
    if not isinstance(vae, MovaAudioVAE):
        raise CheckpointError("this VAE is not MOVA's audio VAE; connect the AUDIO VAE output of 'MOVA Loader'")
    return vae


def check_video(vae: comfy.sd.VAE) -> comfy.sd.VAE:
    """Accept a video VAE of 16 channels.

    Raises:
        CheckpointError: another is connected where the video VAE belongs.
    """
    if isinstance(vae, MovaAudioVAE):
        raise CheckpointError("this VAE is MOVA's audio VAE; connect the VAE output of 'MOVA Loader', or wan_2.1_vae")
    if not all(hasattr(vae, name) for name in ("encode", "decode", "latent_channels")):
        raise CheckpointError(f"{told(vae)} is no VAE; connect the VAE output of 'MOVA Loader', or wan_2.1_vae")
    made = vae.latent_channels, getattr(vae, "latent_dim", 3)
    if made != (VIDEO_LATENT_CHANNELS, 3):
        kind = {1: "sound", 2: "pictures", 3: "video"}.get(made[1], "something else")
        raise CheckpointError(
            f"this VAE is of another model: it makes {made[0]} channels of {kind}, MOVA's {VIDEO_LATENT_CHANNELS} of "
            "video; connect the VAE output of 'MOVA Loader', or wan_2.1_vae"
        )
    return vae


def check_decodable(video: Tensor, sound: Tensor, vae: comfy.sd.VAE, audio_vae: MovaAudioVAE, fps: float) -> None:
    """Accept the streams of a joint latent that these VAEs made.

    Raises:
        ShapeError: another number of channels, or a sound that is far from as long as the picture.
    """
    check_audio_steps(sound.shape[-1], frames_of(video.shape[2]), fps, audio_vae.audio_grid)
    check_channels("picture", video, vae)
    check_channels("sound", sound, audio_vae)


def check_channels(name: str, part: Tensor, vae: comfy.sd.VAE) -> None:
    """Accept the stream (B, C, ...) of a joint latent that this VAE could have made.

    Raises:
        ShapeError: another number of channels.
    """
    if part.shape[1] != vae.latent_channels:
        raise ShapeError(
            f"the {name} of this latent has {part.shape[1]} channels, its VAE makes {vae.latent_channels}; connect latent "
            "and VAE of the same 'MOVA Loader'"
        )


def load_audio_vae(place: Path) -> MovaAudioVAE:
    """The codec of a published folder, of its audio_vae folder, or of one file, in either key style.

    Raises:
        CheckpointError, ConfigError: missing, damaged, or not a DAC.
    """
    vae = _codec(*audio_vae(place, _read), str(place))
    vae.patcher.cached_patcher_init = (audio_vae_patcher, (place,))
    return vae


def audio_vae_patcher(place: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """What ComfyUI asks for again, to have the VAE on another device; as `loading.video_vae_patcher`."""
    return load_audio_vae(place).patcher


def _read(path: Path) -> dict[str, Tensor]:
    return comfy.utils.load_torch_file(str(path))


def _codec(config: AudioVAEConfig, tensors: dict[str, Tensor], where: str) -> MovaAudioVAE:
    stored = next(iter(tensors.values())).dtype
    codec = AudioVAE(config, encodes=encodes(tensors), ops=comfy.ops.manual_cast, device="meta", dtype=stored)
    assign(
        codec, tensors, where, shapes=shapes_of(AudioVAE(config, encodes=encodes(tensors), device="meta", dtype=stored))
    )
    return MovaAudioVAE(codec, newer.disk(tensors))
