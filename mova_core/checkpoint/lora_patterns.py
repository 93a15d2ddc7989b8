"""PEFT's `alpha_pattern` and `rank_pattern`: numbers of layers by the end of their name, or by a regular expression.

An expression comes with a file from anywhere, so only those are read that cannot run for long.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .lora_keys import one_spelling

LARGEST_SCALE = 1e6
# Of regular expressions what is used for names and cannot run for long: no repetition of a group, few of anything.
CHARACTERS = r"\[[\w\-]{1,40}\]"  # one of these
EXPRESSION = re.compile(
    rf"(?:[\w\-|]|\\[.dw\-]|\.|{CHARACTERS}|\((?:\?:)?(?:[\w\-|]|\\\.|{CHARACTERS})+\)|(?<=[.\]dw])[*+](?![*+?]))*"
)
MOST_EXPRESSIONS, MOST_REPEATS = 20, 2


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Numbers of layers by the end of their name, or by an expression for it; names are in one spelling."""

    ends: Mapping[str, float] = field(default_factory=dict)
    expressions: tuple[tuple[re.Pattern[str], float], ...] = ()

    def of(self, layer: str) -> float | None:
        """The number for the longest end of a layer's name that has one; else of the first expression that fits."""
        ends = [layer, *(layer[found.end() :] for found in re.finditer("_", layer))]
        named = next((self.ends[end] for end in ends if end in self.ends), None) if self.ends else None
        if named is not None:
            return named
        fits = (number for expression, number in self.expressions if any(map(expression.fullmatch, ends)))
        return next(fits, None)


def pattern(stated: Any, setting: str, where: str) -> Pattern:
    """What a header states under the name of a setting.

    Raises:
        CheckpointError: a number that is none, or an expression that is not read.
    """
    ends: dict[str, float] = {}
    expressions: list[tuple[re.Pattern[str], float]] = []
    for text, value in stated.items() if isinstance(stated, dict) else ():
        told = number(value, where)
        plain = str(text).removeprefix("^").removesuffix("$").replace("\\.", ".")
        if told is None or (setting == "rank_pattern" and told <= 0):
            continue
        if re.fullmatch(r"[\w.\-]*", plain):
            ends[one_spelling(plain)] = told
        else:
            expressions.append((_expression(str(text), setting, where), told))
    if len(expressions) > MOST_EXPRESSIONS:
        raise CheckpointError(_not_read(f"{len(expressions)} expressions", setting, where))
    return Pattern(ends=ends, expressions=tuple(expressions))


def _expression(text: str, setting: str, where: str) -> re.Pattern[str]:
    """PEFT's expression for the end of a name, for names in one spelling."""
    inner = text.removeprefix("^").removesuffix("$")
    if len(inner) > 500 or not EXPRESSION.fullmatch(inner) or sum(map(inner.count, "*+")) > MOST_REPEATS:
        raise CheckpointError(_not_read(repr(inner[:80]), setting, where))
    try:
        return re.compile(inner.replace("\\.", "_"))
    except (re.error, OverflowError) as error:
        raise CheckpointError(_not_read(repr(inner[:80]), setting, where)) from error


def _not_read(what: str, setting: str, where: str) -> str:
    return (
        f"{where} holds {what} in the {setting} of its header, which is not read, so nothing says how strong its "
        "layers are. Save it with the layers' names in full, or with an alpha beside each layer"
    )


def number(value: Any, where: str) -> float | None:
    """A stated number; None for anything else."""
    try:
        told = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None
    if told is not None and not abs(told) < LARGEST_SCALE:
        raise CheckpointError(f"{where} states an alpha or rank of {told:g}; it is damaged. Download or save it again")
    return told
