"""What other packs put on a MODEL: what of it MOVA has no place for, and how it is bound to the expert that runs.

Object patches reach both experts when they are put on, options when a step begins. What cannot be known, since it stands
in a function's closure, is watched: while one expert works, a layer of the other that is called ends the run by name.
"""

import logging
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_base
import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from comfy_api.torch_helpers.torch_compile import (
    COMPILE_KEY,
    TORCH_COMPILE_KWARGS,
    apply_torch_compile_factory,
    set_torch_compile_wrapper,
)
from torch import nn

from ....mova_core.errors import MovaError, PatchError
from ..keys import BY_DEVICE, OWN_OPTIONS, RUN, Options
from ..types import Executor, Wrapper
from .namesakes import ATOMS, ON_EACH_EXPERT, T, named, opaque, reached

if TYPE_CHECKING:
    from .patcher import MovaPatcher

log = logging.getLogger("mova")
MODEL_PREFIX = "diffusion_model."
OWN_COMPILE = apply_torch_compile_factory({}).__code__  # of ComfyUI's own wrapper
THE_RUN = (  # what goes on from here is not what a patch called, but what it lets go on
    *(str(Path(__file__).parents[3] / name) + os.sep for name in ("nodes", "mova_core")),
    *(str(module.__file__) for module in (comfy.samplers, comfy.model_base, comfy.patcher_extension)),
)
TRUSTED = ("comfy.", "comfy_api.", "torch.", __name__.rpartition(".nodes.")[0] + ".")  # their closures are known
AS_THEY_ARE = {BY_DEVICE, RUN, "to_load_options", "registered_hooks"}  # keys of options that name patchers of the run
EAGER = (
    "{} has compiled the high-noise expert; the low-noise one runs as it is. To have both compiled, put the node on "
    "each: 'MOVA Split Experts', the node twice, 'MOVA Join Experts'"
)


def check_object_patch(patcher: "MovaPatcher", name: str, patch: object) -> None:
    """Refuse what would do nothing, or would compute with the other expert's weights.

    Raises:
        PatchError: by the names of both.
    """
    if not name.startswith(MODEL_PREFIX):
        return
    holder, _, attribute = name.rpartition(".")
    try:
        module = patcher.get_model_object(holder)
        getattr(module, attribute)
    except AttributeError as error:
        raise PatchError(f"{named(patch)} replaces {name!r}, and MOVA has none: it is for another model") from error
    if attribute == "forward" and isinstance(module, nn.Module) and type(module).forward is nn.Module.forward:
        raise PatchError(
            f"{named(patch)} replaces {name!r}, which MOVA never calls: it is for another model. Attention of MOVA is "
            "changed by an attention override or by block patches"
        )
    if patcher.low is not None and isinstance(patch, types.FunctionType) and opaque(patch):
        raise PatchError(
            f"{named(patch)} replaces {name!r} and keeps variables of its own ({', '.join(patch.__code__.co_freevars)}), so "
            f"nothing says which expert's weights it computes with. {ON_EACH_EXPERT}"
        )


def mirrored(mine: "MovaPatcher", theirs: "MovaPatcher", thing: T, where: str) -> T:
    """What is put on one expert, as it is for the other.

    Raises:
        PatchError: it holds layers of the first and cannot be bound to the second's.
    """
    made, plain = mine.namesakes(theirs).bound(thing, where)
    if plain:
        mine.warn_once(EAGER.format("torch.compile"))
    return made


def check_injections(mine: "MovaPatcher", theirs: "MovaPatcher", key: str, injections: list[PatcherInjection]) -> None:
    """See that injections for the second expert leave the first as it is, by trying them.

    Raises:
        PatchError: they change the first expert whatever they are given.
    """
    before = _marks(mine.model)
    try:
        for injection in injections:
            injection.inject(theirs)
        changed = _marks(mine.model) != before
    finally:
        for injection in reversed(injections):
            injection.eject(theirs)
    if changed:
        raise PatchError(
            f"the injection {key!r} ({named(injections[0].inject)}) changes the high-noise expert's layers even where it is "
            f"given the low-noise one. {ON_EACH_EXPERT}"
        )


def _marks(model: nn.Module) -> dict[str, tuple[int, ...]]:
    def mark(module: nn.Module) -> tuple[int, ...]:
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        return (*(id(value) for value in vars(module).values()), *hooks)

    return {name: mark(module) for name, module in model.named_modules()}


