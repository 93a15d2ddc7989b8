"""Encoding and decoding by whatever VAE came in, and what it made held against what was wanted.

Axes: B clips, F pictures, H W pixels, C channels, T latent frames, h w latent pixels, A audio steps, S samples.
"""

from collections.abc import Callable

import comfy.sd
from torch import Tensor

from ....mova_core.errors import CheckpointError, NotFiniteError
from ....mova_core.inputs.numbers import told
from ....mova_core.inputs.tensors import has_broken

VAE_PRECISION = (
    "its precision does not hold these numbers, or its file is damaged. Start ComfyUI with --fp32-vae, or take the VAE of "
    "'MOVA Loader'"
)


def encoded(vae: comfy.sd.VAE, pictures: Tensor) -> Tensor:
    """(B, C, T, h, w) latents of (F, H, W, 3) pictures in 0..1.

    Raises:
        CheckpointError: the VAE made something else of them.
        NotFiniteError: it made NaN.
    """
    return _finite(vae, _made(vae, lambda: vae.encode(pictures), "encode"), "the video VAE")


def decoded(vae: comfy.sd.VAE, latents: Tensor, tile: int = 0, overlap: int = 0) -> Tensor:
    """(B, F, H, W, 3) pictures of (B, C, T, h, w) latents, in tiles of so many latent pixels where that is not 0.

    Some of the clips may be NaN, which `broken_clips` tells.

    Raises:
        CheckpointError: the VAE made something else of them.
        NotFiniteError: it made NaN of every clip.
    """
    tiled = {"tile_x": tile, "tile_y": tile, "overlap": overlap}
    made = _made(vae, lambda: vae.decode_tiled(latents, **tiled) if tile else vae.decode(latents), "decode")
    if len(broken_clips(made)) == len(made):
        raise NotFiniteError(_nan(vae, "the video VAE"))
    return made


def heard(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """(B, 1, S) sound of (B, C, A) latents.

    Raises:
        NotFiniteError: it is NaN.
    """
    return _finite(vae, vae.decode(latents), "the audio VAE").movedim(-1, 1)


def broken_clips(made: Tensor) -> list[int]:
    """Which clips of a batch are not finite throughout."""
    return [n for n, clip in enumerate(made) if has_broken(clip)]


def _made(vae: comfy.sd.VAE, code: Callable[[], object], what: str) -> Tensor:
    try:
        made = code()
    except Exception as error:
        if isinstance(vae, comfy.sd.VAE):
            raise
        raise CheckpointError(
            f"{told(vae)}, which another pack gives as a VAE, cannot {what} a clip ({type(error).__name__}: {error!s:.150}). "
            "Connect the VAE of 'MOVA Loader', or wan_2.1_vae"
        ) from error
    if not isinstance(made, Tensor) or made.ndim != 5 or not made.numel():
        shape = tuple(made.shape) if isinstance(made, Tensor) else told(made)
        raise CheckpointError(
            f"this VAE ({type(vae).__name__}) made {shape} where it should {what} a clip; connect the VAE of 'MOVA Loader', "
            "or wan_2.1_vae"
        )
    return made


def _finite(vae: comfy.sd.VAE, made: Tensor, name: str) -> Tensor:
    if has_broken(made):
        raise NotFiniteError(_nan(vae, name))
    return made


def _nan(vae: comfy.sd.VAE, name: str) -> str:
    precision = str(vae.vae_dtype if isinstance(vae, comfy.sd.VAE) else "its own precision").removeprefix("torch.")
    return f"{name} gave NaN or infinite numbers, computing in {precision}: {VAE_PRECISION}"
