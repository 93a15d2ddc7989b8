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
UNSEEN_CATEGORIES = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode's categories of what shows nothing by itself
BLANKS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe0e\ufe0f\uffa0"  # letters, signs and marks that show nothing either
)
EOS = 1  # UMT5's end of sequence

# Chinese, as escapes: comfy-test refuses sources that a Western Windows console cannot show. Garish, overexposed,
# static, blurred details, subtitles, style, works, paintings, still, greyish, worst and low quality, JPEG residue,
# ugly, incomplete, extra fingers; then badly drawn hands and faces, deformed, disfigured, misshapen limbs, fused
# fingers, motionless, cluttered background, three legs, many people behind, walking backwards.
NEGATIVE_PROMPT = (
    "\u8272\u8c03\u8273\u4e3d\uff0c\u8fc7\u66dd\uff0c\u9759\u6001\uff0c\u7ec6\u8282\u6a21\u7cca\u4e0d\u6e05\uff0c"
    "\u5b57\u5e55\uff0c\u98ce\u683c\uff0c\u4f5c\u54c1\uff0c\u753b\u4f5c\uff0c\u753b\u9762\uff0c\u9759\u6b62\uff0c"
    "\u6574\u4f53\u53d1\u7070\uff0c\u6700\u5dee\u8d28\u91cf\uff0c\u4f4e\u8d28\u91cf\uff0cJPEG\u538b\u7f29\u6b8b"
    "\u7559\uff0c\u4e11\u964b\u7684\uff0c\u6b8b\u7f3a\u7684\uff0c\u591a\u4f59\u7684\u624b\u6307"
)
"""What the official scripts pass; the official pipeline's own default is an empty prompt."""


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
    return all(unicodedata.category(one) in UNSEEN_CATEGORIES or one in BLANKS for one in clean_prompt(text))


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
