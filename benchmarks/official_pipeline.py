"""The official pipeline on the CPU, from a checkout of OpenMOSS/MOVA, on a checkpoint in the published layout.

What it asks for beside torch, diffusers, transformers, einops and ftfy, and does not need here, may be missing: a
registry that only notes classes (mmengine), attention over several GPUs (yunchang), the base class of a codec that is
loaded by diffusers anyway (audiotools). Its functions run as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch

TOWERS = ("video_dit", "video_dit_2", "audio_dit")
PARTS = (*TOWERS, "dual_tower_bridge")


class Registry:
    """Notes nothing: what is registered stays what it is."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def register_module(self, *_: Any, module: Any = None, **__: Any) -> Any:
        return module if module is not None else lambda cls: cls


def load(repo: Path) -> Any:
    """The module of the official pipeline. Its package is left aside, as that imports the training code too."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # its rotary embedding and modulation are compiled, which rounds otherwise
    importlib.import_module("diffusers.pipelines")  # before the empty modules: it asks which packages are installed
    registry, audiotools, models = (ModuleType(n) for n in ("mmengine.registry", "audiotools", "audiotools.ml"))
    registry.Registry = Registry  # type: ignore[attr-defined]
    audiotools.AudioSignal = object  # type: ignore[attr-defined]
    models.BaseModel = type("BaseModel", (torch.nn.Module,), {})  # type: ignore[attr-defined]
    sys.modules |= {"mmengine": ModuleType("mmengine"), "mmengine.registry": registry}
    sys.modules |= {"audiotools": audiotools, "audiotools.ml": models}
    sys.modules |= {name: MagicMock(name=name) for name in ("yunchang", "yunchang.kernels")}
    sys.path.insert(0, str(repo))
    return from_file(repo, "mova/diffusion/pipelines/pipeline_mova.py")


def from_file(repo: Path, path: str) -> Any:
    """A module of the official code by itself, without what its package imports."""
    name = f"official_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, repo / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pipeline(official: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The official pipeline of a checkpoint. In bfloat16 time is embedded in float32, as under CUDA's autocast."""
    schedulers = importlib.import_module("mova.diffusion.schedulers.flow_match_pair")
    classes = dict.fromkeys(TOWERS[:2], official.WanModel) | {"audio_dit": official.WanAudioModel}
    classes |= {"dual_tower_bridge": official.DualTowerConditionalBridge, "audio_vae": official.DAC}
    classes |= {"video_vae": official.AutoencoderKLWan, "text_encoder": official.UMT5EncoderModel}
    parts = {name: cls.from_pretrained(folder / name, torch_dtype=dtype).eval() for name, cls in classes.items()}
    for name in TOWERS:
        parts[name].time_embedding.float()
        parts[name].time_projection.float()
    # The file itself: transformers 5 makes T5's tokenizer anew from its pieces and splits words otherwise than 4 did.
    kind = importlib.import_module("transformers").PreTrainedTokenizerFast
    tokenizer = kind(tokenizer_file=str(folder / "tokenizer" / "tokenizer.json"), pad_token="<pad>", eos_token="</s>")
    scheduler = schedulers.FlowMatchPairScheduler.from_pretrained(folder / "scheduler")
    if not torch.distributed.is_initialized():  # the loop asks for its rank
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return official.MOVA(**parts, tokenizer=tokenizer, scheduler=scheduler)
