"""A clip from a published folder without ComfyUI: our core's loop, with text encoder and video VAE of others.

Everything is held on one device; nothing is offloaded. For the tiny checkpoint that is nothing, for the real one about
40 GB (one expert at a time), which is why ComfyUI is the way to run that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mova_core.checkpoint.load import load_audio_vae, load_joint
from mova_core.checkpoint.source import from_folder
from mova_core.image import assemble_condition, condition_clip, condition_mask, crop_and_resize
from mova_core.model.mova import Mova
from mova_core.sampling.guidance import Guidance, Velocities
from mova_core.sampling.sampler import denoise, initial_noise
from mova_core.sampling.schedule import TIMESTEPS, expert_for, sigmas
from mova_core.shapes import (
    SPATIAL_STRIDE,
    AudioShape,
    VideoShape,
    audio_latent_shape,
    audio_samples,
    audio_steps,
    video_latent_shape,
)
from mova_core.text import cap_tokens, clean_prompt, pad_context

TINY_BYTES = 1e9  # a checkpoint below this runs in float32
Told = Callable[..., None]
"""Called as (what, done, total)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to make. `picture` is (1, H, W, 3), the first frame before cropping."""

    folder: Path
    picture: Tensor
    prompt: str
    negative: str
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    cfg: float
    seed: int


@dataclass(frozen=True)
class Clip:
    """Pictures (F, H, W, 3) in [0, 1] and sound (1, samples) in [-1, 1]."""

    pictures: Tensor
    waveform: Tensor
    sample_rate: int


class Experts:
    """The loop's model: one expert in memory at a time, chosen by the step's noise level."""

    def __init__(self, job: Job, contexts: tuple[Tensor, Tensor], condition: Tensor, dtype: torch.dtype) -> None:
        self.job, self.contexts, self.condition, self.dtype = job, contexts, condition, dtype
        self.boundary = from_folder(job.folder).scheduler.boundary
        self.name = ""
        self.model: Mova | None = None

    def __call__(
        self,
        video: Tensor,
        audio: Tensor,
        video_timestep: Tensor,
        audio_timestep: Tensor,
        positive: bool,
        *,
        bridge: bool = True,
    ) -> Velocities:
        assert bridge, "this loop guides by text alone"
        model = self._expert(float(video_timestep[0]) / TIMESTEPS)
        context = self.contexts[0 if positive else 1]
        times = video_timestep, audio_timestep
        velocities: Velocities = model(video, audio, context, *times, condition=self.condition, fps=self.job.fps)
        return velocities

    def _expert(self, sigma: float) -> Mova:
        name = expert_for(sigma, self.boundary)
        if self.model is None or name != self.name:
            self.model = None  # freed before the other one comes
            self.model = load_joint(self.job.folder, name, self.dtype).to(self.condition.device)
            self.name = name
        assert self.model is not None
        return self.model


@torch.inference_mode()
def run(job: Job, report: Told) -> Clip:
    """Make the clip.

    Raises:
        MovaError: sizes that no clip can have, or a folder that is not MOVA.
    """
    shape = VideoShape(batch=1, frames=job.frames, height=job.height, width=job.width)
    sound = AudioShape(batch=1, steps=audio_steps(job.frames, job.fps))
    published = from_folder(job.folder)
    device = torch.device("cuda" if torch.cuda.is_available() and not is_tiny(job.folder) else "cpu")
    dtype = torch.float32 if is_tiny(job.folder) else torch.bfloat16

    report("reading the prompt")
    contexts = encode_prompts(job, device, dtype)
    report("encoding the first frame")
    vae = VideoVAE(job.folder / "video_vae", device)
    condition = encode_condition(job, vae)
    schedule = sigmas(job.steps, published.scheduler.shift, published.scheduler.sigma_min)
    shapes = video_latent_shape(shape), audio_latent_shape(sound, published.model.audio.in_channels)
    video, audio = (n.to(device) for n in initial_noise(*shapes, torch.Generator().manual_seed(job.seed)))
    report("denoising", 0, job.steps)
    model = Experts(job, contexts, condition, dtype)
    video, audio = denoise(
        model,
        video,
        audio,
        schedule,
        guidance=Guidance(text_scale=job.cfg),
        on_step=lambda step, steps, *_: report("denoising", step + 1, steps),
    )
    del model
    report("decoding")
    codec = load_audio_vae(job.folder).to(device)
    waveform = codec.decode(audio)[0, :, : audio_samples(job.frames, job.fps)]
    return Clip(vae.decode(video)[0].cpu(), waveform.cpu(), codec.sample_rate)


def is_tiny(folder: Path) -> bool:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors")) < TINY_BYTES


def encode_prompts(job: Job, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positive and negative context, (1, 512, width): rows past the prompt's end are zero and attended to."""
    from tokenizers import Tokenizer
    from transformers import UMT5EncoderModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    # Not transformers' tokenizer class: its version 5 rebuilds the vocabulary, and the identifiers are others.
    tokenizer = Tokenizer.from_file(str(job.folder / "tokenizer" / "tokenizer.json"))
    encoder: Any = UMT5EncoderModel.from_pretrained(job.folder / "text_encoder", dtype=dtype).to(device)

    def encode(words: str) -> Tensor:
        ids, _cut = cap_tokens(tokenizer.encode(clean_prompt(words)).ids)
        tokens = torch.tensor([ids], device=device)
        return pad_context(encoder(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state)

    return encode(job.prompt), encode(job.negative)


def encode_condition(job: Job, vae: VideoVAE) -> Tensor:
    """(1, 20, T, h, w): which frames are known, and the latents of the first frame followed by grey."""
    clip = condition_clip(crop_and_resize(job.picture, job.height, job.width), job.frames)
    mask = condition_mask(job.frames, job.height // SPATIAL_STRIDE, job.width // SPATIAL_STRIDE)
    return assemble_condition(mask, vae.encode(clip))


class VideoVAE:
    """diffusers' Wan VAE in float32, between clips (B, 3, F, H, W) in [-1, 1] and normalised latents."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from diffusers import AutoencoderKLWan

        self.vae: Any = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).to(
            device
        )
        mean, std = self.vae.config.latents_mean, self.vae.config.latents_std
        self.mean, self.std = (torch.tensor(values, device=device).view(1, -1, 1, 1, 1) for values in (mean, std))

    def encode(self, clip: Tensor) -> Tensor:
        return (self.vae.encode(clip.to(self.mean)).latent_dist.mode() - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """(B, F, H, W, 3) in [0, 1]."""
        pixels = self.vae.decode(latents * self.std + self.mean).sample
        return (pixels.clamp(-1, 1) / 2 + 0.5).movedim(1, -1)
