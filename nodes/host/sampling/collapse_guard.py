"""What to do when the picture is turning into flat colour: warn, stop, or start again with the next seed."""

import logging
from collections.abc import Sequence
from functools import partial

from comfy.nested_tensor import NestedTensor
from comfy.samplers import KSAMPLER, CFGGuider
from torch import Tensor

from ....mova_core.collapse import TRIES, collapsed, spatial_spread
from ....mova_core.errors import MovaError
from ..keys import NO_PICTURE
from ..patching.patcher import MovaPatcher
from ..types import Conditioning, Latent
from .samplers import Watcher, sample

log = logging.getLogger("mova")


class CollapseError(MovaError):
    """The clip is turning into flat colour."""


def first_spread(model: MovaPatcher, positive: Conditioning) -> Tensor | None:
    """(1 or B,) how much the picture that a clip begins with varies over its area, as latents; None without a picture."""
    values = positive[0][1]
    picture = values.get("concat_latent_image")
    if picture is None or values.get(NO_PICTURE):
        return None
    return spatial_spread(model.get_model_object("latent_format").process_in(picture[:, :, :1].float()))


def guard(values: Tensor, seed: int, stop: bool, first: Tensor | None = None) -> Watcher:
    """Watches for flat colour: raises CollapseError, or else warns, once."""
    warned: list[int] = []

    def watch(step: int, denoised: NestedTensor, steps: int) -> None:
        if warned or not collapsed(denoised.tensors[0], float(values[step]), first):
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
    first: Tensor | None = None,
    watchers: Sequence[Watcher] = (),
    begin: int | None = None,
) -> tuple[Latent, int]:
    """`sample` under the guard, and the seed that was kept: "reseed" goes on to the next seed where one collapses.

    `begin`: the seed to try first, where those before it have collapsed already.

    Raises:
        CollapseError: "stop" saw flat colour, or "reseed" saw it with every seed it tried.
    """
    walk = partial(sample, guider, latent, sampler=sampler, values=values)
    if action == "off":
        return walk(seed=seed, watchers=watchers), seed
    last, seed = seed + TRIES - 1, seed if begin is None else begin
    for tried in range(seed, last) if action == "reseed" else ():
        try:
            return walk(seed=tried, watchers=[*watchers, guard(values, tried, True, first)]), tried
        except CollapseError as collapse:
            log.warning("%s; going on with seed %d", collapse, tried + 1)
            seed = tried + 1
    return walk(seed=seed, watchers=[*watchers, guard(values, seed, action != "warn", first)]), seed
