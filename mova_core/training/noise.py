"""What a step is shown: which clip, how much noise, which noise. All of it follows from a seed and a count.

So a run that is taken up again goes on with the draws it would have had. Sigmas lie on the official grid of 1000 values
of the shifted schedule, each expert in its own part of it: upstream's indices 0..357 for the high-noise expert at shift
5, 358..999 for the other. Both streams share an index, or each has its own by choice.

Source: OpenMOSS/MOVA 595a976 `mova_train.py`, `flow_match_pair.py`; the paper draws both streams' noise levels apart.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..config import SchedulerConfig
from ..errors import ConfigError
from ..sampling.schedule import TIMESTEPS, Expert, high_noise_steps, sigmas


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How noise levels are drawn.

    `strata`: so many draws of an expert in a row fall into as many equal parts of its range, in shuffled order; 1 draws
    each by itself. `separate`: the sound's level is drawn over the whole range, apart from the picture's.
    """

    seed: int
    shift: float
    audio_shift: float
    boundary: float
    strata: int = 1
    separate: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.strata <= TIMESTEPS // 10:
            raise ConfigError(f"{self.strata} strata; give 1 for none, up to {TIMESTEPS // 10}")

    @classmethod
    def of(cls, scheduler: SchedulerConfig, audio_shift: float | None, seed: int, **more: int | bool) -> "Draws":
        """Those of a model, whose sound follows the picture's shift unless it has one of its own."""
        shift = scheduler.shift
        return cls(seed=seed, shift=shift, audio_shift=audio_shift or shift, boundary=scheduler.boundary, **more)  # type: ignore[arg-type]

    def indices(self, expert: Expert) -> range:
        """The grid's indices that belong to an expert."""
        high = _change(self.shift, self.boundary)
        return range(high) if expert == "high" else range(high, TIMESTEPS)

    def timesteps(self, expert: Expert, count: int) -> tuple[Tensor, Tensor]:
        """(1,) float32 timesteps of picture and sound, of an expert's draw number `count`."""
        indices = self.indices(expert)
        round_, place = divmod(count, self.strata)
        order = torch.randperm(self.strata, generator=generator(self.seed, "strata", expert, round_))
        share, other = torch.rand(2, generator=generator(self.seed, "level", expert, count), dtype=torch.float64)
        share = (order[place] + share) / self.strata
        index = indices[min(int(share * len(indices)), len(indices) - 1)]
        audio_index = min(int(other * TIMESTEPS), TIMESTEPS - 1) if self.separate else index
        return timestep(index, self.shift), timestep(audio_index, self.audio_shift)


@cache
def _change(shift: float, boundary: float) -> int:
    """The first index of the low-noise expert."""
    return high_noise_steps(sigmas(TIMESTEPS, shift), boundary)


def timestep(index: int, shift: float) -> Tensor:
    """(1,) float32: the grid's value number `index`, 1000 (noise) at 0."""
    return TIMESTEPS * sigmas(TIMESTEPS, shift)[index : index + 1]


def noises(video: Tensor, audio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal float32 noise on the CPU, in the shapes of both streams; the picture's is drawn first, as upstream."""
    first, second = (torch.randn(stream.shape, generator=generator) for stream in (video, audio))
    return first, second


def clip_at(count: int, clips: int, *seed: object) -> int:
    """Which of `clips` clips is draw number `count`: all of them once in shuffled order, then all again in another."""
    epoch, place = divmod(count, clips)
    return int(torch.randperm(clips, generator=generator(*seed, "clips", epoch))[place])


def chance(share: float, *seed: object) -> bool:
    """True in `share` of the draws."""
    return share > 0 and float(torch.rand(1, generator=generator(*seed), dtype=torch.float64)) < share


def generator(*seed: object) -> torch.Generator:
    """A generator that these values determine."""
    digest = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
