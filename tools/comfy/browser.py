"""The Chromium, Chrome or Edge of this machine, driven by playwright: nothing of it goes to the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
QUIET = ("--disable-gpu", "--disable-quic", "--lang=en-US", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")


class BrowserError(RuntimeError):
    """The browser did not start, a script of ours threw, or a page did not get ready in time."""


def find_chromium() -> str | None:
    """Program of a Chromium family browser: CHROMIUM_PATH, the search path, the usual places; else None."""
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        return named
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in (*found, *PLACES) if path and Path(path).is_file()), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, closed at the end. One at a time in a thread; it takes any number of pages.

    Raises:
        BrowserError: there is none, or it does not start.
    """
    from playwright.sync_api import Error, sync_playwright

    program = find_chromium()
    if program is None:
        raise BrowserError("no Chromium, Chrome or Edge found: install one, or set CHROMIUM_PATH")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        except Error as error:
            raise BrowserError(f"{program} did not start: {error.message}") from None
        try:
            yield browser
        finally:
            browser.close()
