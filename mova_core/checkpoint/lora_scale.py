"""How strongly a LoRA's file says that it was trained: alpha and rank, from its header.

    scale = alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)

diffusers and PEFT write one JSON object, `lora_adapter_metadata`, with PEFT's configuration under each component's
name (`transformer.lora_alpha`, `.r`, `.use_rslora`, `.alpha_pattern`, `.rank_pattern`); others put such names into the
header itself, or one alpha among the tensors. kohya's
`ss_network_alpha` is not read: converters that multiply alpha into the tensors keep it.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .lora_keys import one_spelling
from .lora_patterns import Pattern, number, pattern

ALPHAS, RANKS, RSLORA = ("lora_alpha", "alpha", "network_alpha"), ("r", "rank"), "use_rslora"
PATTERN_SETTINGS = ("alpha_pattern", "rank_pattern")
INIT = "init_lora_weights"
MOVES_THE_BASE = re.compile(r"(pissa|olora|corda|loftq|lora_ga)\w*", re.IGNORECASE)  # ways to begin a LoRA
TEXT_ENCODERS = re.compile(r"(?:.*_)?(?:text_encoder|te)_?\d*")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What the header says of one component's layers."""

    alpha: float | None = None
    rank: float | None = None  # None: the tensors'
    rslora: bool = False
    alphas: Pattern = field(default_factory=Pattern)
    ranks: Pattern = field(default_factory=Pattern)

    def scale(self, layer: str, rank: int) -> float | None:
        """Of a layer whose tensors have this rank; None where the header states no alpha."""
        alpha = self.alphas.of(layer)
        alpha = self.alpha if alpha is None else alpha
        rank_stated = self.ranks.of(layer) or self.rank or rank
        return None if alpha is None else alpha / (math.sqrt(rank_stated) if self.rslora else rank_stated)


@dataclass(frozen=True)
class Scales:
    """The adapters of a file by component; "" is for all that have none of their own."""

    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def of(self, name: str, rank: int) -> float | None:
        """The scale of the layer that a key names, without its suffix; None where the file states none."""
        layer = one_spelling(name)
        for component in sorted(self.adapters.keys() - {""}, key=len, reverse=True):
            _, found, rest = f"_{layer}".partition(f"_{component}_")
            if found and not rest[:1].isdigit():
                return self.adapters[component].scale(layer, rank)
        adapter = self.adapters.get("")
        if adapter is None and len(self.adapters) == 1:
            (adapter,) = self.adapters.values()
        return None if adapter is None else adapter.scale(layer, rank)


def scales(stated: Mapping[str, Any], where: str) -> Scales:
    """The scales of a file from its header's metadata, or from the settings beside the tensors in a .pt file.

    Raises:
        CheckpointError: an alpha or rank that is infinite or not a number, an expression that is not read, or a LoRA
            of other weights.
    """
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in (*stated.items(), *_adapter_metadata(stated.get("lora_adapter_metadata"))):
        component, _, setting = str(name)[-200:].rpartition(".")
        component = one_spelling(component)
        if setting in (*ALPHAS, *RANKS, *PATTERN_SETTINGS, RSLORA, INIT) and not TEXT_ENCODERS.fullmatch(component):
            found[component][setting] = value
    return Scales({component: _adapter(settings, where) for component, settings in found.items()})


def _adapter_metadata(text: Any) -> Iterator[tuple[str, Any]]:
    """The settings in PEFT's JSON by dotted name; none where it is no JSON."""
    try:
        content = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict) and name.rpartition(".")[2] not in PATTERN_SETTINGS:
            yield from ((f"{name}.{inner}", setting) for inner, setting in value.items())
        else:
            yield name, value


def _adapter(settings: Mapping[str, Any], where: str) -> Adapter:
    if MOVES_THE_BASE.fullmatch(str(settings.get(INIT))[:100]):
        raise CheckpointError(
            f"{where} was begun as {settings[INIT]} ({INIT} in its header), which changes the model's own weights too, "
            "and those are not in it. Convert it with PEFT, whose save_pretrained knows "
            "path_initial_model_for_weight_conversion"
        )
    alphas = [stated for name in ALPHAS if (stated := number(settings.get(name), where)) is not None]
    ranks = [stated for name in RANKS if (stated := number(settings.get(name), where))]
    by_layer = {name: pattern(settings.get(name), name, where) for name in PATTERN_SETTINGS}
    return Adapter(
        alpha=alphas[0] if alphas else None,
        rank=ranks[0] if ranks and ranks[0] > 0 else None,
        rslora=str(settings.get(RSLORA)).lower() in ("true", "1"),
        alphas=by_layer["alpha_pattern"],
        ranks=by_layer["rank_pattern"],
    )
