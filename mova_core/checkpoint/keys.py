"""Key tables: the names of the video VAE in diffusers' layout -> the original ones, which ComfyUI reads.

Data, applied in order. A source key that no row leaves in the original layout is an error of the caller's file.
Source: the two public layouts of the Wan 2.1 VAE; the map is one to one.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..errors import CheckpointError

V = TypeVar("V")
Rows = tuple[tuple[str, str], ...]

VIDEO_VAE_ROWS: Rows = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r"decoder.upsamples.<\1+\2>."),
    (r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", r"decoder.upsamples.<\1+3>."),
    (r"((?:downsamples|upsamples|middle)\.[^.]+)\.norm1\.", r"\1.residual.0."),
    (r"((?:downsamples|upsamples|middle)\.[^.]+)\.conv1\.", r"\1.residual.2."),
    (r"((?:downsamples|upsamples|middle)\.[^.]+)\.norm2\.", r"\1.residual.3."),
    (r"((?:downsamples|upsamples|middle)\.[^.]+)\.conv2\.", r"\1.residual.6."),
    (r"((?:downsamples|upsamples|middle)\.[^.]+)\.conv_shortcut\.", r"\1.shortcut."),
)
BLOCKS_PER_STAGE = 4  # three resnets and an upsampler in each stage of the decoder


def rename(key: str, rows: Iterable[tuple[str, str]]) -> str:
    """`key` after every row that matches it."""
    for pattern, replacement in rows:
        key = re.sub(pattern, replacement, key)
    return re.sub(r"<(\d+)\+(\d+)>", lambda m: str(BLOCKS_PER_STAGE * int(m[1]) + int(m[2])), key)


def original_video_vae(entries: Mapping[str, V], where: str) -> dict[str, V]:
    """The entries of a Wan 2.1 VAE under the original names; a file already in that layout passes unchanged.

    Raises:
        CheckpointError: two keys meet in one name.
    """
    if "decoder.middle.0.residual.0.gamma" in entries:
        return dict(entries)
    renamed = {rename(key, VIDEO_VAE_ROWS): value for key, value in entries.items()}
    if len(renamed) != len(entries):
        raise CheckpointError(
            f"{where}: two weights of the video VAE have the same meaning; it is not a Wan 2.1 VAE. Download it again"
        )
    return renamed
