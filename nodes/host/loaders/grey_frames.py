"""Pictures and the grey frames after them to latents: as many frames as the encoder looks back, the rest repeated."""

import torch
from comfy.ldm.wan.vae import WanVAE
from comfy.sd import VAE
from torch import Tensor

from ....mova_core.image import frames_to_encode, temporal_reach
from ....mova_core.shapes import latent_frames
from .vaes import encoded as encoded_by


def encoded(vae: VAE, clip: Tensor, last_guide: int) -> Tensor:
    """(1, 16, T, h, w) latents of (F, H, W, 3) pictures in 0..1 that are grey after frame `last_guide`.

    Another VAE than Wan's, whose layers are not known, encodes them all.
    """
    inner = getattr(vae, "first_stage_model", None)
    if not isinstance(inner, WanVAE):
        return encoded_by(vae, clip)
    frames = frames_to_encode(last_guide, temporal_reach(inner.encoder), len(clip))
    latents = encoded_by(vae, clip[:frames])
    rest = latent_frames(len(clip)) - latents.shape[2]
    return torch.cat((latents, latents[:, :, -1:].expand(-1, -1, rest, -1, -1)), dim=2)
