"""Whether a mouth moves with the speech: canonical correlation of the mouth's pictures with bands of the sound.

It is taken at every lag that the clip has; how far one stands out from the others says whether picture and sound belong
together, which its height alone does not: a few seconds of anything correlate somewhat.
Source: Hershey & Movellan 1999; Slaney & Covell 2000 (FaceSync); no weights are needed.

Axes: F frames, H W pixels, S samples, D features, T steps of 10 ms.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

HERTZ = (100.0, 8000.0)  # of speech
BANDS = 10  # evenly spaced on the mel scale
FLUX_BANDS, FLUX_TOP = 16, 9000.0  # and Hz that they reach to
DYNAMIC_DB = 40.0  # what is quieter than the loudest by more counts as silence
MOUTH_PATCH = (24, 32)  # pixels that a mouth is reduced to
INSIDE = slice(8, 24)  # columns of a patch that lie between the corners of the mouth
DARK = 0.1  # of their pixels: the darkest, an open mouth
SHAPES = 3  # principal components of the mouth's pictures
RIDGE = 1.0  # of unit variances: without it so many features fit any clip of a hundred frames
LAG_SECONDS = 1.0
NEAR = (-1, 3)  # frames that the best match of clips in step lies within, mostly
ACCEPTED = (-0.09, 0.185)  # seconds that sound may be late: acceptability of ITU-R BT.1359-1
SYLLABLES = (0.8, 8.0)  # Hz: mouths move no faster
FEWEST_FRAMES = 36
STANDS_OUT = 3.5  # standard deviations above the other lags: one in twenty unrelated clips has such a lag ...
NEAR_STANDS_OUT = 2.7  # ... and such a match within `NEAR`, which has fewer lags to choose from


@dataclass(frozen=True, kw_only=True)
class Lips:
    """`near` is how far the match within `NEAR` stands out of the other lags, in their standard deviations; `peak`
    the same of the best lag, which is `lag` seconds (positive: the sound is late)."""

    near: float
    peak: float
    lag: float

    @property
    def told(self) -> bool:
        """Whether the best lag stands out enough to be named."""
        return self.peak >= (NEAR_STANDS_OUT if self._accepted else STANDS_OUT)

    @property
    def in_step(self) -> bool:
        return self.told and self._accepted

    @property
    def _accepted(self) -> bool:
        return ACCEPTED[0] <= self.lag <= ACCEPTED[1]

    def __str__(self) -> str:
        if not self.told:
            return f"lips: cannot tell (z {self.near:+.1f})"
        if self.in_step:
            return f"lips: in step (z {self.near:+.1f})"
        late = "late" if self.lag > 0 else "early"
        return f"lips: sound {abs(1000 * self.lag):.0f} ms {late} (z {self.peak:+.1f} there, {self.near:+.1f} at 0)"


def judge(images: Tensor, boxes: Tensor, waveform: Tensor, rate: int, fps: float) -> Lips | None:
    """The lips in (F, H, W, 3) pictures, their mouths at (F, 4) left, top, right, bottom, with (C, S) sound.

    None where there is too little to judge: a short clip, a mouth or a sound that does not change.
    """
    if len(images) < FEWEST_FRAMES:
        return None
    return judge_features(mouth_features(images, boxes), waveform, rate, fps)


def judge_features(mouth: Tensor, waveform: Tensor, rate: int, fps: float) -> Lips | None:
    """`judge`, where the (F, D) `mouth_features` are known."""
    frames = len(mouth)
    seen, heard = mouth, sound_features(waveform, rate, frames, fps)
    seen, heard = (syllables(of, fps) for of in (seen, heard))
    if min(seen.std(0).max().item(), heard.std(0).max().item()) < 1e-6:
        return None
    reach = min(round(LAG_SECONDS * fps), int(0.28 * frames))
    told = matches(heard, seen)
    z = ((told - told.mean()) / told.std(correction=0).clamp_min(1e-9)).roll(reach)[: 2 * reach + 1]
    near, best = z[reach + NEAR[0] : reach + NEAR[1] + 1].max().item(), int(z.argmax())
    return Lips(near=near, peak=z[best].item(), lag=(best - reach) / fps)


def mouth_features(images: Tensor, boxes: Tensor) -> Tensor:
    """(F, D): how much a mouth's picture changes, its first principal components and how much each of them changes,
    and how open it is."""
    patches = torch.stack([_patch(picture, box) for picture, box in zip(images, boxes.tolist())]).double()
    patches = patches - patches.mean(dim=(1, 2), keepdim=True)
    flat = (patches - patches.mean(dim=0)).flatten(1)
    u, s, _ = torch.linalg.svd(flat, full_matrices=False)
    shapes = u[:, :SHAPES] * s[:SHAPES]
    changed = patches.diff(dim=0, prepend=patches[:1]).abs().mean(dim=(1, 2))
    return torch.cat((changed[:, None], shapes.diff(dim=0, prepend=shapes[:1]).abs(), shapes, _opened(patches)), dim=1)


def _opened(patches: Tensor) -> Tensor:
    """(F, 3) of (F, h, w) patches, each against the patch's own contrast: how dark the darkest of the middle is, how
    much its rows differ, how dark the darkest of them is."""
    inside = (patches / patches.std(dim=(1, 2), keepdim=True).clamp_min(1e-6))[:, :, INSIDE]
    rows = inside.mean(dim=2)
    return torch.stack((inside.flatten(1).quantile(DARK, dim=1), rows.std(dim=1), rows.amin(dim=1)), dim=1)


def _patch(picture: Tensor, box: list[float]) -> Tensor:
    """`MOUTH_PATCH` of grey values of an (H, W, 3) picture; a mouth beyond its edge is cut there."""
    height, width = picture.shape[:2]
    left, top = (max(0, min(round(at), most - 2)) for at, most in zip(box[:2], (width, height)))
    right, bottom = max(left + 2, min(round(box[2]), width)), max(top + 2, min(round(box[3]), height))
    grey = picture[top:bottom, left:right].float() @ picture.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32)
    return F.interpolate(grey[None, None], MOUTH_PATCH, mode="area")[0, 0]


def sound_features(waveform: Tensor, rate: int, frames: int, fps: float) -> Tensor:
    """(F, D): level of each band in dB, and how much of the spectrum rises, in the middle of each frame."""
    mono = waveform.double().mean(dim=0)
    window, hop = 512 if rate >= 32000 else 256, rate // 100
    shape = torch.hann_window(window, dtype=torch.float64)
    spectrum = torch.stft(mono, window, hop, window=shape, pad_mode="constant", return_complex=True)
    power, hertz = spectrum.abs().square(), torch.arange(window // 2 + 1) * rate / window  # (window // 2 + 1, T)
    low, top = HERTZ[0], min(HERTZ[1], rate / 2)
    edges = torch.logspace(math.log10(low), math.log10(min(FLUX_TOP, rate / 2)), FLUX_BANDS + 1).tolist()
    rising = torch.stack([_decibels(power, hertz, *band) for band in pairwise(edges)]).diff(dim=1).clamp_min(0).sum(0)
    tracks = [_decibels(power, hertz, *band) for band in pairwise(_mel(low, top))]
    tracks.append(F.pad(rising, (1, 0)))
    return torch.stack([_at_frames(track, rate / hop, frames, fps) for track in tracks], dim=1)


def _mel(low: float, top: float) -> list[float]:
    """Edges in Hz of `BANDS` bands from `low` to `top`, evenly spaced on the mel scale (O'Shaughnessy 1987)."""
    first, last = (math.log1p(hertz / 700) for hertz in (low, top))
    return [700 * math.expm1(at) for at in torch.linspace(first, last, BANDS + 1, dtype=torch.float64).tolist()]


def _decibels(power: Tensor, hertz: Tensor, low: float, high: float) -> Tensor:
    level = 10 * (power[(hertz >= low) & (hertz < high)].sum(0) + 1e-12).log10()
    floored: Tensor = level.clamp_min(level.max().item() - DYNAMIC_DB)
    return floored


def _at_frames(track: Tensor, a_second: float, frames: int, fps: float) -> Tensor:
    """(F,) of a (T,) track, over 40 ms, in the middle of each frame; its end stands for what is missing."""
    smooth = F.avg_pool1d(F.pad(track[None, None], (2, 1), mode="replicate"), 4, stride=1)[0, 0]
    at = ((torch.arange(frames, dtype=torch.float64) + 0.5) / fps * a_second).clamp(0, len(smooth) - 1)
    below, share = at.floor().long(), at.frac()
    return smooth[below] * (1 - share) + smooth[(below + 1).clamp_max(len(smooth) - 1)] * share


def syllables(features: Tensor, fps: float) -> Tensor:
    """(F, D) features within `SYLLABLES`: a Butterworth filter of second order, both ways, by its formula."""
    low, high = SYLLABLES[0], min(SYLLABLES[1], 0.45 * fps)
    pad = min(len(features) - 1, round(2 * fps))
    begin, end = 2 * features[:1] - features[1 : pad + 1].flip(0), 2 * features[-1:] - features[-pad - 1 : -1].flip(0)
    spectrum = torch.fft.rfft(torch.cat((begin, features, end)), dim=0)
    hertz = torch.fft.rfftfreq(len(features) + 2 * pad, 1 / fps, dtype=torch.float64).clamp_min(1e-6)
    gain = 1 / (1 + ((hertz.square() - low * high) / ((high - low) * hertz)) ** 4)
    passed: Tensor = torch.fft.irfft(spectrum * gain[:, None], n=len(features) + 2 * pad, dim=0)[
        pad : pad + len(features)
    ]
    return passed - passed.mean(dim=0)


def matches(heard: Tensor, seen: Tensor) -> Tensor:
    """(F,) what (F, D) features tell of each other, the sound taken `lag` frames later at element `lag`; the last are
    the negative lags.

    In nats a frame, as of Gaussians: all canonical correlations count, not the first alone. Lags wrap around, so that
    each compares as many frames.
    """
    x, y = (torch.fft.rfft(_whitened(features), dim=0) for features in (heard, seen))
    at_lags = torch.fft.irfft(x[:, :, None] * y[:, None].conj(), n=len(heard), dim=0) / len(heard)
    nats: Tensor = -0.5 * (1 - torch.linalg.svdvals(at_lags).square()).log().sum(dim=1)
    return nats


def _whitened(features: Tensor) -> Tensor:
    """(F, D) of about unit covariance, less where `RIDGE` outweighs a direction."""
    unit = (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-9)
    spread = unit.T @ unit / len(unit) + RIDGE * torch.eye(unit.shape[1]).to(unit)
    white: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(spread), unit.T, upper=False)
    return white.T
