"""What to do when the picture is turning into flat colour: warn, stop, or start again with the next seed."""

import logging
from collections.abc import Sequence
from functools import partial

from comfy.nested_tensor import NestedTensor
from comfy.samplers import KSAMPLER, CFGGuider
from torch import Tensor

from ...mova_core.collapse import TRIES, collapsed
from ...mova_core.errors import MovaError
from .sampling import Watcher, sample
from .types import Latent

log = logging.getLogger("mova")


class CollapseError(MovaError):
    """The clip is turning into flat colour."""


def guard(values: Tensor, seed: int, stop: bool) -> Watcher:
    """Watches for flat colour: raises CollapseError, or else warns, once."""
    warned: list[int] = []

    def watch(step: int, denoised: NestedTensor, steps: int) -> None:
        if warned or not collapsed(denoised.tensors[0], float(values[step])):
            return
        warned.append(step)
        message = (
            f"seed {seed} is turning into flat colour (step {step + 1} of {steps}); try another seed or a first frame"
        )
        if stop:
            raise CollapseError(message)
        log.warning(message)

    return watch


def sample_guarded(
    guider: CFGGuider,
    latent: Latent,
    *,
    seed: int,
    sampler: KSAMPLER,
    values: Tensor,
    action: str,
    watchers: Sequence[Watcher] = (),
) -> tuple[Latent, int]:
    """`sample` under the guard, and the seed that was kept: "reseed" goes on to the next seed where one collapses.

    Raises:
        CollapseError: "stop" saw flat colour, or "reseed" saw it with every seed it tried.
    """
    walk = partial(sample, guider, latent, sampler=sampler, values=values)
    if action == "off":
        return walk(seed=seed, watchers=watchers), seed
    for tried in range(seed, seed + TRIES - 1) if action == "reseed" else ():
        try:
            return walk(seed=tried, watchers=[*watchers, guard(values, tried, True)]), tried
        except CollapseError as collapse:
            log.warning("%s; going on with seed %d", collapse, tried + 1)
            seed = tried + 1
    return walk(seed=seed, watchers=[*watchers, guard(values, seed, action != "warn")]), seed
