"""Tiny random files of the other models that workflows chain MOVA to, in the layouts that ComfyUI's loaders know.

    python tools/tiny_companions.py MODELS   # e.g. ComfyUI's models folder

Wan 2.2 T2V reads the tiny checkpoint's text encoder; the names of the files are those that the workflows ask for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.chain_templates import ENLARGER, INTERPOLATOR, WAN, WAN_LORAS
from tools.key_shapes import Shapes, tower_shapes
from tools.tiny_checkpoint import TINY, initial
from tools.tiny_lora import write_tiny_lora

WIDTH = 8  # channels of the two networks for pictures
GROWTH = 32  # of Real-ESRGAN's dense blocks, which no loader reads from a file


def wan_shapes() -> Shapes:
    """Wan 2.2 T2V: a video tower that sees no first frame."""
    return tower_shapes(replace(TINY.mova.video, in_channels=16, frequency_width=256))


def rife_shapes() -> Shapes:
    """RIFE 4.2x: a head of four convolutions and five flow blocks, as `flownet.pkl` names them."""
    shapes = _convolution("encode.cnn0", 16, 3) | _convolution("encode.cnn1", 16, 16)
    shapes |= _convolution("encode.cnn2", 16, 16)
    shapes |= {"encode.cnn3.weight": (16, 4, 4, 4), "encode.cnn3.bias": (4,)}  # transposed: inputs first
    for block in range(5):
        name, inputs = f"block{block}", 15 if block == 0 else 28
        shapes |= _convolution(f"{name}.conv0.0.0", WIDTH // 2, inputs)
        shapes |= _convolution(f"{name}.conv0.1.0", WIDTH, WIDTH // 2)
        for layer in range(8):
            shapes |= _convolution(f"{name}.convblock.{layer}.conv", WIDTH, WIDTH)
            shapes |= {f"{name}.convblock.{layer}.beta": (1, WIDTH, 1, 1)}
        shapes |= {f"{name}.lastconv.0.weight": (WIDTH, 52, 4, 4), f"{name}.lastconv.0.bias": (52,)}
    return shapes


def esrgan_shapes() -> Shapes:
    """Real-ESRGAN x4 with one block in place of 23."""
    shapes = _convolution("conv_first", WIDTH, 3)
    for dense in range(1, 4):
        for layer in range(1, 6):
            outputs = WIDTH if layer == 5 else GROWTH
            shapes |= _convolution(f"body.0.rdb{dense}.conv{layer}", outputs, WIDTH + (layer - 1) * GROWTH)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        shapes |= _convolution(name, WIDTH, WIDTH)
    return shapes | _convolution("conv_last", 3, WIDTH)


def _convolution(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}


def _write(path: Path, shapes: Shapes, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scales = {key: torch.ones(shape) for key, shape in shapes.items() if key.endswith(".beta")}
    others = {key: initial(0, f"{path.stem}.{key}", shape) for key, shape in shapes.items() if key not in scales}
    save_file(others | scales, path, metadata={"format": "pt", **metadata})
    return path


def _write_wan(path: Path) -> Path:
    """ComfyUI takes a text width other than UMT5-XXL's from the file's own words."""
    config = {"transformer": {"text_dim": TINY.text.width}}
    return _write(path, wan_shapes(), config=json.dumps(config))


def write_companions(models: Path) -> list[Path]:
    """Every file that the chains ask for, where they look for it."""
    written: list[Path] = []
    files: dict[str, Callable[[Path], Path]] = {
        **{f"diffusion_models/{name}": _write_wan for name in WAN.values()},
        **{f"loras/{name}": write_tiny_lora for name in WAN_LORAS.values()},
        f"frame_interpolation/{INTERPOLATOR}": lambda path: _write(path, rife_shapes()),
        f"upscale_models/{ENLARGER}": lambda path: _write(path, esrgan_shapes()),
    }
    for name, write in files.items():
        written.append(write(models / name))
    return written


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for path in write_companions(Path(sys.argv[1])):
        print(path)


if __name__ == "__main__":
    main()
