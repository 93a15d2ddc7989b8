"""Waveform <-> audio latents: the continuous DAC codec, mono.

Axes: B batch, C channels, T latent steps; a waveform has T * hop_length samples.
All arithmetic is float32 whatever the stored dtype of the weights: Snake and the many-fold upsampling lose audible
quality in bf16, and the official code runs it so. Latents are neither scaled nor shifted.
Source: DAC, Kumar et al. 2023, arXiv:2306.06546, with a Gaussian posterior in place of the quantiser.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import AudioVAEConfig
from ..errors import MovaError, ShapeError
from ..ops import Ops, cast
from .layers import DecoderBlock, EncoderBlock, Snake1d


class AudioEncoder(nn.Module):
    """(B, 1, T * hop_length) waveform -> (B, latent_channels, T) features."""

    def __init__(self, config: AudioVAEConfig, *, ops: Ops = cast, **factory: Any) -> None:
        super().__init__()
        width = config.encoder_width
        layers: list[nn.Module] = [ops.Conv1d(1, width, 7, padding=3, **factory)]
        for stride in config.encoder_rates:
            layers.append(EncoderBlock(width, stride, ops=ops, **factory))
            width *= 2
        layers += [Snake1d(width, **factory), ops.Conv1d(width, config.latent_channels, 3, padding=1, **factory)]
        self.block = nn.Sequential(*layers)

    def forward(self, waveform: Tensor) -> Tensor:
        features: Tensor = self.block(waveform)
        return features


class AudioDecoder(nn.Module):
    """(B, latent_channels, T) features -> (B, 1, T * hop_length) waveform in [-1, 1]."""

    def __init__(self, config: AudioVAEConfig, *, ops: Ops = cast, **factory: Any) -> None:
        super().__init__()
        width = config.decoder_width
        layers: list[nn.Module] = [ops.Conv1d(config.latent_channels, width, 7, padding=3, **factory)]
        for stride in config.decoder_rates:
            layers.append(DecoderBlock(width, stride, ops=ops, **factory))
            width //= 2
        layers += [Snake1d(width, **factory), ops.Conv1d(width, 1, 7, padding=3, **factory), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        waveform: Tensor = self.model(features)
        return waveform


class AudioVAE(nn.Module):
    """The codec with the key names of the published file (plain `weight` keys; fold weight norm before loading).

    Without `encodes` it is the decode half alone, as some files hold it.
    """

    def __init__(
        self,
        config: AudioVAEConfig,
        *,
        encodes: bool = True,
        ops: Ops = cast,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = config.latent_channels
        self.config, self.encodes = config, encodes
        if encodes:
            self.encoder = AudioEncoder(config, ops=ops, **factory)
            self.quant_conv = ops.Conv1d(channels, 2 * channels, 1, **factory)
        self.post_quant_conv = ops.Conv1d(channels, channels, 1, **factory)
        self.decoder = AudioDecoder(config, ops=ops, **factory)

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per latent step."""
        return self.config.hop_length

    @property
    def latent_channels(self) -> int:
        return self.config.latent_channels

    def encode(self, waveform: Tensor) -> Tensor:
        """Latents of a mono waveform: the mean of the posterior, so nothing is random.

        Takes (B, 1, samples) or (B, samples), floating point in [-1, 1] at `sample_rate`, on the weights' device.
        Silence is appended up to a multiple of `hop_length`.
        Returns (B, latent_channels, ceil(samples / hop_length)) float32.

        Raises:
            ShapeError: `waveform` is not mono, has other axes, or has no samples.
            MovaError: `waveform` holds integers, or this codec is the decode half alone.
        """
        if not self.encodes:
            raise MovaError(
                "this audio VAE is the decode half alone, and a sound is to be encoded; load the whole codec, "
                "audio_vae of MOVA-360p"
            )
        waveform = _mono(waveform).float()
        waveform = F.pad(waveform, (0, -waveform.shape[-1] % self.hop_length))
        moments: Tensor = self.quant_conv(self.encoder(waveform))
        mean, _log_variance = moments.chunk(2, dim=1)
        return mean.contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Waveform of (B, latent_channels, steps) latents: (B, 1, steps * hop_length) float32 in [-1, 1].

        Raises:
            ShapeError: `latents` have other axes or channels, or no steps.
        """
        if latents.ndim != 3 or latents.shape[1] != self.latent_channels or latents.shape[2] == 0:
            raise ShapeError(
                f"audio latents of shape {tuple(latents.shape)} cannot be decoded; wanted "
                f"(batch, {self.latent_channels}, steps). Pass the audio part of the latents, not the video part"
            )
        waveform: Tensor = self.decoder(self.post_quant_conv(latents.float()))
        return waveform


def _mono(waveform: Tensor) -> Tensor:
    """(B, 1, samples) from either accepted form."""
    shape = tuple(waveform.shape)
    if not waveform.is_floating_point():
        raise MovaError(f"a waveform cannot be {waveform.dtype}; scale it to floating point in [-1, 1] first")
    if waveform.ndim == 2:
        waveform = waveform.unsqueeze(1)
    if waveform.ndim != 3 or waveform.shape[2] == 0:
        raise ShapeError(f"a waveform cannot have shape {shape}; wanted (batch, 1, samples) or (batch, samples)")
    if waveform.shape[1] != 1:
        raise ShapeError(
            f"a waveform of shape {shape} has {shape[1]} channels; the audio codec is mono: wanted "
            "(batch, 1, samples). Average the channels first, for example waveform.mean(1, keepdim=True)"
        )
    return waveform
