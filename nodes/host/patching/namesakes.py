"""What belongs to one expert, and its namesake in another: how a thing that holds a layer of one comes to hold the other's.

Other packs put bound methods, partials and objects on a MODEL that hold its layers. Copied to the other expert as they
are, they would compute there with weights of this one. They are copied along every path that can be read: attributes,
items, arguments and defaults. What a function keeps in its closure is its own; such functions are named as `opaque`.
"""

import copy
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from ....mova_core.errors import PatchError

T = TypeVar("T")
MOST_THINGS = 50_000  # things looked at for one patch; beyond that it is not a patch
ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.BuiltinFunctionType)
COMPILED = "_torchdynamo_orig_callable"  # what a function compiled by torch was made of


@dataclass
class Found:
    """Everything that is reached from a thing: by identity, who holds it."""

    things: dict[int, object] = field(default_factory=dict)
    holders: dict[int, list[int]] = field(default_factory=dict)

    def of(self, kind: type[T]) -> Iterator[T]:
        return (thing for thing in self.things.values() if isinstance(thing, kind))


class Namesakes:
    """From the parts of one expert's model to those of another's."""

    def __init__(self, mine: ModelPatcher, theirs: ModelPatcher) -> None:
        there = dict(_members(theirs))
        self._here = [part for name, part in _members(mine) if name in there]  # kept alive: identities stay theirs
        self._to = {id(part): there[name] for name, part in _members(mine) if name in there}
        self._mine, self._theirs = mine.model, weakref.ref(theirs)  # no circle: ComfyUI counts on patchers that go

    def bound(self, thing: Any, where: str) -> tuple[Any, bool]:
        """`thing`, or a copy that holds namesakes in place of the parts it holds; and whether something that torch has
        compiled is left plain in it.

        Raises:
            PatchError: it holds a part, and cannot be copied.
        """
        found = reached(thing, stop=self._part)
        parts = {key: part for key, held in found.things.items() if (part := self._part(held)) is not None}
        if not parts:
            return thing, False
        copier = _Copier(found, parts)
        try:
            return copier.of(thing), copier.plain
        except Exception as error:
            raise PatchError(
                f"{named(thing)}, put on this MODEL at {where!r}, holds layers of the high-noise expert and cannot be "
                f"bound to those of the low-noise one ({error}). {ON_EACH_EXPERT}"
            ) from error

    def _part(self, thing: object) -> object | None:
        if isinstance(thing, ModelPatcher):
            return self._theirs() if thing.model is self._mine else None
        return self._to.get(id(thing))


ON_EACH_EXPERT = "Put the node on each expert: 'MOVA Split Experts', the node twice, 'MOVA Join Experts'"


def _members(patcher: ModelPatcher) -> Iterator[tuple[str, object]]:
    """Modules and weights by name, as they are without object patches."""
    roots = [("", patcher.model)]
    roots += [(n, m) for n, m in patcher.object_patches_backup.items() if isinstance(m, nn.Module)]
    for root, model in roots:
        for name, module in model.named_modules(prefix=root, remove_duplicate=False):
            yield name, module
            for key, weight in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                yield f"{name}.{key}", weight


def reached(thing: object, stop: Callable[[object], object | None] = lambda _: None) -> Found:
    """Everything held by a thing, itself included, but nothing beyond what `stop` names.

    Raises:
        PatchError: it holds more than any patch does.
    """
    found, waiting = Found({id(thing): thing}), [thing]
    while waiting:
        holder = waiting.pop()
        if stop(holder) is not None:
            continue
        for held in _held(holder):
            if isinstance(held, ATOMS):
                continue
            found.holders.setdefault(id(held), []).append(id(holder))
            if id(held) not in found.things:
                found.things[id(held)] = held
                waiting.append(held)
        if len(found.things) > MOST_THINGS:
            raise PatchError(
                f"{named(thing)}, put on this MODEL, holds more than can be looked through. {ON_EACH_EXPERT}"
            )
    return found


