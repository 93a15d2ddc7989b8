"""The official audio codec beside ours in one process, both on the golden weights. Needs its source, no checkpoint.

    python -m benchmarks.official_codec --repo PATH

PATH is a checkout of OpenMOSS/MOVA. What the golden tensors hold was computed on another machine: how far the official
code itself is from them here says how near any implementation can be expected to come.
"""

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mova_core.audio_vae.codec import AudioVAE
from mova_core.checkpoint.weight_norm import fold_weight_norm
from mova_core.config import AudioVAEConfig
from tests.golden import codec_weights, relative_error, tensors

STYLES = ("here",)
HEADING = "| weights | what | ours equals official | ours to golden | official to golden |\n|---|---|---|---|---|"


def load(repo: Path) -> Any:
    """The module of the official codec, with empty classes for what audiotools would give it."""
    audiotools, models = ModuleType("audiotools"), ModuleType("audiotools.ml")
    audiotools.AudioSignal = object  # type: ignore[attr-defined]
    models.BaseModel = type("BaseModel", (torch.nn.Module,), {})  # type: ignore[attr-defined]
    sys.modules |= {"audiotools": audiotools, "audiotools.ml": models}
    spec = importlib.util.spec_from_file_location("official_codec", repo / "mova/diffusion/models/dac_vae.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pair(official: Any, style: str) -> tuple[AudioVAE, Any]:
    """Our codec and the official one, on the same weights."""
    weights, sizes = codec_weights(style)
    theirs = official.DAC(**sizes)
    theirs.load_state_dict(weights)
    config = AudioVAEConfig(
        encoder_width=sizes["encoder_dim"],
        encoder_rates=tuple(sizes["encoder_rates"]),
        decoder_width=sizes["decoder_dim"],
        decoder_rates=tuple(sizes["decoder_rates"]),
        latent_channels=sizes["latent_dim"],
        sample_rate=sizes["sample_rate"],
    )
    ours = AudioVAE(config)
    ours.load_state_dict(fold_weight_norm(weights))
    return ours, theirs.eval()


def compared(ours: AudioVAE, theirs: Any) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """What is computed, by ours, by the official codec, and the golden result."""
    case, _ = tensors("e_dac_cases")
    for length in (700, 2880, 2881):
        wave, latents = case[f"len{length}/preprocessed"], case[f"len{length}/mode"]
        yield f"encode {length} samples", ours.encode(wave), theirs.encode(wave)[0].mode(), latents
        yield "decode them", ours.decode(latents), theirs.decode(latents), case[f"len{length}/decoded"]
    for steps in (1, 2, 7):
        latents = case[f"decode{steps}/z"]
        yield f"decode 2 x {steps} steps", ours.decode(latents), theirs.decode(latents), case[f"decode{steps}/audio"]


@torch.no_grad()
def table(repo: Path) -> Iterator[str]:
    official = load(repo)
    yield HEADING
    for style in STYLES:
        for what, mine, official_result, golden in compared(*pair(official, style)):
            same = (
                "to the bit" if torch.equal(mine, official_result) else f"{relative_error(mine, official_result):.1e}"
            )
            errors = f"{relative_error(mine, golden):.1e} | {relative_error(official_result, golden):.1e}"
            yield f"| {style} | {what} | {same} | {errors} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="a checkout of OpenMOSS/MOVA")
    warnings.simplefilter("ignore", FutureWarning)  # torch's own, about the official code's weight norm
    for line in table(parser.parse_args().repo):
        print(line)
