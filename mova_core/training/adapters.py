"""LoRA beside the Linears of a joint model: W x + alpha / rank * B (A x), A and B in float32 whatever W is kept in.

Names are the official trainer's: `<component>.<layer>.lora_A.weight` (R, I) and `.lora_B.weight` (O, R), the components
video_dit (high noise), video_dit_2 (low noise), audio_dit and dual_tower_bridge. One set of parameters serves both
experts: each expert's model has its own `Adapters` over it, which share the parameters of audio tower and bridge.

Axes: O outputs, I inputs, R rank.
Source: OpenMOSS/MOVA 595a976 `lora_utils.py`; targets are what its shipped patterns really match.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.experts import EXPERT_FOLDERS
from ..checkpoint.lora_keys import AUDIO_TOWER, BRIDGE_FOLDER
from ..config import MovaConfig
from ..errors import CheckpointError, ConfigError
from ..model.mova import Mova
from ..sampling.schedule import Expert

TrainedPart = Literal["high", "low", "audio", "bridge"]
TRAINED_PARTS: dict[str, str] = {
    **{part: f"{folder}." for part, folder in EXPERT_FOLDERS.items()},
    "audio": AUDIO_TOWER,
    "bridge": BRIDGE_FOLDER,
}
KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])(?:\.default)?(?:\.weight)?")
ATTENTION = re.compile(r"(^|\.)blocks\.\d+\.(self|cross)_attn\.[qkvo]$|^dual_tower_bridge\..*\.inner\.[qkvo]$")
ALL = re.compile(rf"{ATTENTION.pattern}|(^|\.)blocks\.\d+\.ffn\.[02]$")
TARGETS: dict[str, re.Pattern[str]] = {"all": ALL, "attention": ATTENTION}
LARGEST_RANK = 512


def part_of(name: str) -> str:
    """The part that an official name belongs to: high, low, audio or bridge; empty for another name."""
    return next((part for part, prefix in TRAINED_PARTS.items() if name.startswith(prefix)), "")


@dataclass(frozen=True)
class Pair:
    """`down` (R, I) and `up` (O, R) of one layer."""

    down: nn.Parameter
    up: nn.Parameter


class Adapters:
    """The LoRA of one expert's joint model. Nothing is left on the model but while a step runs (`beside`)."""

    def __init__(self, model: nn.Module, pairs: Mapping[str, Pair], alpha: float, aside: Mapping[str, Tensor]) -> None:
        self.model, self.pairs, self.alpha, self.aside = model, dict(pairs), alpha, dict(aside)

    @classmethod
    @torch.inference_mode(False)
    def attach(cls, model: nn.Module, state: Mapping[str, Tensor], alpha: float, expert: Expert = "high") -> "Adapters":
        """Adapters of the official names in `state`, for the model of `expert`; the other expert's stay in `aside`.

        A float32 `nn.Parameter` is used as it is, so that two experts' adapters share those of audio tower and
        bridge; any other tensor is copied to float32. `alpha` is for every layer; output is scaled by alpha / rank.

        Raises:
            CheckpointError: a name or shape does not fit the model, or a half is missing.
            ConfigError: an impossible expert or alpha, or nothing for this model.
        """
        if expert not in EXPERT_FOLDERS:
            raise ConfigError(f"there is no {expert!r} expert; choose 'high' (noise) or 'low'")
        if not math.isfinite(alpha) or alpha == 0:
            raise ConfigError(f"alpha is {alpha}; give a number other than 0, the rank for a scale of 1")
        halves, aside = _sorted(state, expert)
        modules = dict(model.named_modules())
        pairs = {layer: _pair(layer, modules.get(module_name(layer)), found) for layer, found in halves.items()}
        if not pairs:
            raise ConfigError(
                f"none of {len(state)} LoRA tensors is for the {expert}-noise expert, the sound or the bridge"
            )
        return cls(model, pairs, alpha, aside)

    def check_model(self, model: nn.Module) -> None:
        """Accept the model that these adapters are beside.

        Raises:
            ConfigError: it is another, which would run without them.
        """
        if model is not self.model:
            raise ConfigError("these adapters are attached to another model; attach them to the one that is trained")

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Official name and parameter of everything beside this model."""
        for layer, pair in self.pairs.items():
            yield f"{layer}.lora_A.weight", pair.down
            yield f"{layer}.lora_B.weight", pair.up

    @contextmanager
    def beside(self) -> Iterator[None]:
        """The model with its adapters; plain again afterwards, whatever happened."""
        modules = dict(self.model.named_modules())
        with ExitStack() as hooks:
            for layer, pair in self.pairs.items():
                module, beside = modules[module_name(layer)], Beside(pair, self.alpha)
                for handle in (
                    module.register_forward_pre_hook(beside.before),
                    module.register_forward_hook(beside.after),
                ):
                    hooks.callback(handle.remove)
            yield


class Beside:
    """Hooks of one Linear that add a pair's product to its output."""

    def __init__(self, pair: Pair, alpha: float) -> None:
        self.pair, self.scale = pair, alpha / pair.down.shape[0]
        self.narrow: Tensor | None = None  # (tokens, R), from before the layer runs to after

    def before(self, module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = given
        down = self.pair.down.to(x.dtype)
        if not torch.is_grad_enabled():
            self.narrow = F.linear(x, down).flatten(0, -2)
            return given
        x, self.narrow = Tapped.apply(x, down)
        return (x,)

    def after(self, module: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        narrow, self.narrow = self.narrow, None
        return Added.apply(out, narrow, self.pair.up.to(out.dtype), self.scale)  # type: ignore[no-any-return]


class Tapped(torch.autograd.Function):
    """x as it is, for the frozen layer, and x A^T. On the way back what the layer gives for x is its own to change, so
    the adapter's share is added in place: autograd would make both and a sum, of a feed-forward's width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, down)
        return x.view_as(x), F.linear(x, down).flatten(0, -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, narrow: Tensor) -> tuple[Tensor | None, Tensor]:
        x, down = ctx.saved_tensors
        of_down = narrow.t() @ x.flatten(0, -2)
        if not ctx.needs_input_grad[0]:
            return None, of_down
        return gradient.flatten(0, -2).addmm_(narrow, down).view_as(gradient), of_down


class Added(torch.autograd.Function):
    """out + scale * narrow B^T, in place: nobody keeps a Linear's output. (Autograd's own in-place product would copy
    the gradient, as the output is a view.)"""

    @staticmethod
    def forward(ctx: Any, out: Tensor, narrow: Tensor, up: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(narrow, up)
        ctx.scale = scale
        return out.flatten(0, -2).addmm_(narrow, up.t(), alpha=scale).view_as(out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        narrow, up = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        return gradient, ctx.scale * (rows @ up), ctx.scale * (rows.t() @ narrow), None


def module_name(layer: str) -> str:
    """An official layer name in the joint model, where the video tower is the root."""
    for folder in EXPERT_FOLDERS.values():
        layer = layer.removeprefix(f"{folder}.")
    return layer


def targets(config: MovaConfig, parts: Collection[str], layers: str = "all") -> dict[str, tuple[int, int]]:
    """Official layer name -> (outputs, inputs) of every Linear that is given an adapter.

    Raises:
        ConfigError: an unknown part or choice of layers, or no part.
    """
    unknown = [part for part in parts if part not in TRAINED_PARTS]
    if unknown or not parts or layers not in TARGETS:
        raise ConfigError(
            f"cannot train {', '.join(parts) or 'no part'} ({layers}); choose of {', '.join(TRAINED_PARTS)} at "
            f"least one, and of the layers {' or '.join(TARGETS)}"
        )
    found = {}
    for name, sizes in _linears(config).items():
        if not TARGETS[layers].search(name):
            continue
        shared = name.startswith((AUDIO_TOWER, BRIDGE_FOLDER))
        for part in parts:
            prefix = TRAINED_PARTS[part]
            if name.startswith(prefix) if part in ("audio", "bridge") else not shared:
                found[name if shared else prefix + name] = sizes
    return found


@cache
def _linears(config: MovaConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every Linear of the joint model, of which nothing is kept."""
    modules = Mova(config, device="meta").named_modules()
    return {name: (each.out_features, each.in_features) for name, each in modules if isinstance(each, nn.Linear)}


def fresh(
    config: MovaConfig, parts: Collection[str], rank: int, generator: torch.Generator, layers: str = "all"
) -> dict[str, nn.Parameter]:
    """New LoRA parameters under their official names, float32: A as the official trainer begins it, B zero.

    Raises:
        ConfigError: an impossible rank, or as `targets`.
    """
    if not 1 <= rank <= LARGEST_RANK:
        raise ConfigError(f"rank is {rank}; it must be from 1 to {LARGEST_RANK}. 16 is the usual one, 32 for much data")
    state = {}
    for layer, (outputs, inputs) in targets(config, parts, layers).items():
        down = nn.Parameter(torch.empty(rank, inputs))
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        state[f"{layer}.lora_A.weight"] = down
        state[f"{layer}.lora_B.weight"] = nn.Parameter(torch.zeros(outputs, rank))
    return state


def _sorted(state: Mapping[str, Tensor], expert: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Halves by layer of what belongs beside the model of `expert`, and what belongs beside the other's."""
    halves: dict[str, dict[str, Tensor]] = {}
    aside: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, key = part_of(name), KEY.fullmatch(name)
        if not part or key is None:
            raise CheckpointError(
                f"{name} is no LoRA tensor of MOVA; wanted names such as video_dit.blocks.0.self_attn.q.lora_A.weight, "
                f"of {', '.join(prefix.rstrip('.') for prefix in TRAINED_PARTS.values())}"
            )
        if part in EXPERT_FOLDERS and part != expert:
            aside[name] = tensor
        else:
            halves.setdefault(key["layer"], {})[key["half"]] = tensor
    return halves, aside


def _pair(layer: str, module: nn.Module | None, found: Mapping[str, Tensor]) -> Pair:
    if module is None or not hasattr(module, "in_features"):
        raise CheckpointError(f"{layer} is no linear layer of this model; the LoRA is of another one")
    if len(found) != 2:
        raise CheckpointError(f"{layer} has lora_{''.join(found)} alone; a LoRA has lora_A and lora_B of each layer")
    down, up = found["A"], found["B"]
    wanted: tuple[Any, Any] = (module.out_features, module.in_features)
    if down.ndim != 2 or up.ndim != 2 or (up.shape[0], down.shape[1]) != wanted or up.shape[1] != down.shape[0]:
        raise CheckpointError(
            f"{layer} is {wanted[0]} x {wanted[1]}; its LoRA has lora_B {tuple(up.shape)}, lora_A {tuple(down.shape)}"
        )
    if not (down.is_floating_point() and up.is_floating_point()):
        raise CheckpointError(
            f"the LoRA of {layer} is {down.dtype} and {up.dtype}; only floating-point values can learn"
        )
    return Pair(_parameter(down), _parameter(up))


def _parameter(tensor: Tensor) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter) and tensor.dtype == torch.float32 and tensor.requires_grad:
        return tensor
    return nn.Parameter(tensor.detach().to(torch.float32, copy=True))
