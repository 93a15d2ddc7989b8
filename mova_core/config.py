"""Sizes of every part of the model, as data that cannot be half valid.

No field has a default: a checkpoint decides them. `mova_core/checkpoint/configs.py` reads them from config.json,
`mova_core/checkpoint/detect.py` from key names and shapes.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from .errors import ConfigError

HEAD_WIDTH = 128  # every published Wan and MOVA tower; only used where no config.json states the heads

LARGEST_SIZE = 2**24  # of any size: beyond it a number is damage, not a configuration
LARGEST_EPS = 1e-2  # norms of published models have 1e-6 and 1e-5; 0 divides by nothing, 1 is no norm


def _check_numbers(config: Any) -> None:
    """Accept whole numbers above 0 for sizes, numbers of at least 0 for measures."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type is float:
            good = type(value) in (int, float) and 0 <= value <= LARGEST_SIZE
        else:
            sizes = (value,) if field.type is int else value
            good = type(sizes) is tuple and sizes != () and all(type(n) is int and 0 < n <= LARGEST_SIZE for n in sizes)
        if field.name == "eps":
            good = good and 0 < value <= LARGEST_EPS
        if not good:
            raise ConfigError(f"{field.name} is {value!r:.50}, not a possible size")


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """One diffusion transformer. `patch` is (frames, height, width) for video, (steps,) for audio."""

    width: int
    heads: int
    layers: int
    ffn_width: int
    in_channels: int
    out_channels: int
    patch: tuple[int, ...]
    text_width: int
    frequency_width: int
    eps: float

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(
                f"a tower of width {self.width} cannot have {self.heads} heads: heads must divide it into even widths"
            )
        if self.patch not in ((1,), (1, 2, 2)):
            raise ConfigError(
                f"patch size {self.patch} is not implemented; video towers use (1, 2, 2), audio towers (1,)"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Cross-attention between the towers, both ways, before each of the first `layers` layers."""

    layers: int
    video_width: int
    audio_width: int
    head_width: int
    audio_rate: float  # audio latent steps a second that one rotary position stands for
    eps: float

    def __post_init__(self) -> None:
        _check_numbers(self)
        for width in (self.video_width, self.audio_width):
            if width % self.head_width or self.head_width % 2:
                raise ConfigError(f"bridge heads of {self.head_width} do not divide a tower of width {width} evenly")
        if self.audio_rate == 0:
            raise ConfigError("the bridge cannot count 0 audio steps a second")


@dataclass(frozen=True, kw_only=True)
class MovaConfig:
    """One expert with the audio tower and the bridge: what a single forward pass needs."""

    video: TowerConfig
    audio: TowerConfig
    bridge: BridgeConfig

    def __post_init__(self) -> None:
        for name, tower, axes in (("video", self.video, 3), ("audio", self.audio, 1)):
            if len(tower.patch) != axes:
                raise ConfigError(f"a tower of patch size {tower.patch} stands where the {name} tower belongs")
        if self.condition_channels <= 0:
            raise ConfigError(
                f"the video tower takes {self.video.in_channels} channels and makes {self.video.out_channels}, so it "
                "takes no first frame; MOVA's experts do"
            )
        if self.audio.in_channels != self.audio.out_channels:
            raise ConfigError(
                f"the audio tower takes {self.audio.in_channels} channels and makes {self.audio.out_channels}"
            )
        widths = (self.bridge.video_width, self.bridge.audio_width)
        if widths != (self.video.width, self.audio.width):
            raise ConfigError(
                f"the bridge joins towers of widths {widths}, these are ({self.video.width}, {self.audio.width})"
            )
        if self.bridge.layers > min(self.video.layers, self.audio.layers):
            raise ConfigError(
                f"{self.bridge.layers} bridge layers for towers of {self.video.layers} and {self.audio.layers} layers"
            )
        if self.audio.layers > self.video.layers:
            raise ConfigError(f"an audio tower of {self.audio.layers} layers is deeper than the video tower")
        if self.video.text_width != self.audio.text_width:
            raise ConfigError(f"towers expect text of widths {self.video.text_width} and {self.audio.text_width}")

    @property
    def condition_channels(self) -> int:
        """Channels of the first-frame condition: the mask's 4 and the image latents'."""
        return self.video.in_channels - self.video.out_channels


@dataclass(frozen=True, kw_only=True)
class AudioVAEConfig:
    """The DAC codec: strided encoder, Gaussian posterior, strided decoder. Mono."""

    encoder_width: int
    encoder_rates: tuple[int, ...]
    decoder_width: int
    decoder_rates: tuple[int, ...]
    latent_channels: int
    sample_rate: int

    def __post_init__(self) -> None:
        _check_numbers(self)
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ConfigError(
                f"encoder strides {self.encoder_rates} and decoder strides {self.decoder_rates} differ in product"
            )

    @property
    def hop_length(self) -> int:
        """Samples per latent step."""
        return math.prod(self.encoder_rates)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What the checkpoint says of its noise schedule, and where its experts change."""

    shift: float
    sigma_min: float
    boundary: float  # video sigma; below it (strict) the low-noise expert works

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.shift == 0 or self.sigma_min >= 1 or self.boundary > 1:
            raise ConfigError(
                f"shift {self.shift}, sigma_min {self.sigma_min} and boundary {self.boundary} make no schedule: "
                "shift must be above 0, sigma_min below 1, boundary at most 1"
            )


_COMMON: dict[str, Any] = {"text_width": 4096, "frequency_width": 256, "eps": 1e-6}
MOVA = MovaConfig(
    video=TowerConfig(
        width=5120, heads=40, layers=40, ffn_width=13824, in_channels=36, out_channels=16, patch=(1, 2, 2), **_COMMON
    ),
    audio=TowerConfig(
        width=1536, heads=12, layers=30, ffn_width=8960, in_channels=128, out_channels=128, patch=(1,), **_COMMON
    ),
    bridge=BridgeConfig(layers=30, video_width=5120, audio_width=1536, head_width=128, audio_rate=50.0, eps=1e-6),
)
"""MOVA-360p and MOVA-720p: the same architecture, other weights."""

MOVA_AUDIO_VAE = AudioVAEConfig(
    encoder_width=128,
    encoder_rates=(2, 3, 4, 5, 8),
    decoder_width=2048,
    decoder_rates=(8, 5, 4, 3, 2),
    latent_channels=128,
    sample_rate=48000,
)
MOVA_SCHEDULER = SchedulerConfig(shift=5.0, sigma_min=0.0, boundary=0.9)