# --- options of a run


Bound = dict[int, tuple[object, object]]
"""By identity: what was put on a MODEL, and the same for the low-noise expert."""


def for_low(high: "MovaPatcher", low: "MovaPatcher", model_options: Options, known: Bound) -> Options:
    """Options as they are for the low-noise expert: its own where it was given some before it was joined, compiled on its
    own, everything else bound to its layers. `known` keeps what was bound, from step to step."""
    own: tuple[Options, Options] = high.get_attachment(OWN_OPTIONS)
    options = _with_own_compiled(high, low, exchanged(model_options, *own))
    made: Options = _bound(options, known, partial(mirrored, high, low))
    return made


def wrappers_for_low(high: "MovaPatcher", low: "MovaPatcher") -> dict[str, dict[str, list[Wrapper]]]:
    """Wrappers of a MODEL, kind -> key -> functions, as they are for the low-noise expert."""
    now = own_options(high)["transformer_options"]["wrappers"]
    before, instead = (each["transformer_options"]["wrappers"] for each in high.get_attachment(OWN_OPTIONS))
    made: dict[str, dict[str, list[Wrapper]]] = _bound(
        exchanged(now, before, instead), {}, partial(mirrored, high, low)
    )
    return made


def own_options(patcher: "MovaPatcher") -> Options:
    """What was put on one expert, wrappers included: those ComfyUI merges into the options when a run begins."""
    options: Options = comfy.utils.deepcopy_list_dict(patcher.model_options)
    inner = options.setdefault("transformer_options", {})
    wrappers = inner.setdefault("wrappers", {})
    for kind, by_key in patcher.wrappers.items():
        for key, functions in by_key.items():
            wrappers.setdefault(kind, {}).setdefault(key, []).extend(functions)
    return options


def exchanged(now: Any, before: Any, instead: Any) -> Any:
    """`now` with what was in it `before` replaced by what is `instead`; what came later stays."""
    if isinstance(now, dict) and isinstance(before, dict) and isinstance(instead, dict):
        keys = dict.fromkeys((*now, *instead))
        values = ((k, exchanged(now.get(k), before.get(k), instead.get(k))) for k in keys)
        return {key: value for key, value in values if value is not None or now.get(key, 0) is None}
    if isinstance(now, list) and (isinstance(before, list) or isinstance(instead, list)):
        later = [each for each in now if not any(each is known for known in before or ())]
        return [*(instead or ()), *later]
    if isinstance(now, dict) and isinstance(before, dict):
        return exchanged(now, before, {})
    return instead if now is before else now


def _bound(value: Any, known: Bound, bind: Callable[[object, str], object], where: str = "") -> Any:
    if type(value) is dict:
        return {k: v if k in AS_THEY_ARE else _bound(v, known, bind, str(k)) for k, v in value.items()}
    if type(value) is list:
        return [_bound(each, known, bind, where) for each in value]
    if isinstance(value, (*ATOMS, torch.Tensor)) or not _foreign(value):
        return value
    if id(value) not in known:
        known[id(value)] = value, bind(value, where)
    return known[id(value)][1]


def _foreign(value: object) -> bool:
    """Whether it may hold layers: what ComfyUI and torch put into options themselves does not."""
    return callable(value) or not type(value).__module__.startswith(
        ("comfy", "torch", "builtins", "uuid", "collections")
    )


def _with_own_compiled(high: "MovaPatcher", low: "MovaPatcher", model_options: Options) -> Options:
    """What was compiled of the high-noise expert would run in the low-noise one's place."""
    options = model_options["transformer_options"]
    applied = options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    wrappers = applied.get(COMPILE_KEY)
    if not wrappers:
        return model_options
    if not low.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY):
        if all(getattr(wrapper, "__code__", None) is OWN_COMPILE for wrapper in wrappers):
            keys = list(compiled_keys(wrappers[-1]))
            set_torch_compile_wrapper(low, keys=keys, **model_options[TORCH_COMPILE_KWARGS])
        else:
            high.warn_once(EAGER.format(named(wrappers[-1])))
    own = {**applied, COMPILE_KEY: low.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY)}
    inner = {**options, "wrappers": {**options["wrappers"], WrappersMP.APPLY_MODEL: own}}
    return {**model_options, "transformer_options": inner}


