"""How far each precision moves one forward from bfloat16 weights, on a tiny and on a wide random model.

    python benchmarks/precision.py

Weights alone are changed; all arithmetic is float32. The wide model is two layers deep with widths 1536 and 768 and
matrices up to 4096 x 1536: more a CPU does not take in a minute. The last column is the largest relative error of one
matrix. Random weights have no outliers, so a trained model may lose more.
"""

import sys
from functools import partial
from pathlib import Path

import torch

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mova_core.checkpoint.quantization import FORMATS, dequantized, quantized, takes
from mova_core.config import BridgeConfig, MovaConfig, TowerConfig
from mova_core.model.mova import Mova
from tests.fixtures.tiny_checkpoint import TINY, initial
from tests.golden import relative_error

CASTS = {"fp16": torch.float16, "fp32": torch.float32}


def wide() -> MovaConfig:
    tower = partial(TowerConfig, layers=2, text_width=1024, frequency_width=256, eps=1e-6)
    video = tower(width=1536, heads=12, ffn_width=4096, in_channels=36, out_channels=16, patch=(1, 2, 2))
    audio = tower(width=768, heads=6, ffn_width=3072, in_channels=128, out_channels=128, patch=(1,))
    bridge = BridgeConfig(layers=2, video_width=1536, audio_width=768, head_width=128, audio_rate=50.0, eps=1e-6)
    return MovaConfig(video=video, audio=audio, bridge=bridge)


def inputs(config: MovaConfig) -> dict[str, object]:
    g = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=g)
    grid = (3, 8, 12)
    return {
        "video_latents": draw(1, config.video.out_channels, *grid),
        "audio_latents": draw(1, config.audio.in_channels, 25),
        "context": draw(1, 64, config.video.text_width),
        "video_timestep": torch.tensor([700.0]),
        "audio_timestep": torch.tensor([700.0]),
        "condition": draw(1, config.condition_channels, *grid),
        "fps": 24.0,
    }


def ran(config: MovaConfig, weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    model = Mova(config, device="meta")
    model.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    with torch.inference_mode():
        return model(**inputs(config))


def main() -> None:
    print("| model | precision | bytes | video error | audio error | worst matrix |")
    print("|---|---|---|---|---|---|")
    for name, config in (("tiny", TINY.mova), ("wide", wide())):
        shapes = {key: tuple(t.shape) for key, t in Mova(config, device="meta").state_dict().items()}
        weights = {key: initial(0, f"video_dit.{key}", shape) for key, shape in shapes.items()}
        exact, size = ran(config, weights), sum(t.nbytes for t in weights.values())
        for precision in ("fp32", "fp16", *FORMATS):
            if precision in CASTS:
                stored = {key: t.to(CASTS[precision]) for key, t in weights.items()}
                plain = stored
            else:
                stored = quantized(weights, FORMATS[precision])
                plain = dequantized(stored, torch.float32)
            large = [key for key, shape in shapes.items() if takes(FORMATS["mxfp8"], key, shape)]
            worst = max(relative_error(plain[key].float(), weights[key].float()) for key in large)
            errors = [relative_error(a, b) for a, b in zip(ran(config, plain), exact)]
            share = sum(t.nbytes for t in stored.values()) / size
            print(f"| {name} | {precision} | {share:.0%} | {errors[0]:.2%} | {errors[1]:.2%} | {worst:.2%} |")


if __name__ == "__main__":
    main()
