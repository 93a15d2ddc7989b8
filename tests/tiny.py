"""Tiny models for every test: sizes that differ wherever the model lets them, weights that are a formula.

The formula needs no generator, so the numbers do not change with torch's version; every norm, bias, gate and
modulation is far enough from its neutral value that leaving it out shows.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mova_core.config import BridgeConfig, MovaConfig, SchedulerConfig, TowerConfig
from mova_core.model.mova import Mova
from mova_core.ops import Ops, cast
from tools.json_files import write_json
from tools.published_configs import bridge_config, model_index, scheduler_config, tower_config

WEIGHTS = "diffusion_pytorch_model.safetensors"
FPS = 24.0


def tiny_config(*, head_width: int = 12, video_layers: int = 3, audio_layers: int = 2) -> MovaConfig:
    """Four video heads, two audio heads, one more video layer than the bridge reaches."""
    common: dict[str, Any] = {"text_width": 20, "frequency_width": 16, "eps": 1e-6}
    video = TowerConfig(
        width=4 * head_width,
        heads=4,
        layers=video_layers,
        ffn_width=40,
        in_channels=12,
        out_channels=4,
        patch=(1, 2, 2),
        **common,
    )
    audio = TowerConfig(
        width=2 * head_width,
        heads=2,
        layers=audio_layers,
        ffn_width=28,
        in_channels=6,
        out_channels=6,
        patch=(1,),
        **common,
    )
    bridge = BridgeConfig(
        layers=min(video_layers, audio_layers),
        video_width=video.width,
        audio_width=audio.width,
        head_width=head_width,
        audio_rate=50.0,
        eps=1e-6,
    )
    return MovaConfig(video=video, audio=audio, bridge=bridge)


TINY = tiny_config()
SCHEDULER = SchedulerConfig(shift=5.0, sigma_min=0.0, boundary=0.9)


def wave(shape: tuple[int, ...], phase: float = 0.0) -> Tensor:
    """Numbers in -1..1 without pattern: rows of a plain sin(arange) would make matrices of rank two."""
    steps = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return torch.sin(997.0 * torch.sin(steps + phase)).float().view(shape)


def filled(name: str, shape: tuple[int, ...], phase: float) -> Tensor:
    """A weight that keeps activations near one: sums of `fan in` terms, norms about 1, modulation well off 0."""
    values = wave(shape, phase)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * values
    if name.endswith("modulation"):
        return 0.5 * values
    return 0.2 * values if name.endswith("bias") else values * (2.0 / torch.Size(shape[1:]).numel()) ** 0.5


def tiny_weights(config: MovaConfig = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Every weight of the joint model, float32, under its names."""
    names = Mova(config, device="meta").state_dict()
    return {name: filled(name, tuple(meta.shape), seed + 0.37 * n) for n, (name, meta) in enumerate(names.items())}


def tiny_model(config: MovaConfig = TINY, dtype: torch.dtype = torch.float32, *, ops: Ops = cast) -> Mova:
    """The joint model with `tiny_weights` in `dtype`."""
    model: nn.Module = Mova(config, ops=ops, device="meta", dtype=dtype)
    model.load_state_dict({k: v.to(dtype) for k, v in tiny_weights(config).items()}, assign=True)
    return model.requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One forward's arguments; `model(*inputs.tensors, condition=..., fps=...)` is `inputs.run(model)`."""

    video: Tensor
    audio: Tensor
    context: Tensor
    video_timestep: Tensor
    audio_timestep: Tensor
    condition: Tensor
    fps: float = FPS

    def run(self, model: nn.Module, **options: Any) -> tuple[Tensor, Tensor]:
        tensors = (self.video, self.audio, self.context, self.video_timestep, self.audio_timestep)
        with torch.no_grad():
            return model(*tensors, condition=self.condition, fps=self.fps, **options)

    def rows(self, *rows: int) -> "Inputs":
        """The samples of these rows of the batch, in this order."""
        return replace(self, **{k: v[list(rows)] for k, v in vars(self).items() if isinstance(v, Tensor)})


def tiny_inputs(config: MovaConfig = TINY, batch: int = 1, rows: int = 7) -> Inputs:
    """3 latent frames of 4 x 6 beside 11 audio steps; samples and timesteps differ."""
    grid = (3, 4, 6)
    return Inputs(
        video=wave((batch, config.video.out_channels, *grid), 1),
        audio=wave((batch, config.audio.in_channels, 11), 2),
        context=wave((batch, rows, config.video.text_width), 3),
        video_timestep=torch.tensor([961.5, 40.25, 700.0])[:batch],
        audio_timestep=torch.tensor([333.5, 900.0, 12.0])[:batch],
        condition=wave((batch, config.condition_channels, *grid), 4),
    )


def write_published(
    folder: Path, config: MovaConfig = TINY, weights: dict[str, dict[str, Tensor]] | None = None
) -> Path:
    """A folder in the published layout, as far as `load_joint` reads it; the experts differ in their weights."""
    parts = published_weights(config) if weights is None else weights
    sizes = {
        "video_dit": tower_config("WanModel", config.video),
        "video_dit_2": tower_config("WanModel", config.video),
        "audio_dit": tower_config("WanAudioModel", config.audio) | {"vae_type": "dac"},
        "dual_tower_bridge": bridge_config(config),
    }
    for name, tensors in parts.items():
        (folder / name).mkdir(parents=True)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name / WEIGHTS)
        write_json(folder / name / "config.json", sizes[name])
    write_json(folder / "model_index.json", model_index(SCHEDULER))
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(SCHEDULER))
    return folder


def published_weights(config: MovaConfig = TINY) -> dict[str, dict[str, Tensor]]:
    """Component -> its weights, of two different experts."""
    high, low = split(tiny_weights(config)), split(tiny_weights(config, seed=1))
    return high | {"video_dit_2": low["video_dit"]}


def split(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The joint model's weights by component, with the names the component's own file has."""
    parts: dict[str, dict[str, Tensor]] = {"video_dit": {}, "audio_dit": {}, "dual_tower_bridge": {}}
    for key, tensor in weights.items():
        head, _, rest = key.partition(".")
        component, name = (head, rest) if head in parts else ("video_dit", key)
        parts[component][name] = tensor
    return parts
