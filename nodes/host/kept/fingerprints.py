"""What a value is made of, as a hash that another process finds again: models, conditionings, latents, settings.

Weights are told by samples, everything else whole. Two equal fingerprints without `opaque` mean the same values, one weight
changed between the samples excepted. What a function keeps in its closure is not read; such things are told by their name
and listed as `opaque`: whoever compares must know by another way that they are the same, `graph.Graph` for one.

Left out, because they say nothing of what is computed: identities, devices, file names, and what a run writes down.
"""

import dataclasses
import enum
import hashlib
import json
import re
import types
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePath

import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor, nn

from ..keys import COPIES

SAMPLED_PLACES, NEIGHBOURS = 4, 64  # of a weight: runs of values that are read
READ_WHOLE = 2**22  # values of a patch that are read whole; of more, samples
DEEPEST = 40  # levels of things within things
LEFT_OUT = {"uuid", "patches_uuid", "cached_patcher_init"}
DIGITS = 32
SLASHES = re.compile(r"[/\\]")  # a pack's module is named by the path of its folder
WEIGHTS = "mova_fingerprint"  # on a model, beside its weights: they never change, only what is patched over them


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """`digest`: hexadecimal digits. `opaque`: names of functions and objects whose state could not be read."""

    digest: str
    opaque: tuple[str, ...] = ()


def fingerprint(value: object) -> Fingerprint:
    """Of a MODEL, CLIP, VAE, CONDITIONING, LATENT, SIGMAS, settings, or anything made of such.

    A MODEL with the noise schedule that it has: where a sampler sets shifts of its own, give the MODEL with these.
    """
    teller = _Teller()
    told = teller.of(value)
    return Fingerprint(digest(told), tuple(sorted(teller.opaque)))


def digest(told: object) -> str:
    """A hash of lists, texts and numbers."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:DIGITS]


def tensor_digest(tensor: Tensor) -> str:
    """A hash of every bit of a tensor, and of its shape and type."""
    return digest([str(tensor.dtype), list(tensor.shape), _hash(tensor)])


class _Teller:
    """Walks through a value; what it gives back is made of lists, texts and numbers."""

    def __init__(self) -> None:
        self.opaque: set[str] = set()
        self.open: set[int] = set()  # identities of what is being told, for circles
        self.parts: dict[int, str] = {}  # modules of the models met so far, by identity: their weights are told already

    def of(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float | str):
            return [type(value).__name__, repr(value)]
        if isinstance(value, bytes | torch.dtype | enum.Enum):
            return [type(value).__name__, str(value)]
        if isinstance(value, torch.device | uuid.UUID | torch.Generator | PurePath | types.ModuleType):
            return "-"
        if isinstance(value, Tensor):
            return _tensor(value)
        if id(value) in self.open:
            return "again"
        if len(self.open) >= DEEPEST:
            return self._name(value, "too deep")
        self.open.add(id(value))
        try:
            return self._inside(value)
        finally:
            self.open.remove(id(value))

    def _inside(self, value: object) -> object:
        if isinstance(value, Mapping):
            told = [(self.of(key), self.of(item)) for key, item in value.items() if str(key) not in LEFT_OUT]
            return ["map", sorted(told, key=json.dumps)]
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self.of, value)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(map(self.of, value), key=json.dumps)]
        if isinstance(value, ModelPatcher):
            return self._model(value)
        if isinstance(value, nn.Module):
            return self.parts.get(id(value)) or [_qualified(value), _weights(value)]
        if isinstance(value, WeightAdapterBase):  # by what it holds, whatever the file called it
            return [value.name, self.of(list(value.weights))]
        return self._code(value)

    def _code(self, value: object) -> object:
        """Functions, and objects by their attributes."""
        if isinstance(value, partial):
            return ["partial", self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, types.MethodType):
            return ["method", value.__func__.__qualname__, self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            if value.__code__.co_freevars:
                return self._name(value, "closure")
            return ["function", _qualified(value), self.of(value.__defaults__), self.of(value.__kwdefaults__)]
        if isinstance(value, type | types.BuiltinFunctionType):
            return ["name", _qualified(value)]
        patcher = getattr(value, "patcher", None)
        if isinstance(patcher, ModelPatcher):  # CLIP and VAE
            plain = {key: item for key, item in vars(value).items() if isinstance(item, str | int | float)}
            return [_qualified(type(value)), self.of(plain), self._model(patcher)]
        if type(value).__module__ == "builtins" or not hasattr(value, "__dict__"):
            return self._name(value, "no attributes")
        slots = {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
        return ["object", _qualified(type(value)), self.of({**slots, **vars(value)})]

    def _name(self, value: object, why: str) -> object:
        name = _qualified(value)
        self.opaque.add(name)
        return [why, name]

    def _model(self, patcher: ModelPatcher) -> object:
        """Weights, and what was put on them. The noise schedule is told by its numbers."""
        base = patcher.model
        self.parts |= {id(part): f"module {name}" for name, part in base.named_modules()}
        objects = {name: thing for name, thing in patcher.object_patches.items() if name != "model_sampling"}
        more = {key: models for key, models in patcher.additional_models.items() if key != COPIES}
        plain = {k: v for k, v in patcher.attachments.items() if isinstance(v, str | int | float)}
        put_on = [patcher.patches, patcher.hook_patches, objects, patcher.model_options, patcher.wrappers]
        put_on += [patcher.callbacks, patcher.injections, more, plain]
        return [_qualified(type(base)), self._own(patcher), *map(self.of, put_on), _schedule(patcher), _dtype(patcher)]

    def _own(self, patcher: ModelPatcher) -> str:
        """The hash of the model's weights as they were before anything was patched into them."""
        base = patcher.model
        if WEIGHTS not in base.__dict__:
            base.__dict__[WEIGHTS] = _weights(base, {key: kept.weight for key, kept in patcher.backup.items()})
        found: str = base.__dict__[WEIGHTS]
        return found


