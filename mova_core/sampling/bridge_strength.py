"""How strongly the towers hear each other, by direction and by part of the schedule."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigError
from .schedule import Span

ALL_STEPS = Span()


@dataclass(frozen=True, kw_only=True)
class BridgeStrength:
    """Factors on what the bridge adds to the tower that listens: 1 as trained, 0 cuts the direction."""

    audio_to_video: float = 1.0
    video_to_audio: float = 1.0
    span: Span = ALL_STEPS

    def __post_init__(self) -> None:
        for name, strength in (("audio to video", self.audio_to_video), ("video to audio", self.video_to_audio)):
            if not math.isfinite(strength):
                raise ConfigError(
                    f"the bridge's strength from {name} is {strength}; it must be a finite number, 1 as trained"
                )


def strengths_at(entries: Iterable[BridgeStrength], sigma: float, shift: float) -> tuple[float, float]:
    """Audio-to-video and video-to-audio strength at a video sigma: the product of all entries whose span covers it."""
    into_video = into_audio = 1.0
    for entry in entries:
        if entry.span.covers(sigma, shift):
            into_video *= entry.audio_to_video
            into_audio *= entry.video_to_audio
    return into_video, into_audio
