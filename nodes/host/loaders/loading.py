"""Published folder or single files -> MODEL, CLIP, VAE. Weights stay mapped from disk; ComfyUI moves them."""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.quant_ops import QUANT_ALGOS
from torch import Tensor

from ....mova_core.checkpoint.keys import original_video_vae
from ....mova_core.checkpoint.load import assign, joint_shapes
from ....mova_core.checkpoint.quantization import FORMATS, QUANT_MARK, SCALES, Format, configuration, quantized
from ....mova_core.checkpoint.source import Source, joint_names
from ....mova_core.checkpoint.variants import AUDIO, BRIDGE, HIGH, LOW
from ....mova_core.checkpoint.weight_file import open_component
from ....mova_core.errors import CheckpointError
from ....mova_core.shapes import AudioGrid
from .. import newer
from ..experts import pair
from ..keys import SOURCE_FILES
from ..listed import in_place
from ..machine import profiling
from ..model.base_model import MovaModel
from ..model.settings import MovaSettings
from ..patching.patcher import MovaPatcher

WEIGHT_DTYPES: dict[str, torch.dtype | Format | None] = {
    "default": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": FORMATS["fp8"],
    "int8": FORMATS["int8"],
}
SAME_FILE = "in the high-noise file"
SHARED_FILE = "in the shared file"
INDEX_FILE = "model_index.json"
LAYER_PARTS = ("weight", QUANT_MARK, *SCALES)  # of a quantised layer


def folders() -> list[str]:
    """Published folders in ComfyUI's `diffusers` model folders, by the name under which they are listed."""
    return sorted(_found())


def find_folder(name: str) -> Path:
    """The folder listed as `name`.

    Raises:
        CheckpointError: it is not there (any more).
    """
    roots = list(map(Path, folder_paths.get_folder_paths("diffusers")))
    found = _found()
    if name in found:
        return found[name]
    if name == "." and (itself := [root for root in roots if (root / INDEX_FILE).is_file()]):
        return itself[0]  # as the stock loader calls a model folder that is itself the extra path
    raise CheckpointError(
        f"there is no MOVA folder {name!r:.200} in {', '.join(map(str, roots))}. Download it there and press R"
    )


def _found() -> dict[str, Path]:
    """Name -> folder, wherever the stock loader looks: any depth, through links, a search path that is itself a model.

    That one is listed under the folder's own name. Where two search paths hold the same name, the first one's counts.
    """
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for folder in _models(root):
            name = folder.relative_to(root).as_posix()
            found.setdefault(root.name if name == "." else name, folder)
    return found


def _models(root: Path) -> Iterator[Path]:
    """Folders with a model_index.json, each real folder once on its way: a link to a folder above it ends there."""
    above: dict[str, frozenset[str]] = {str(root): frozenset()}
    for place, names, files in os.walk(root, followlinks=True):
        passed = above.pop(place, frozenset()) | {os.path.realpath(place)}
        if INDEX_FILE in files:
            yield Path(place)
            names.clear()  # what lies in a model is its parts
        names[:] = [name for name in names if os.path.realpath(os.path.join(place, name)) not in passed]  # noqa: PTH118
        above |= {os.path.join(place, name): passed for name in names}  # noqa: PTH118


def model_files() -> list[str]:
    """Files in ComfyUI's `diffusion_models` folders, by relative name."""
    return folder_paths.get_filename_list("diffusion_models")


def vae_files() -> list[str]:
    """Files in ComfyUI's `vae` folders, by relative name."""
    return folder_paths.get_filename_list("vae")


def find_file(kind: str, name: str) -> Path:
    """The file listed as `name` in ComfyUI's folders of this `kind`.

    Raises:
        CheckpointError: it is not there (any more), or is no safetensors file.
    """
    path = folder_paths.get_full_path(kind, name) or in_place(kind, name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths(kind))
        raise CheckpointError(f"there is no file {name!r:.200} in {folders}. Put it there and press R")
    if not path.endswith((".safetensors", ".sft")):
        raise CheckpointError(f"{path} is not a safetensors file; convert it, or use the loader of its own kind")
    return Path(path)


def chosen_file(name: str) -> Path | None:
    """The model file listed as `name`; None where it is left to another input's file.

    Raises:
        CheckpointError: see `find_file`.
    """
    return None if name in (SAME_FILE, SHARED_FILE) else find_file("diffusion_models", name)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped; the core brings what says how they are quantised to ComfyUI's newest form."""
    return comfy.utils.load_torch_file(str(path))


def load_model(source: Source, weight_dtype: str = "default") -> MovaPatcher:
    """Both experts of a source as one MODEL. Audio tower and bridge are mapped once and shared.

    Raises:
        CheckpointError: a weight is missing, unknown, or of another shape.
    """
    high, low = load_experts(source, weight_dtype)
    joined = profiling.watched(pair.join(high, low, high.model.model_config.scheduler.boundary))
    joined.set_attachments(SOURCE_FILES, source.files())
    return joined


