"""Source -> modules. Built without memory, weights assigned from the mapped files, every key accounted for."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..audio_vae.codec import AudioVAE
from ..config import MovaConfig
from ..errors import CheckpointError
from ..model.mova import Mova
from ..ops import Ops, cast
from ..sampling.schedule import Expert
from .experts import EXPERT_FOLDERS
from .quantization import QUANT_MARK, SCALES, stored_shape
from .source import audio_vae, from_folder, joint_names
from .variants import AUDIO, BRIDGE


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of its weights."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@lru_cache(maxsize=2)
def joint_shapes(sizes: MovaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the joint model's weights in full precision, whatever they are kept in."""
    return shapes_of(Mova(sizes, device="meta"))


def assign(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Give `module`, built on the meta device, its weights without copying them.

    `shapes` are those of the same module of plain layers, where the host's have no parameters before they are loaded.
    Quantised layers keep their storage and bring their scales, for layers of the host that read them.

    Raises:
        CheckpointError: a weight is missing, unknown, or of another shape.
    """
    wanted = shapes_of(module) if shapes is None else shapes
    plain = {key for key in tensors if not _scale(key, tensors)}
    missing, unknown = sorted(wanted.keys() - plain), sorted(plain - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where} does not fit {type(module).__name__}: {len(missing)} weights missing (first: {first(missing)}), "
            f"{len(unknown)} unknown (first: {first(unknown)}). Download it again"
        )
    for name, shape in wanted.items():
        found, stored = tuple(tensors[name].shape), stored_shape(name, shape, tensors)
        if found != stored:
            raise CheckpointError(
                f"{where}: {name} has shape {found}, the configuration wants {stored}; "
                "the folder mixes files of different models. Download it again"
            )
    module.load_state_dict(tensors, assign=True)
    module.requires_grad_(False)
    if module.training:
        module.eval()


def first(names: list[str]) -> str:
    """The first of some names as a message shows it, however long a file made it."""
    return f"{names[0]!r:.120}" if names else "none"


def _scale(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether `key` belongs to how a quantised layer is stored."""
    layer, _, part = key.rpartition(".")
    return part in (QUANT_MARK, *SCALES) and f"{layer}.{QUANT_MARK}" in tensors


def load_joint(
    folder: Path | str, expert: Expert = "high", dtype: torch.dtype = torch.float32, *, ops: Ops = cast
) -> Mova:
    """One expert with the audio tower and the bridge, on the CPU, mapped where `dtype` is what the files hold.

    Raises:
        CheckpointError, ConfigError: see `source.from_folder` and `assign`.
    """
    if expert not in EXPERT_FOLDERS:
        raise CheckpointError(f"there is no {expert!r} expert; choose 'high' (noise) or 'low'")
    source = from_folder(folder)
    model = Mova(source.model, ops=ops, device="meta", dtype=dtype)
    tensors = joint_names(source.tensors(EXPERT_FOLDERS[expert], AUDIO, BRIDGE))
    assign(model, {k: v.to(dtype) for k, v in tensors.items()}, str(folder))
    return model


def encodes(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a codec's weights are those of a whole one, and not of the decode half."""
    return any(key.startswith("encoder.") for key in tensors)


def load_audio_vae(folder: Path | str, dtype: torch.dtype = torch.float32, *, ops: Ops = cast) -> AudioVAE:
    """The codec, on the CPU. It computes in float32 whatever `dtype` its weights are kept in.

    Raises:
        CheckpointError, ConfigError: see `source.audio_vae`.
    """
    config, tensors = audio_vae(folder)
    vae = AudioVAE(config, encodes=encodes(tensors), ops=ops, device="meta", dtype=dtype)
    assign(vae, {k: v.to(dtype) for k, v in tensors.items()}, str(folder))
    return vae
