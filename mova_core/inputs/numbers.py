"""Numbers, words and choices. A linked value arrives unchecked: of any type, not finite, outside its range."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import MovaError

LONGEST = 60  # characters of a value that an error repeats
VOWEL_LETTERS = "AEIOaeio"


def told(value: Any) -> str:
    """`value` as an error names it: short, on one line, whatever it is."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, Integral) and abs(int(value)) >= 10**LONGEST:
        return f"a number of more than {LONGEST} digits"
    if isinstance(value, str | bool | Integral | Real):
        try:
            text = repr(value)
        except ValueError:  # Python writes no number of more than some thousand digits
            return f"a {type(value).__name__} of more digits than are written"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    name = type(value).__name__
    return f"{'an' if name[0] in VOWEL_LETTERS else 'a'} {name}"


def between(low: float | None, high: float | None) -> str:
    """The range in words."""
    if low is None and high is None:
        return "a finite number"
    if high is None:
        return f"at least {low:g}"
    return f"at most {high}" if low is None else f"from {low} to {high}"


def real(value: Any, low: float | None = None, high: float | None = None) -> float:
    """A finite number within its range, both ends included.

    Raises:
        MovaError: anything else.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise MovaError(f"{told(value)} is no number; give one {between(low, high)}")
    if not _within(value, low, high):
        raise MovaError(f"{told(value)} is out of range; give a number {between(low, high)}")
    return float(value)


def whole(value: Any, low: int | None = None, high: int | None = None) -> int:
    """A whole number within its range, both ends included; 5.0 is 5.

    Raises:
        MovaError: anything else.
    """
    integral = isinstance(value, Integral) and not isinstance(value, bool)
    if not integral and not (isinstance(value, float) and value.is_integer()):
        raise MovaError(f"{told(value)} is no whole number; give one {between(low, high)}")
    if not _within(value, low, high):
        raise MovaError(f"{told(value)} is out of range; give a whole number {between(low, high)}")
    return int(value)


def words(value: Any) -> str:
    """Text that can be written as UTF-8.

    Raises:
        MovaError: no text, or half a character (a lone surrogate), as a cut emoji leaves.
    """
    if not isinstance(value, str):
        raise MovaError(f"{told(value)} is no text; connect a STRING or type one")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MovaError(f"character {error.start + 1} is half of one (a lone surrogate); type the text again") from None
    return str.__str__(value)  # of numpy's or another pack's kind of text the text alone


def switch(value: Any) -> bool:
    """True or False.

    Raises:
        MovaError: anything else.
    """
    if not isinstance(value, bool):
        raise MovaError(f"{told(value)} is neither true nor false")
    return value


def choice(value: Any, options: Sequence[str]) -> str:
    """One of `options`.

    Raises:
        MovaError: anything else.
    """
    if not isinstance(value, str) or value not in options:
        raise MovaError(f"{told(value)} is no choice here; choose one of: {', '.join(options)}")
    return options[list(options).index(value)]


def _within(value: Any, low: float | None, high: float | None) -> bool:
    exact = isinstance(value, Integral)  # compared as it is: as a float, 2**64 would pass for 2**64 - 1
    if not exact and not _finite(value):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a fraction beyond every float
        return False