@contextmanager
def uncollected() -> Iterator[None]:
    """Thousands of modules are made at once and none is garbage: a collector that runs meanwhile walks through every
    object of ComfyUI, again and again, for half of the time."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


@uncollected()
def load_experts(source: Source, weight_dtype: str, *parts: str, disable_dynamic: bool = False) -> list[MovaPatcher]:
    """The experts of a source that are named, or both, a patcher each. ComfyUI may ask for one again."""
    names = parts or (HIGH, LOW)
    tensors = {
        part: _converted(held, WEIGHT_DTYPES[weight_dtype])
        for part, held in source.tensors(*names, AUDIO, BRIDGE, read=read).items()
    }
    made = []
    for part in names:
        weights = joint_names({name: tensors[name] for name in (part, AUDIO, BRIDGE)})
        disk = newer.disk(weights) if WEIGHT_DTYPES[weight_dtype] is None else {}  # what is converted is on no disk
        expert = _expert(settings_of(source), weights, f"{source.place} ({part})", not disable_dynamic, **disk)
        expert.cached_patcher_init = (load_experts, (source, weight_dtype, part), 0)
        made.append(expert)
    return made


def settings_of(source: Source) -> MovaSettings:
    """What ComfyUI asks of the configuration of a source's model."""
    own_shift = None if source.audio_shift == source.scheduler.shift else source.audio_shift
    return MovaSettings(source.model, source.scheduler, own_shift, source.audio_grid, source.variant)


def _converted(tensors: dict[str, Tensor], target: torch.dtype | Format | None) -> dict[str, Tensor]:
    """Weights in another precision; layers that are quantised already stay as they are."""
    if isinstance(target, Format):
        return quantized(tensors, target)
    if target is None:  # no layer of ComfyUI computes in float64
        return {key: tensor.float() if tensor.dtype == torch.float64 else tensor for key, tensor in tensors.items()}
    kept = {
        key.removesuffix(QUANT_MARK) + part for key in tensors if key.endswith(f".{QUANT_MARK}") for part in LAYER_PARTS
    }
    return {key: tensor if key in kept else tensor.to(target) for key, tensor in tensors.items()}


def _expert(settings: MovaSettings, tensors: dict[str, Tensor], where: str, dynamic: bool, **disk: bool) -> MovaPatcher:
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    model = MovaModel(settings, device=_prepare(settings, tensors, device))
    filled = getattr(model.diffusion_model.get_submodule("blocks.0.self_attn.q"), "weight", None) is not None
    # ComfyUI's layers have no parameters before they are loaded, under dynamic VRAM and where weights are quantised
    assign(model.diffusion_model, tensors, where, shapes=None if filled else joint_shapes(settings.sizes))
    model.device = offload
    comfy.model_management.archive_model_dtypes(model.diffusion_model)
    return pair.patcher(model, device, offload, dynamic, **disk)


def _prepare(settings: MovaSettings, tensors: dict[str, Tensor], device: torch.device) -> torch.device:
    """Choose layers and precision for these weights; the device to build the empty model on.

    Layers must cast weights to the dtype of their input: the float32 islands need that. Those of quantised weights
    create no weight before they are loaded, and load it to the device they were built on.
    """
    if is_quantised(tensors):
        compute = comfy.model_management.unet_manual_cast(None, device, settings.supported_inference_dtypes)
        settings.set_inference_dtype(compute, compute)
        settings.quant_config = {"mixed_ops": True}  # ComfyUI chooses MixedPrecisionOps
        return torch.device("cpu")
    stored = comfy.utils.weight_dtype(tensors)
    compute = comfy.model_management.unet_manual_cast(stored, device, settings.supported_inference_dtypes)
    settings.set_inference_dtype(stored, compute)
    settings.custom_operations = comfy.ops.manual_cast
    return torch.device("meta")


def is_quantised(tensors: Mapping[str, Tensor]) -> bool:
    """Whether any layer is stored in one of ComfyUI's formats.

    Raises:
        CheckpointError: this ComfyUI does not know the format.
    """
    marks = [key for key in tensors if key.endswith(f".{QUANT_MARK}")]
    for key in marks:
        name = configuration(tensors[key], key.removesuffix(f".{QUANT_MARK}"))["format"]
        if name not in QUANT_ALGOS:
            raise CheckpointError(
                f"{key.removesuffix(f'.{QUANT_MARK}')} is stored as {name:.50}, which this ComfyUI does not read; it knows "
                f"{', '.join(QUANT_ALGOS)}. Update ComfyUI and comfy-kitchen, or choose a file in another precision"
            )
    return bool(marks)


class MovaVideoVAE(comfy.sd.VAE):
    """The Wan 2.1 VAE of a MOVA folder; it knows the audio latents of its folder's codec, which a clip begins with."""

    audio_latent_channels: int
    audio_grid: AudioGrid


def load_video_vae(folder: Path, audio_latent_channels: int, audio_grid: AudioGrid) -> MovaVideoVAE:
    """The video VAE of a published folder, in diffusers' or the original layout.

    Raises:
        CheckpointError: missing, damaged, or not a Wan 2.1 VAE.
    """
    where = folder / "video_vae"
    tensors = original_video_vae(open_component(folder, "video_vae").plain(read), str(where))
    if "decoder.middle.0.residual.0.gamma" not in tensors:
        raise CheckpointError(f"{where} is not a Wan 2.1 video VAE. Download the folder again")
    vae = MovaVideoVAE(sd=tensors)
    vae.throw_exception_if_invalid()
    vae.audio_latent_channels, vae.audio_grid = audio_latent_channels, audio_grid
    vae.patcher.cached_patcher_init = (video_vae_patcher, (folder, audio_latent_channels, audio_grid))
    return vae


def video_vae_patcher(
    folder: Path, audio_latent_channels: int, audio_grid: AudioGrid, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """What ComfyUI asks for again, to have the VAE on another device; as of its own VAEs, of the usual kind."""
    return load_video_vae(folder, audio_latent_channels, audio_grid).patcher
