"""What is written by tools stands in a page of ours between two marks."""

from __future__ import annotations

import re


def between(page: str, written: str, begin: str, end: str) -> str:
    """The page with `written` between its marks.

    Raises:
        ValueError: it lacks them.
    """
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no marks {begin} ... {end}")
    return pattern.sub(lambda _: f"{begin}\n{written}\n{end}", page)
