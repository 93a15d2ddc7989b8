"""A checkpoint of the published layout and sizes, of random weights: what a benchmark of the whole path loads.

    python -m benchmarks.full_checkpoint FOLDER [TEXT_LAYERS]

49 GB instead of 77: the low-noise expert is the high-noise one's files again, linked. Fewer layers of the text encoder
than its 24 save up to 8 GB more. Values are made on the GPU where
there is one, scaled as the tiny checkpoint's are, so that activations stay near one.
"""

import os
import re
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mova_core.config import MOVA, MOVA_AUDIO_VAE, SchedulerConfig
from tests.fixtures.json_files import write_json
from tests.fixtures.key_shapes import UMT5Sizes, WanVAESizes
from tests.fixtures.published_configs import model_index, scheduler_config
from tests.fixtures.tiny_checkpoint import VALUES, Component, TinySizes, components, write_weights
from tests.fixtures.tiny_tokenizer import write_tokenizer

SIZES = TinySizes(
    mova=MOVA,
    audio_vae=MOVA_AUDIO_VAE,
    video_vae=WanVAESizes(base_channels=96, latent_channels=16),
    text=UMT5Sizes(vocabulary=256384, width=4096, layers=24, heads=64, head_width=64, ffn_width=10240),
    scheduler=SchedulerConfig(shift=5.0, sigma_min=0.0, boundary=0.9),
)
LINKED = {"video_dit_2": "video_dit"}


def write_full_checkpoint(folder: Path, device: torch.device, sizes: TinySizes = SIZES) -> Path:
    """Write the folder, component by component, and return it. Prints how long each took."""
    write_tokenizer(folder / "tokenizer")
    write_json(folder / "model_index.json", model_index(sizes.scheduler))
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(sizes.scheduler))
    for name, component in components(sizes).items():
        begun = time.perf_counter()
        (folder / name).mkdir(parents=True, exist_ok=True)
        if name in LINKED:
            link(folder / LINKED[name], folder / name)
        else:
            write_json(folder / name / "config.json", component.config)
            write_weights(folder / name / component.weights, weights(name, component, device), component.shards)
        held = sum(path.stat().st_size for path in (folder / name).iterdir())
        print(f"{name}: {held / 1e9:.2f} GB in {time.perf_counter() - begun:.1f} s", flush=True)
    return folder


def weights(name: str, component: Component, device: torch.device) -> dict[str, Tensor]:
    """All weights of a component, bfloat16, in host memory."""
    return {key: value(f"{name}.{key}", shape, device) for key, shape in component.shapes.items()}


def value(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    mean, std = next((mean, std(shape)) for pattern, mean, std in VALUES if re.search(pattern, name))
    make = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    made = torch.randn(shape, generator=make, device=device, dtype=torch.bfloat16)
    return made.mul_(std).add_(mean).cpu()


def link(source: Path, target: Path) -> None:
    """The files of `source` under their names in `target` as well, without a second copy on the disk."""
    for path in source.iterdir():
        (target / path.name).unlink(missing_ok=True)
        os.link(path, target / path.name)


def main(folder: str, text_layers: str = "24") -> None:
    sizes = replace(SIZES, text=replace(SIZES.text, layers=int(text_layers)))
    write_full_checkpoint(Path(folder), torch.device("cuda" if torch.cuda.is_available() else "cpu"), sizes)


if __name__ == "__main__":
    main(*sys.argv[1:])
