"""Weight normalisation folded away: files that store a weight as length and direction, loaded as plain weights.

Source: Salimans and Kingma 2016, arXiv:1602.07868.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

SPELLINGS = (
    ("weight_g", "weight_v"),  # torch.nn.utils.weight_norm
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),  # torch.nn.utils.parametrizations
)
"""(length, direction) as they end a key."""


def fold_weight_norm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A new state dict with plain `weight` keys; every other entry is the same tensor under the same key.

    weight = g * v / ||v||, the norm over all dims but the first (for transposed convolutions too), computed and
    returned in at least float32: rounded once more, a codec stored in bfloat16 would be 3 % off.

    Raises:
        CheckpointError: half of a pair is missing, the halves do not fit, or the plain weight is there as well.
    """
    folded: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        pair = _pair(key)
        if pair is None:
            folded[key] = tensor
            continue
        weight, length, direction = pair
        for half in (length, direction):
            if half not in state_dict:
                raise CheckpointError(f"{key} needs {half}, which is missing; the file is incomplete, fetch it again")
        if weight in state_dict:
            raise CheckpointError(f"both {key} and {weight} are present; remove one, they are the same weight")
        if weight not in folded:
            folded[weight] = _fold(state_dict[length], state_dict[direction], length)
    return folded


def _pair(key: str) -> tuple[str, str, str] | None:
    """Keys of (weight, length, direction) if `key` is half of a normalised weight."""
    for length, direction in SPELLINGS:
        for half in (length, direction):
            if key == half or key.endswith(f".{half}"):
                prefix = key.removesuffix(half)
                return f"{prefix}weight", prefix + length, prefix + direction
    return None


def _fold(length: Tensor, direction: Tensor, key: str) -> Tensor:
    wanted = (direction.shape[0], *(1 for _ in direction.shape[1:]))
    if tuple(length.shape) != wanted:
        raise CheckpointError(
            f"{key} has shape {tuple(length.shape)}, its direction of shape {tuple(direction.shape)} needs {wanted}; "
            "only norms over all dims but the first are implemented"
        )
    exact = torch.promote_types(direction.dtype, torch.float32)
    weight: Tensor = torch._weight_norm(direction.to(exact), length.to(exact), 0)
    return weight