def _held(thing: object) -> Iterable[object]:
    """What a thing holds in plain sight."""
    if isinstance(thing, (*ATOMS, Tensor, ModelPatcher)):
        return ()
    if isinstance(thing, types.MethodType | types.MethodWrapperType):
        return (thing.__self__, getattr(thing, "__func__", None))
    if isinstance(thing, partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, types.FunctionType):
        return (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *vars(thing).values())
    if isinstance(thing, dict):
        return (*thing.keys(), *thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return thing
    if isinstance(thing, weakref.ref):
        return (thing(),)
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind)]
    return (*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots))


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(s for s in slots if s not in ("__dict__", "__weakref__"))


def _upwards(parts: Iterable[int], holders: dict[int, list[int]]) -> Iterator[int]:
    """Whoever holds one of `parts`, however far up."""
    seen = set(parts)
    waiting = list(seen)
    while waiting:
        for holder in holders.get(waiting.pop(), ()):
            if holder not in seen:
                seen.add(holder)
                waiting.append(holder)
                yield holder


class _Copier:
    """Copies what stands between a thing and the parts it holds, and nothing else."""

    def __init__(self, found: Found, parts: dict[int, object]) -> None:
        self.made, self.plain = dict(parts), False
        self.path = set(_upwards(parts, found.holders))

    def of(self, thing: Any) -> Any:
        """The thing itself, or a copy where it holds a part."""
        key = id(thing)
        if key in self.made or key not in self.path:
            return self.made.get(key, thing)
        if isinstance(thing, OptimizedModule) or COMPILED in getattr(thing, "__dict__", {}):
            self.plain = True
            made = self.of(thing._orig_mod if isinstance(thing, OptimizedModule) else getattr(thing, COMPILED))
        elif isinstance(thing, types.MethodType):
            made = types.MethodType(self.of(thing.__func__), self.of(thing.__self__))
        elif isinstance(thing, types.MethodWrapperType):
            made = getattr(self.of(thing.__self__), thing.__name__)
        elif isinstance(thing, partial):
            made = type(thing)(self.of(thing.func), *map(self.of, thing.args), **_values(thing.keywords, self.of))
        elif isinstance(thing, types.FunctionType):
            made = self._function(thing)
        elif isinstance(thing, weakref.ref):
            made = type(thing)(self.of(thing()))
        elif isinstance(thing, tuple):
            made = thing._make(map(self.of, thing)) if hasattr(thing, "_make") else tuple(map(self.of, thing))
        elif isinstance(thing, set | frozenset):
            made = type(thing)(map(self.of, thing))
        else:
            return self._object(thing)
        self.made[key] = made
        return made

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """The same code with defaults and attributes bound anew; its closure goes along unread."""
        new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, function.__closure__)
        self.made[id(function)] = new
        new.__defaults__ = function.__defaults__ and tuple(map(self.of, function.__defaults__))
        new.__kwdefaults__ = function.__kwdefaults__ and _values(function.__kwdefaults__, self.of)
        new.__qualname__, new.__module__ = function.__qualname__, function.__module__
        new.__dict__.update(_values(vars(function), self.of))
        return new

    def _object(self, thing: Any) -> Any:
        new = self.made[id(thing)] = copy.copy(thing)
        if isinstance(thing, dict):
            new.clear()
            new.update((self.of(key), self.of(value)) for key, value in thing.items())
        elif isinstance(thing, list):
            new[:] = map(self.of, thing)
        if hasattr(thing, "__dict__"):
            vars(new).update(_values(vars(thing), self.of))
        for name in (name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)):
            object.__setattr__(new, name, self.of(getattr(thing, name)))
        return new


def _values(items: Mapping[str, object], change: Callable[[object], object]) -> dict[str, object]:
    return {key: change(value) for key, value in items.items()}


def opaque(thing: object) -> list[types.FunctionType]:
    """Functions reached from a thing that keep variables of their own, which only they know."""
    return [f for f in reached(thing).of(types.FunctionType) if set(f.__code__.co_freevars) - {"__class__"}]


def named(thing: object) -> str:
    """A thing as its author would look for it: the name of its function or class, and the module that has it."""
    while isinstance(thing, partial | types.MethodType):
        thing = thing.func if isinstance(thing, partial) else thing.__func__
    if not isinstance(thing, types.FunctionType | type):
        thing = type(thing)
    return f"{thing.__qualname__!r} of {thing.__module__}"
