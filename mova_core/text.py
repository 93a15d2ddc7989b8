"""Prompts: cleaning, the token limit, and the fixed number of context rows.

The towers attend to all 512 rows, zero rows included, without a mask: fewer rows, or other padding, is another result.
Source: OpenMOSS/MOVA 595a976 `pipeline_mova.py`.
"""

import html
import unicodedata
from collections.abc import Sequence

import ftfy
import torch.nn.functional as F
from torch import Tensor

from .errors import ShapeError

CONTEXT_ROWS = 512
UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode's categories of what shows nothing by itself
EOS = 1  # UMT5's end of sequence

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指"
)
"""What the official scripts pass; the official pipeline's own default is an empty prompt."""

NEGATIVE_PROMPT_ADDITION = (
    "，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
"""What SGLang appends to NEGATIVE_PROMPT."""


def basic_clean(text: str) -> str:
    """Text with its encoding mended and HTML entities resolved, also where they were escaped twice."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def whitespace_clean(text: str) -> str:
    """Text with every run of white space, line breaks included, as one space, and none at the ends."""
    return " ".join(text.split())


def clean_prompt(text: str) -> str:
    """The prompt as MOVA saw it in training. Full-width punctuation and curly quotes become ASCII."""
    return whitespace_clean(basic_clean(text))


def is_blank(text: str) -> bool:
    """Whether nothing that is seen is left of a prompt when it is cleaned; a byte order mark is not seen."""
    return all(unicodedata.category(character) in UNSEEN for character in clean_prompt(text))


def cap_tokens(ids: Sequence[int], eos: int = EOS, limit: int = CONTEXT_ROWS) -> tuple[list[int], int]:
    """Token ids that fit, and how many were cut. A cut prompt keeps its first `limit` - 1 tokens and still ends.

    `ids` ends with `eos` and is not padded.
    """
    cut = max(0, len(ids) - limit)
    return ([*ids[: limit - 1], eos] if cut else list(ids)), cut


def pad_context(context: Tensor) -> Tensor:
    """(B, rows, width) prompt embeddings to (B, 512, width), zeros below.

    Raises:
        ShapeError: not three axes, or more than 512 rows.
    """
    if context.ndim != 3:
        raise ShapeError(f"context has shape {tuple(context.shape)}; it must be (batch, rows, width)")
    rows = context.shape[1]
    if rows > CONTEXT_ROWS:
        raise ShapeError(
            f"the context has {rows} rows, MOVA reads {CONTEXT_ROWS}; shorten the prompt, or cut its tokens to fit"
        )
    return F.pad(context, (0, 0, 0, CONTEXT_ROWS - rows))
