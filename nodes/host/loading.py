"""Published folder -> MODEL, CLIP, VAE. Weights stay mapped from disk; ComfyUI moves them when it needs them."""

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...mova_core.checkpoint.files import component_tensors
from ...mova_core.checkpoint.keys import original_video_vae
from ...mova_core.checkpoint.load import EXPERTS, Published, assign, inspect, shared_tensors
from ...mova_core.errors import CheckpointError
from ...mova_core.model.mova import Mova
from . import experts
from .model import MovaModel, MovaSettings

WEIGHT_DTYPES = {
    "default": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def folders() -> list[str]:
    """Published folders in ComfyUI's `diffusers` model folders, by relative name."""
    found = []
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        if root.is_dir():
            found += [path.parent.relative_to(root).as_posix() for path in root.glob("*/model_index.json")]
            found += [path.parent.relative_to(root).as_posix() for path in root.glob("*/*/model_index.json")]
    return sorted(set(found))


def find_folder(name: str) -> Path:
    """The folder listed as `name`.

    Raises:
        CheckpointError: it is not there (any more).
    """
    roots = [Path(root) for root in folder_paths.get_folder_paths("diffusers")]
    for root in roots:
        if name in folders() and (root / name / "model_index.json").is_file():
            return root / name
    raise CheckpointError(
        f"there is no MOVA folder {name!r} in {', '.join(map(str, roots))}. Download it there and press R"
    )


def read(path: Path) -> dict[str, Tensor]:
    return comfy.utils.load_torch_file(str(path))


def load_model(folder: Path, weight_dtype: str = "default", *, dynamic: bool = True) -> Any:
    """Both experts of a published folder as one MODEL. Audio tower and bridge are mapped once and shared.

    Raises:
        CheckpointError, ConfigError: what is missing, damaged or not MOVA.
    """
    published = inspect(folder)
    dtype = WEIGHT_DTYPES[weight_dtype]
    shared = _converted(shared_tensors(folder, read), dtype)
    high, low = (
        _expert(
            published,
            {**_converted(component_tensors(folder / part, read), dtype), **shared},
            str(folder / part),
            dynamic,
        )
        for part in EXPERTS.values()
    )
    return experts.join(high, low, published.scheduler.boundary)


def _converted(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return tensors if dtype is None else {name: tensor.to(dtype) for name, tensor in tensors.items()}


def _expert(published: Published, tensors: dict[str, Tensor], where: str, dynamic: bool) -> Any:
    settings = MovaSettings(published.model, published.scheduler)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    stored = comfy.utils.weight_dtype(tensors)
    compute = comfy.model_management.unet_manual_cast(stored, device, settings.supported_inference_dtypes)
    settings.set_inference_dtype(stored, compute)
    settings.custom_operations = comfy.ops.manual_cast  # casts to the input's dtype: float32 islands need that
    model = MovaModel(settings, device=torch.device("meta"))
    assign(model.diffusion_model, tensors, where, like=Mova(published.model, device="meta"))
    model.device = offload
    comfy.model_management.archive_model_dtypes(model.diffusion_model)
    return experts.patcher(model, device, offload, dynamic)


class MovaVideoVAE(comfy.sd.VAE):
    """The Wan 2.1 VAE of a MOVA folder; it knows how many channels its folder's audio latents have."""

    audio_latent_channels: int


def load_video_vae(folder: Path, audio_latent_channels: int) -> MovaVideoVAE:
    """The video VAE of a published folder, in diffusers' or the original layout.

    Raises:
        CheckpointError: missing, damaged, or not a Wan 2.1 VAE.
    """
    where = folder / "video_vae"
    tensors = original_video_vae(component_tensors(where, read), str(where))
    if "decoder.middle.0.residual.0.gamma" not in tensors:
        raise CheckpointError(f"{where} is not a Wan 2.1 video VAE. Download the folder again")
    vae = MovaVideoVAE(sd=tensors)
    vae.throw_exception_if_invalid()
    vae.audio_latent_channels = audio_latent_channels
    return vae