def _weights(module: nn.Module, instead: Mapping[str, Tensor] | None = None) -> str:
    """A hash over samples of each weight; of a weight in `instead`, of that."""
    known, told = instead or {}, hashlib.sha256()
    for name, tensor in sorted(_tensors(module)):
        told.update(json.dumps([name, _tensor(known.get(name, tensor), SAMPLED_PLACES * NEIGHBOURS)]).encode())
    return told.hexdigest()[:DIGITS]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _tensor(tensor: Tensor, whole: int = READ_WHOLE) -> object:
    """Type, shape and a hash: of every value of up to `whole`, of samples of more."""
    if isinstance(tensor, QuantizedTensor):
        state = tensor.state_dict()
        return ["quantised", list(tensor.shape), [[key, _tensor(part, whole)] for key, part in sorted(state.items())]]
    plain = tensor.detach().as_subclass(Tensor)
    if plain.is_meta or not plain.numel():
        return ["empty", str(plain.dtype), list(plain.shape)]
    if plain.numel() > whole:
        flat = plain.reshape(-1)
        places = SAMPLED_PLACES if whole < READ_WHOLE else SAMPLED_PLACES * NEIGHBOURS
        starts = [(plain.numel() - NEIGHBOURS) * n // (places - 1) for n in range(places)]
        plain = torch.cat([flat[start : start + NEIGHBOURS] for start in starts])
    return ["tensor", str(tensor.dtype), list(tensor.shape), _hash(plain)]


def _hash(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    values = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    return hashlib.sha256(values).hexdigest()[:DIGITS]


def _schedule(patcher: ModelPatcher) -> object:
    """Numbers of the noise schedule that a run will use."""
    sampling = getattr(patcher.model, "model_sampling", None) and patcher.get_model_object("model_sampling")
    if sampling is None:  # a CLIP, a VAE
        return None
    numbers = {k: v for k, v in vars(sampling).items() if isinstance(v, int | float) and k != "training"}
    return sorted((key, repr(float(number))) for key, number in numbers.items())


def _dtype(patcher: ModelPatcher) -> str:
    """What the model computes in; while it is loaded, an object patch of it stands in the model."""
    now = getattr(patcher.model, "manual_cast_dtype", None)
    own = patcher.object_patches_backup.get("manual_cast_dtype", now)
    return str(patcher.object_patches.get("manual_cast_dtype", own))


def _slots(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        named = each.__dict__.get("__slots__", ())
        yield from (named,) if isinstance(named, str) else named


def _qualified(thing: object) -> str:
    """Module and name; of a pack's module the last part, as folders are renamed."""
    kind = thing if isinstance(thing, type | types.FunctionType | types.BuiltinFunctionType) else type(thing)
    return f"{SLASHES.split(str(kind.__module__))[-1]}.{kind.__qualname__}"
