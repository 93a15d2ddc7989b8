"""Published folder -> modules. Built without memory, weights assigned from the mapped files, every key accounted for.

A folder holds video_dit (high-noise expert), video_dit_2 (low-noise expert), audio_dit, dual_tower_bridge, audio_vae,
video_vae, text_encoder, tokenizer, scheduler and model_index.json.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..audio_vae.codec import AudioVAE
from ..config import MOVA_SCHEDULER, AudioVAEConfig, BridgeConfig, MovaConfig, SchedulerConfig, TowerConfig
from ..errors import CheckpointError
from ..model.mova import Mova
from ..ops import Ops, cast
from . import configs, detect
from .experts import EXPERTS, Expert
from .files import (
    Header,
    Read,
    checked_tensors,
    component_files,
    component_header,
    component_tensors,
    is_folder,
    read_json,
    read_tensors,
)
from .quantization import MARK, SCALES, plain_shapes, stored_shape
from .weight_norm import fold_weight_norm

JOINT = (*EXPERTS.values(), "audio_dit", "dual_tower_bridge")


@dataclass(frozen=True, kw_only=True)
class Published:
    """Sizes of everything in a published folder that this package runs."""

    model: MovaConfig
    scheduler: SchedulerConfig


def inspect(folder: Path | str) -> Published:
    """Read the configuration of a folder and check that its files are whole, without reading a weight.

    Raises:
        CheckpointError, ConfigError: what is missing, damaged, or not MOVA.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is not a folder. Choose the folder that holds model_index.json and video_dit")
    absent = [name for name in JOINT if not is_folder(folder / name)]
    if absent:
        wan = "dual_tower_bridge" in absent and {"transformer_2", "video_dit_2"} & {p.name for p in folder.iterdir()}
        hint = " It looks like Wan 2.2, which has no audio tower and no bridge." if wan else ""
        raise CheckpointError(f"{folder} lacks {', '.join(absent)}.{hint} Download the whole MOVA folder")
    headers = {name: component_header(folder / name) for name in JOINT}
    video = [_tower(folder / name, headers[name]) for name in EXPERTS.values()]
    if video[0] != video[1]:
        raise CheckpointError(
            f"{folder}: video_dit and video_dit_2 differ in size; they belong to different models. Download both again"
        )
    audio = _tower(folder / "audio_dit", headers["audio_dit"])
    bridge = _bridge(folder / "dual_tower_bridge", headers["dual_tower_bridge"])
    model = configs.named(str(folder), MovaConfig, video=video[0], audio=audio, bridge=bridge)
    return Published(model=model, scheduler=_scheduler(folder))


def _tower(folder: Path, header: Header) -> TowerConfig:
    shapes, config = plain_shapes(header.shapes), folder / "config.json"
    if not config.is_file():
        return detect.tower_config(shapes, str(folder))
    stated = configs.tower_config(read_json(config), str(config))
    agree(stated, detect.tower_config(shapes, str(folder), stated.heads, stated.eps), config)
    return stated


def _bridge(folder: Path, header: Header) -> BridgeConfig:
    shapes, config = plain_shapes(header.shapes), folder / "config.json"
    if not config.is_file():
        return detect.bridge_config(shapes, str(folder))
    stated = configs.bridge_config(read_json(config), str(config))
    agree(stated, detect.bridge_config(shapes, str(folder), stated.head_width, stated.audio_rate), config)
    return stated


def agree(stated: TowerConfig | BridgeConfig, found: TowerConfig | BridgeConfig, where: Path) -> None:
    """Refuse a configuration beside other weights: what it says of their sizes is never built."""
    for name, value in asdict(stated).items():
        if value != getattr(found, name):
            raise CheckpointError(
                f"{where} says {name} {value}, the weights beside it {getattr(found, name)}; "
                f"the folder mixes files of different models. Download {where.parent} again"
            )


def _scheduler(folder: Path) -> SchedulerConfig:
    config, index = folder / "scheduler" / "scheduler_config.json", folder / "model_index.json"
    if not config.is_file():
        return MOVA_SCHEDULER
    return configs.scheduler_config(read_json(config), read_json(index) if index.is_file() else {}, str(config))


def joint_tensors(folder: Path, expert: Expert, read: Read = read_tensors) -> dict[str, Tensor]:
    """One expert, audio tower and bridge of a folder that `inspect` has read, under the joint model's names."""
    return {**checked_tensors(folder / EXPERTS[expert], read), **shared_tensors(folder, read)}


def shared_tensors(folder: Path, read: Read = read_tensors) -> dict[str, Tensor]:
    """What both experts use, audio tower and bridge, of a folder that `inspect` has read."""
    parts = ("audio_dit", "dual_tower_bridge")
    return {f"{part}.{k}": v for part in parts for k, v in checked_tensors(folder / part, read).items()}


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of its weights."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


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
            f"{where} does not fit {type(module).__name__}: {len(missing)} weights missing (first: {missing[:1]}), "
            f"{len(unknown)} unknown (first: {unknown[:1]}). Download it again"
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


def _scale(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether `key` belongs to how a quantised layer is stored."""
    layer, _, part = key.rpartition(".")
    return part in (MARK, *SCALES) and f"{layer}.{MARK}" in tensors


def load_joint(
    folder: Path | str, expert: Expert = "high", dtype: torch.dtype = torch.float32, *, ops: Ops = cast
) -> Mova:
    """One expert with the audio tower and the bridge, on the CPU, mapped where `dtype` is what the files hold.

    Raises:
        CheckpointError, ConfigError: see `inspect` and `assign`.
    """
    if expert not in EXPERTS:
        raise CheckpointError(f"there is no {expert!r} expert; choose 'high' (noise) or 'low'")
    folder = Path(folder)
    model = Mova(inspect(folder).model, ops=ops, device="meta", dtype=dtype)
    assign(model, {k: v.to(dtype) for k, v in joint_tensors(folder, expert).items()}, str(folder))
    return model


def audio_vae_parts(folder: Path | str, read: Read = read_tensors) -> tuple[AudioVAEConfig, dict[str, Tensor]]:
    """Configuration and folded weights of the codec in `folder`, or in its audio_vae folder.

    Raises:
        CheckpointError, ConfigError: missing, damaged, or not a DAC.
    """
    folder = Path(folder)
    if is_folder(folder / "audio_vae") or (folder / "model_index.json").is_file():
        folder = folder / "audio_vae"
    tensors = fold_weight_norm(component_tensors(folder, read))
    config = folder / "config.json"
    if config.is_file():
        return configs.audio_vae_config(read_json(config), str(config)), tensors
    return detect.audio_vae_config(
        {k: tuple(v.shape) for k, v in tensors.items()}, str(component_files(folder)[0])
    ), tensors


def load_audio_vae(folder: Path | str, dtype: torch.dtype = torch.float32, *, ops: Ops = cast) -> AudioVAE:
    """The codec, on the CPU. It computes in float32 whatever `dtype` its weights are kept in.

    Raises:
        CheckpointError, ConfigError: see `audio_vae_parts`.
    """
    config, tensors = audio_vae_parts(folder)
    vae = AudioVAE(config, ops=ops, device="meta", dtype=dtype)
    assign(vae, {k: v.to(dtype) for k, v in tensors.items()}, str(folder))
    return vae
