"""Whether what was heard in a clip is what its prompt lets people say.

Axes: none; rows are lists of words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..prompting import quoted

APART = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"  # written without spaces: a character counts as a word


@dataclass(frozen=True, kw_only=True)
class Words:
    """`wrong` words (substituted, missing, added) of `wanted`."""

    wrong: int
    wanted: int

    @property
    def error(self) -> float:
        """Word error rate; above 1 where more was added than wanted."""
        return self.wrong / self.wanted

    def __str__(self) -> str:
        return f"words: {self.error:.0%} wrong ({self.wrong} of {self.wanted})"


def compare(wanted: str, heard: str) -> Words | None:
    """Heard words against the quoted or tagged lines of `wanted`, else against all of it; None without words.

    Case, punctuation and accents' spelling do not count; "25" and "twenty-five" are different words.
    """
    lines = quoted(wanted) + re.findall(r"<speech>(.*?)</speech>", wanted, re.DOTALL)
    told = plain(" ".join(lines) if lines else wanted)
    return Words(wrong=distance(told, plain(heard)), wanted=len(told)) if told else None


def plain(text: str) -> list[str]:
    """Words without case and punctuation; Chinese and Japanese by characters."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\w)['\u2019\u02bc](?=\w)", "", text)
    return re.findall(r"\w+", re.sub(f"({APART})", r" \1 ", text).replace("_", " "))


def distance(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to substitute, add and take away (Levenshtein)."""
    before = list(range(len(heard) + 1))
    for row, word in enumerate(wanted, 1):
        after = [row]
        for column, other in enumerate(heard, 1):
            after.append(min(before[column] + 1, after[-1] + 1, before[column - 1] + (word != other)))
        before = after
    return before[-1]
