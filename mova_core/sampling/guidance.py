"""Classifier-free guidance on a pair of velocities, video and audio.

Source: OpenMOSS/MOVA 595a976 `pipeline_mova.py` for text guidance; the MOVA paper, equation 6, for the bridge's own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from ..errors import ConfigError

Velocities: TypeAlias = tuple[Tensor, Tensor]
"""Of the video latents (B, C, T, h, w) and of the audio latents (B, C, steps)."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far to go from the negative prompt to the positive, and from separate towers to joined ones."""

    text_scale: float = 5.0
    audio_text_scale: float | None = None  # None: as `text_scale`
    bridge_scale: float = 1.0  # 1: no guidance by the bridge, and no third evaluation; the paper reports 3.5
    rescale: float = 0.0  # 0: none; 1: guided velocities spread exactly as far as the positive ones

    def __post_init__(self) -> None:
        for name, scale in (("text", self.text_scale), ("audio text", self.audio), ("bridge", self.bridge_scale)):
            if not math.isfinite(scale):
                raise ConfigError(f"the {name} guidance scale is {scale}; it must be a finite number, 1 for none")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale is {self.rescale}; it must be between 0 (none) and 1 (full)")

    @property
    def audio(self) -> float:
        """The text scale of the audio."""
        return self.text_scale if self.audio_text_scale is None else self.audio_text_scale

    @property
    def evaluations(self) -> int:
        """Forwards a step; where the sound alone is guided, it is within its own."""
        if self.bridge_scale == 1:
            return 1 if self.text_scale == 1 and not self.rescale else 2
        return 2 if self.text_scale == self.audio == self.bridge_scale else 3


def guide(predict: Callable[[bool, bool], Velocities], guidance: Guidance) -> Velocities:
    """Guided velocities in float32, from as few evaluations as the scales allow: one, two or three.

    `predict(positive, bridge)` evaluates the model with the positive or negative prompt, with or without the bridge.
    """
    full = predict(True, True)
    scales = (guidance.text_scale, guidance.audio)
    if guidance.bridge_scale == 1:
        if scales == (1, 1):
            return full[0].float(), full[1].float()
        guided = text_guidance(full, predict(False, True), *scales)
    elif scales == (guidance.bridge_scale, guidance.bridge_scale):
        guided = text_guidance(full, predict(False, False), *scales)  # the middle term of equation 6 cancels
    else:
        guided = dual_guidance(predict(False, False), predict(False, True), full, guidance.bridge_scale, *scales)
    return rescale_guidance(guided, full, guidance.rescale) if guidance.rescale else guided


def text_guidance(
    positive: Velocities, negative: Velocities, scale: float, audio_scale: float | None = None
) -> Velocities:
    """negative + scale * (positive - negative) in float32; scale 1 is exactly the positive."""
    scales = (scale, scale if audio_scale is None else audio_scale)
    video, audio = (towards(pos, neg, s) for pos, neg, s in zip(positive, negative, scales, strict=True))
    return video, audio


def dual_guidance(
    plain: Velocities,
    bridged: Velocities,
    full: Velocities,
    bridge_scale: float,
    text_scale: float,
    audio_text_scale: float | None = None,
) -> Velocities:
    """plain + bridge_scale * (bridged - plain) + text_scale * (full - bridged) in float32.

    `plain` is the negative prompt without the bridge (each tower alone), `bridged` the negative prompt with it, `full`
    the positive prompt with it. Bridge scale 1 is text guidance.
    Source: MOVA paper, equation 6.
    """
    text_scales = (text_scale, text_scale if audio_text_scale is None else audio_text_scale)
    video, audio = (
        towards(b, a, bridge_scale) + s * (c.float() - b.float())
        for a, b, c, s in zip(plain, bridged, full, text_scales, strict=True)
    )
    return video, audio


def rescale_guidance(guided: Velocities, positive: Velocities, amount: float) -> Velocities:
    """Guided velocities brought back towards the spread (per sample and modality) of the positive ones, in float32.

    Guidance widens the spread, which shows as burnt pictures and loud sound.
    Source: Lin et al. 2023, arXiv:2305.08891, section 3.4.
    """
    video, audio = (
        wide.float() * (1 - amount + amount * _spread(pos) / _spread(wide))
        for wide, pos in zip(guided, positive, strict=True)
    )
    return video, audio


def towards(end: Tensor, start: Tensor, scale: float) -> Tensor:
    """start + scale * (end - start) in float32; scale 1 is exactly the end."""
    if scale == 1:
        return end.float()  # start + (end - start) would round
    return start.float() + scale * (end.float() - start.float())


def _spread(velocity: Tensor) -> Tensor:
    """Standard deviation of each sample, shaped to multiply it; never 0."""
    axes = tuple(range(1, velocity.ndim))
    return velocity.float().std(dim=axes, keepdim=True).clamp_min(1e-12)
