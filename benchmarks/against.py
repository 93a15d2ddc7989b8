"""CPU time of one joint forward against DiffSynth-Studio's, interleaved in one process, on the same weights.

Needs PyPI `diffsynth` on the path (`pip install --no-deps diffsynth`); what it imports beside torch and einops and this
measurement does not use may be missing. The outputs are compared first: a ratio of two different models means nothing.
"""

import importlib.abc
import importlib.machinery
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from mova_core.config import BridgeConfig, MovaConfig, TowerConfig
from mova_core.model.mova import Mova
from mova_core.ops import Runtime, cast
from mova_core.shapes import DEFAULT_FPS

WARM, ROUNDS = 2, 15
UNUSED = {"accelerate", "datasets", "deepspeed", "imageio", "modelscope", "pandas", "peft", "torchaudio", "torchvision"}
COMMON: dict[str, Any] = {"text_width": 256, "frequency_width": 256, "eps": 1e-6}
SIZES = MovaConfig(
    video=TowerConfig(
        width=768, heads=6, layers=4, ffn_width=2048, in_channels=36, out_channels=16, patch=(1, 2, 2), **COMMON
    ),
    audio=TowerConfig(
        width=384, heads=3, layers=3, ffn_width=2048, in_channels=128, out_channels=128, patch=(1,), **COMMON
    ),
    bridge=BridgeConfig(layers=3, video_width=768, audio_width=384, head_width=128, audio_rate=50.0, eps=1e-6),
)


class Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for modules that DiffSynth-Studio imports for other models."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = MagicMock(__path__=[], __spec__=spec, __name__=spec.name)
        sys.modules[spec.name] = module
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    """2304 video tokens, 60 audio steps, 512 text rows."""
    make = torch.Generator().manual_seed(0)
    shapes = {
        "video": (1, 16, 9, 32, 32),
        "audio": (1, 128, 60),
        "context": (1, 512, 256),
        "condition": (1, 20, 9, 32, 32),
    }
    return {name: torch.randn(shape, generator=make).to(dtype) for name, shape in shapes.items()}


def ours(weights: dict[str, Tensor], dtype: torch.dtype, given: dict[str, Tensor], run: Runtime) -> Callable[[], Any]:
    model = Mova(SIZES, ops=cast, device="meta", dtype=dtype)
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False)
    time_step = torch.full((1,), 500.0)
    return lambda: model(
        given["video"],
        given["audio"],
        given["context"],
        time_step,
        time_step,
        condition=given["condition"],
        fps=DEFAULT_FPS,
        runtime=run,
    )


def theirs(weights: dict[str, Tensor], dtype: torch.dtype, given: dict[str, Tensor]) -> Callable[[], Any]:
    from diffsynth.models.mova_audio_dit import MovaAudioDit
    from diffsynth.models.mova_dual_tower_bridge import DualTowerConditionalBridge
    from diffsynth.models.wan_video_dit import WanModel, set_to_torch_norm
    from diffsynth.pipelines.mova_audio_video import model_fn_mova_audio_video

    def tower(config: TowerConfig) -> dict[str, Any]:
        return {
            "dim": config.width,
            "in_dim": config.in_channels,
            "ffn_dim": config.ffn_width,
            "out_dim": config.out_channels,
            "text_dim": config.text_width,
            "freq_dim": config.frequency_width,
            "eps": config.eps,
            "patch_size": config.patch,
            "num_heads": config.heads,
            "num_layers": config.layers,
            "has_image_input": False,
        }

    bridge = DualTowerConditionalBridge(4, 3, 768, 384, audio_fps=50.0, head_dim=128)
    parts = {
        "": WanModel(**tower(SIZES.video)),
        "audio_dit.": MovaAudioDit(**tower(SIZES.audio)),
        "dual_tower_bridge.": bridge,
    }
    for prefix, part in parts.items():
        own = {key: weights[prefix + key] for key in part.state_dict() if prefix + key in weights}
        missing = [key for key in part.load_state_dict(own, strict=False).missing_keys if not key.endswith("inv_freq")]
        assert not missing, missing
        part.to(dtype).requires_grad_(False)
    set_to_torch_norm(list(parts.values()))
    video, audio, bridge = parts.values()
    return lambda: model_fn_mova_audio_video(
        video_dit=video,
        audio_dit=audio,
        dual_tower_bridge=bridge,
        video_latents=given["video"],
        audio_latents=given["audio"],
        timestep=torch.full((1,), 500.0, dtype=dtype),
        context=given["context"],
        y=given["condition"],
        frame_rate=int(DEFAULT_FPS),
    )


def weights() -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(1)
    shapes = Mova(SIZES, device="meta").state_dict()
    return {name: 0.03 * torch.randn(tensor.shape, generator=make) for name, tensor in shapes.items()}


def _round(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
    """Mean seconds of each, run as one, other, other, one: what drifts meets both alike."""
    taken = {one: 0.0, other: 0.0}
    for which in (one, other, other, one):
        begun = time.perf_counter()
        which()
        taken[which] += (time.perf_counter() - begun) / 2
    return taken[one], taken[other]


def compare(dtype: torch.dtype, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of both, the median ratio of a round (ours over theirs) and of the minima, and how far outputs differ."""
    sys.meta_path.append(Unused())
    given, drawn = inputs(dtype), {name: tensor.to(dtype) for name, tensor in weights().items()}
    run = Runtime(ffn_rows=16384)
    with torch.no_grad():
        one, other = ours(drawn, dtype, given, run), theirs(drawn, dtype, given)
        difference = max(
            float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(one(), other(), strict=True)
        )
        times = [_round(one, other) for _ in range(WARM + rounds)]
    kept = times[WARM:]
    fastest = [min(column) for column in zip(*kept, strict=True)]
    return {
        "ours": statistics.median(a for a, _ in kept),
        "theirs": statistics.median(b for _, b in kept),
        "ratio": statistics.median(a / b for a, b in kept),
        "ratio of minima": fastest[0] / fastest[1],
        "difference": difference,
    }
