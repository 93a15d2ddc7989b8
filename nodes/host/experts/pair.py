"""Two experts behind one MODEL: joined, split, and changed at the boundary.

A step whose video sigma is below the boundary is evaluated by the low-noise expert, which ComfyUI loads when its first
step comes. What is put on the MODEL reaches both: see `patcher.py`.
"""

from collections.abc import Sequence

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrappersMP

from ....mova_core.errors import CheckpointError
from ..keys import (
    BOUNDARY,
    BY_DEVICE,
    CLEAN_STREAMS,
    COPIES,
    EVERY_RUN,
    EXPERT,
    LOW_NOISE,
    OWN_OPTIONS,
    TIMELINE,
    Options,
)
from ..patching import foreign
from ..patching.patcher import MovaDynamicPatcher, MovaPatcher
from ..types import Executor
from .every_run import carry

OURS = {EVERY_RUN, LOW_NOISE, TIMELINE}  # keys of wrappers that are not somebody else's


def patcher(
    model: BaseModel, load_device: torch.device, offload_device: torch.device, dynamic: bool = True, **disk: bool
) -> MovaPatcher:
    """A ModelPatcher for one expert, of the kind ComfyUI uses on this machine; `disk` as `newer.disk` says."""
    plain = comfy.model_patcher.CoreModelPatcher is comfy.model_patcher.ModelPatcher
    kind = MovaDynamicPatcher if dynamic and not plain else MovaPatcher
    made = kind(model, load_device=load_device, offload_device=offload_device, **disk)
    return carry(made)


def join(high: MovaPatcher, low: MovaPatcher, boundary: float) -> MovaPatcher:
    """One MODEL of two experts that changes at `boundary` (video sigma, strict).

    Raises:
        CheckpointError: both are the same expert, or each is in the other's place.
    """
    for slot, model in (("high", high), ("low", low)):
        if slot == "low" and model.low is not None:
            raise CheckpointError(
                "the MODEL at low_noise holds both experts already: connect low_noise of 'MOVA Split Experts', or leave out "
                "'MOVA Join Experts'"
            )
        if model.expert not in (None, slot):
            raise CheckpointError(
                f"the MODEL at {slot}_noise is the {model.expert}-noise expert: connect high_noise of 'MOVA Split Experts', or "
                "video_dit, to high_noise, and low_noise, or video_dit_2, to low_noise"
            )
    if high.model is low.model:
        raise CheckpointError("the same expert is connected to high_noise and low_noise; load the other one too")
    joined, low = high.clone(), low.clone()
    low.remove_additional_models(COPIES)  # the MODEL's copies get copies of this expert
    joined.set_additional_models(LOW_NOISE, [low])
    joined.set_attachments(EXPERT, "high")
    low.set_attachments(EXPERT, "low")
    joined.set_attachments(BOUNDARY, boundary)
    joined.set_attachments(OWN_OPTIONS, (foreign.own_options(high), foreign.own_options(low)))
    joined.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, LOW_NOISE)
    joined.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, LOW_NOISE, route)
    return joined


def split(model: MovaPatcher) -> tuple[MovaPatcher, MovaPatcher]:
    """The high-noise and the low-noise expert of a joined MODEL, each a MODEL of its own with all that was put on it.

    Raises:
        CheckpointError: the MODEL holds one expert.
    """
    if model.low is None:
        raise CheckpointError(
            "this MODEL holds one expert, there is nothing to split; connect the MODEL of 'MOVA Loader'"
        )
    high, low = model.clone(), model.low.clone()
    low.model_options = foreign.for_low(model, model.low, model.model_options, {})
    for kind, by_key in foreign.wrappers_for_low(model, model.low).items():
        for key, functions in by_key.items():
            if key not in OURS:
                low.remove_wrappers_with_key(kind, key)
            for function in functions if key not in OURS else ():
                low.add_wrapper_with_key(kind, key, function)
    high.remove_additional_models(LOW_NOISE)
    for copy in high.get_additional_models_with_key(COPIES):
        copy.remove_additional_models(LOW_NOISE)
    for attachment in (BOUNDARY, OWN_OPTIONS):
        high.remove_attachments(attachment)
    high.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, LOW_NOISE)
    return high, low


def route(
    executor: Executor,
    model: BaseModel,
    conds: Sequence[Sequence[Options] | None],
    x_in: torch.Tensor,
    timestep: torch.Tensor,
    options: Options,
) -> list[torch.Tensor]:
    """Evaluate the step with the expert its noise level belongs to, on every device. `timestep` is the video sigma, 1..0."""
    patcher: MovaPatcher = model.current_patcher
    low = below(timestep, patcher.get_attachment(BOUNDARY)) or _video_is_clean(conds)
    copies = options.get(BY_DEVICE, {})
    experts = {each: each.low if low else each for each in (patcher, *copies.values())}
    for each, expert in experts.items():
        each.activate(expert, [2 * x_in.shape[0], *x_in.shape[1:]])
    if copies:
        options = {**options, BY_DEVICE: {device: experts[each] for device, each in copies.items()}}
    if not low:
        return executor(model, conds, x_in, timestep, options)
    assert patcher.low is not None, "only joined experts are routed"
    options = foreign.for_low(patcher, patcher.low, options, patcher.bound_options)
    with foreign.watched(model.diffusion_model, patcher.untold(options)):
        return executor(patcher.low.model, conds, x_in, timestep, options)


def below(timestep: torch.Tensor, boundary: float) -> bool:
    """Whether a video sigma is the low-noise expert's. Timesteps are compared, as upstream does."""
    return bool((timestep * 1000.0).max() < boundary * 1000.0)


def _video_is_clean(conds: Sequence[Sequence[Options] | None]) -> bool:
    """Whether the model is shown a held video, at timestep 0, whatever the sampler's noise level."""
    return any(cond["model_conds"][CLEAN_STREAMS].cond[0] for entries in conds if entries for cond in entries)
