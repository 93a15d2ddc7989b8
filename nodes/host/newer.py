"""What not every ComfyUI has that this pack runs on: asked for by name when used, here and nowhere else.

Never by version: checkouts between two releases bear the number of the older one. tests/nodes/contract.py lets names of
this file be missing, and of no other.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from io import BytesIO
from typing import Protocol

import av
import torch
from torch import Tensor

from ...mova_core.errors import MovaError

FINE = 10.0  # constant rate factor at which H.264 is hardly told from what went in


class Placed(Protocol):
    """A ModelPatcher: where its weights compute and where they wait."""

    load_device: torch.device
    offload_device: torch.device


class Video(Protocol):
    """A VIDEO, as far as all versions agree on it."""

    def get_stream_source(self) -> str | BytesIO: ...

    def get_active_trim_window(self) -> tuple[float, float]: ...

    def get_dimensions(self) -> tuple[int, int]: ...

    def save_to(self, path: BytesIO, *, crf: float) -> None: ...


def check_core() -> None:
    """Refuse a ComfyUI that samples joint latents wrong.

    A format that completes empty latents came within days of the mask that says which stream is held; without that, a
    held sound reaches the model noised and under timestep 0, and the picture made to it is wrong in silence.

    Raises:
        ImportError: it is older.
    """
    from comfy.latent_formats import LatentFormat

    if not hasattr(LatentFormat, "fix_empty_latent"):
        name = "comfy.latent_formats"
        raise ImportError(f"{name}.LatentFormat has no fix_empty_latent", name=name)


def resampler() -> Callable[[Tensor, int, int], Tensor]:
    """ComfyUI's own, or torchaudio's of the same arguments, which a ComfyUI without one of its own installs.

    Raises:
        MovaError: there is neither.
    """
    try:
        from comfy.audio import resample
    except ImportError:
        try:
            from torchaudio.functional import resample
        except (ImportError, OSError) as error:  # OSError: built for another torch
            raise MovaError(
                f"this ComfyUI has no resampler of its own, and torchaudio cannot be imported ({error}): update ComfyUI, "
                "or install the torchaudio that belongs to its torch, or give the sound at the rate that is wanted"
            ) from error
    return resample


def disk(tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """What a ModelPatcher is to be told of the disk that these tensors of a file lie on: whether it is so fast that
    weights are better read from it each time than kept in host memory. Nothing where ComfyUI does not ask."""
    try:
        from comfy.storage import state_dict_fast_disk
    except ImportError:
        return {}
    return {"fast_disk": state_dict_fast_disk(tensors)}


def disk_of(patcher: object) -> dict[str, bool]:
    """The same, as the ModelPatcher of another loader was told."""
    return {"fast_disk": patcher.fast_disk} if hasattr(patcher, "fast_disk") else {}


def in_scopes(pop: Callable[..., None]) -> Callable[[str], Callable[..., None]]:
    """Name of a kind of layers -> `prefetch_queue_pop` for them. Where ComfyUI compiles allocations it learns by the name
    which layers are alike: they must allocate alike, and are told apart from other kinds by a pop of no module between."""
    takes = "malloc_scope" in inspect.signature(pop).parameters
    return cache(lambda scope: partial(pop, malloc_scope=scope) if takes else pop)


def on_device(patcher: Placed, load_device: torch.device, offload_device: torch.device) -> None:
    """Have a patcher load to another device; under dynamic VRAM each device has a record of what is pinned for it."""
    patcher.load_device, patcher.offload_device = load_device, offload_device
    if hasattr(patcher, "register_load_device"):
        patcher.register_load_device(load_device)


def stream_of(video: Video) -> tuple[str | BytesIO, float, float]:
    """A VIDEO's file or bytes, and the part of it that is meant: from when and how long, in seconds (0: to its end).

    Newer versions crop and scale a VIDEO without touching its file. Such a one is written out, the part that is meant.
    """
    source = video.get_stream_source()
    if not _edited(video, source):
        return (source, *video.get_active_trim_window())
    return written(video), 0.0, 0.0


def written(video: Video) -> BytesIO:
    """A VIDEO, or the part of it that is meant, as a file in memory that is hardly told from it."""
    file = BytesIO()
    video.save_to(file, crf=FINE)
    file.seek(0)
    return file


def _edited(video: Video, source: str | BytesIO) -> bool:
    if hasattr(video, "has_pending_frame_edits"):
        return bool(video.has_pending_frame_edits())
    if not hasattr(video, "as_cropped"):
        return False
    with av.open(source) as container:
        stream = container.streams.video[0]
        return bool(video.get_dimensions() != (stream.width, stream.height))