class _Swapped:
    """Stands for a model while a wrapper swaps modules in it, and notes which."""

    path: str
    notes: dict[str, object]

    def __init__(self, path: str, notes: dict[str, object]) -> None:
        vars(self).update(path=path, notes=notes)

    def __getattr__(self, name: str) -> "_Swapped":
        return _Swapped(f"{self.path}{name}.", self.notes)

    def __setattr__(self, name: str, value: object) -> None:
        self.notes.setdefault(f"{self.path}{name}", value)


def compiled_keys(wrapper: Wrapper) -> Iterable[str]:
    """Names of the modules that ComfyUI's compile wrapper swaps for the time of a call, seen by calling it."""
    notes: dict[str, object] = {}

    def executor() -> None:
        """What is wrapped: nothing."""

    executor.class_obj = _Swapped("", notes)  # type: ignore[attr-defined]
    wrapper(executor)
    return notes


# --- what only a function knows


def untold(patcher: "MovaPatcher", model_options: Options) -> dict[types.CodeType, str]:
    """Functions on a MODEL that keep variables of their own, by their code: name and place."""
    found: dict[types.CodeType, str] = {}

    def note(value: object, where: str) -> None:
        for function in opaque(value):
            if not f"{function.__module__}.".startswith(TRUSTED):
                found[function.__code__] = f"{named(function)}, put on this MODEL at {where!r},"

    for name, patch in patcher.object_patches.items():
        note(patch, name)
    _bound(model_options, {}, note)
    return found


@contextmanager
def watched(idle: nn.Module, functions: dict[types.CodeType, str]) -> Iterator[None]:
    """While one expert works, end the run where a layer of the `idle` one is called.

    Raises:
        PatchError: by the name of the function that called it.
    """

    def refuse(*_: object) -> None:
        frame = sys._getframe(1)
        while frame is not None and frame.f_code not in functions:
            frame = frame.f_back  # type: ignore[assignment]
        who = "something on this MODEL" if frame is None else functions[frame.f_code]
        raise PatchError(f"{who} computes with the other expert's weights. {ON_EACH_EXPERT}")

    layers = [m for m in idle.modules() if next(m.parameters(recurse=False), None) is not None] if functions else []
    handles = [layer.register_forward_pre_hook(refuse) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def explained(executor: Executor, *args: object, **kwargs: object) -> object:
    """PREDICT_NOISE: where what another pack put on the MODEL is not made for it, say whose it is.

    Raises:
        PatchError: it wants arguments, attributes or sizes that MOVA does not have.
    """
    try:
        return executor(*args, **kwargs)
    except MovaError:
        raise
    except (TypeError, AttributeError, IndexError, KeyError, ValueError, RuntimeError) as error:
        if comfy.model_management.is_oom(error):
            raise
        guider = executor.class_obj  # type: ignore[attr-defined]
        who = _culprit(error, guider.model_patcher, guider.model_options)
        if who is None:
            raise
        raise PatchError(
            f"{who} does not fit MOVA ({type(error).__name__}: {_shortened(str(error))}); it is likely for another model"
        ) from error


def _shortened(text: str, most: int = 300) -> str:
    """What Python says of a module that lacks an attribute holds every layer of it."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most // 2].rstrip()} … {text[-most // 2 :].lstrip()}"


def _culprit(error: BaseException, patcher: "MovaPatcher", model_options: Options) -> str | None:
    """Who on this MODEL has raised, itself or in what it called, libraries and ComfyUI; None where it is nobody's."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = list(takewhile(lambda code: not code.co_filename.startswith(THE_RUN), reversed(codes)))
    found: dict[types.CodeType | str, str] = {}

    def note(value: object, where: str) -> None:
        for function in reached(value).of(types.FunctionType):
            if not f"{function.__module__}.".startswith(TRUSTED):
                who = f"{named(value)}, put on this MODEL at {where!r},"
                found.setdefault(function.__code__, who)
                found.setdefault(function.__code__.co_filename, who)

    for name, patch in patcher.object_patches.items():
        note(patch, name)
    _bound(model_options, {}, note)
    marks: list[types.CodeType | str] = [*codes, *(code.co_filename for code in codes)]
    return next((found[mark] for mark in marks if mark in found), None)
