"""A recording cut at its pauses, one stretch a shot.

Axes: C channels, S samples.
"""

import itertools
from collections.abc import Sequence

import torch

from ..errors import MovaError
from ..inputs.sounds import Sound
from ..waveform import BLOCK_SECONDS, mono

AROUND = 7  # blocks that are heard together: a pause is as quiet as all of them
UNEVEN = 1.0  # what a stretch as long again as its share costs, against a cut through speech
SPEECH = 0.3  # of the loudest: what is louder is no pause, and all of it alike


def stretches(sound: Sound, most: Sequence[float]) -> list[tuple[float, float]]:
    """(start, end) in seconds of as many stretches as `most` has numbers, each at most so many seconds long.

    Together they are the whole recording. It is cut where it is quietest, and where that leaves stretches of much the
    same share of what each may last.

    Raises:
        MovaError: the recording is longer than all of them together.
    """
    seconds = sound.waveform.shape[-1] / sound.rate
    if seconds > sum(most):
        raise MovaError(
            f"the recording lasts {seconds:.1f} s, and the {len(most)} shots that share it hold {sum(most):.1f} s at "
            "most; add shots, or shorten it"
        )
    loud = loudness(sound)
    ends = _cuts(loud, [limit / BLOCK_SECONDS for limit in most])
    marks = [0.0, *(end * BLOCK_SECONDS for end in ends), seconds]
    return list(itertools.pairwise(marks))


def loudness(sound: Sound) -> torch.Tensor:
    """Root mean square of each 20 ms, the loudest of those around it, as a share of the loudest of all."""
    block = max(1, round(BLOCK_SECONDS * sound.rate))
    wave = mono(sound.waveform[:1].float())[0, 0]
    count = -(-wave.shape[-1] // block)
    wave = torch.nn.functional.pad(wave, (0, count * block - wave.shape[-1]))
    level = wave.unflatten(-1, (count, block)).square().mean(dim=-1).sqrt()
    around: torch.Tensor = torch.nn.functional.max_pool1d(level[None, None], AROUND, 1, AROUND // 2)[0, 0]
    return around / around.max().clamp_min(1e-9)


def _cuts(loud: torch.Tensor, most: Sequence[float]) -> list[int]:
    """Blocks at which to cut, the cheapest way: loudness at each cut and unevenness, by dynamic programming."""
    blocks, ideal = len(loud), torch.tensor(most) / sum(most) * len(loud)
    places = torch.arange(blocks + 1, dtype=torch.float32)
    cost = torch.where(places == 0, 0.0, torch.inf)
    came: list[torch.Tensor] = []
    price = torch.cat(((loud / SPEECH).clamp(max=1), torch.zeros(1)))  # of a cut before a block; the end is free
    for limit, share in zip(most, ideal.tolist()):
        length = places[None, :] - places[:, None]  # from a row's block to a column's
        uneven = UNEVEN * ((length - share) / share).square()
        step = torch.where((length > 0) & (length <= limit + 1), uneven, torch.inf) + cost[:, None]
        cost, where = step.min(dim=0)
        cost = cost + price
        came.append(where)
    ends, at = [], blocks
    for where in reversed(came[1:]):
        at = int(where[at])
        ends.append(at)
    return ends[::-1]
