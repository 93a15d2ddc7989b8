"""Headless Chromium, Chrome or Edge over the DevTools protocol, with nothing to install but the browser and aiohttp.

with Chromium(profile_folder) as chromium:
    chromium.go("http://127.0.0.1:8188")
    print(chromium.evaluate("document.title"))
    chromium.screenshot(Path("page.png"))
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
# Nothing of the browser's own goes to the network: no updates, no sync, no first-run pages.
QUIET = (
    *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars", "--lang=en-US"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class BrowserError(RuntimeError):
    """The browser did not start, a script of ours threw, or a page did not get ready in time."""


def find_chromium() -> str | None:
    """Program of a Chromium family browser: CHROMIUM_PATH, the search path, the usual places; else None."""
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        return named
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in (*found, *PLACES) if path and Path(path).is_file()), None)


class Chromium:
    """One browser with one page, from `start()` to `stop()`; as a context manager, from enter to exit.

    Args:
        profile: an empty or new folder for the browser's profile.
        size: of the page, in pixels.
    """

    def __init__(self, profile: Path, *, size: tuple[int, int] = (1600, 1000), program: str | None = None) -> None:
        self.profile, self.size = Path(profile).resolve(), size
        self.program = program or find_chromium()
        self.messages: list[str] = []  # errors and warnings of the page's console, uncaught exceptions
        self.requests: list[str] = []  # http addresses the page asked for
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._session: Any = None
        self._socket: Any = None
        self._last_id = 0

    def start(self) -> Chromium:
        """Start the browser with an empty page."""
        if self.program is None:
            raise BrowserError("no Chromium, Chrome or Edge found: install one, or set CHROMIUM_PATH")
        self.profile.mkdir(parents=True, exist_ok=True)
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses to run as root
        command = [
            *(self.program, *QUIET, *(["--no-sandbox"] if root else []), "--remote-debugging-port=0"),
            *(f"--user-data-dir={self.profile}", f"--window-size={self.size[0]},{self.size[1]}", "about:blank"),
        ]
        with (self.profile / "browser.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._loop.run_until_complete(self._connect(self._page_address()))
            self._set_up()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close the browser."""
        process, self._process = self._process, None
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
            self._session = None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> Chromium:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --------------------------------------------------------------- the page

    def go(self, url: str) -> None:
        """Navigate; returns before the page has loaded."""
        self.send("Page.navigate", url=url)

    def evaluate(self, script: str, *arguments: Any, timeout: float = 60) -> Any:
        """Value of a JavaScript expression; a promise is awaited.

        With `arguments` the script must be a function, which is called with them (as JSON).

        Raises:
            BrowserError: the script threw; the message is its own.
        """
        if arguments:
            script = f"({script})({', '.join(json.dumps(argument) for argument in arguments)})"
        answer = self.send(
            "Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(thrown(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout: float = 60) -> Any:
        """Value of an expression once it is truthy."""
        deadline = time.monotonic() + timeout
        while True:
            if value := self.evaluate(script):
                return value
            if time.monotonic() > deadline:
                raise BrowserError(f"waited {timeout} s for {script}; the console said: {self.messages[-5:]}")
            time.sleep(0.1)

    def screenshot(self, path: Path) -> Path:
        """Write a PNG of what is visible."""
        image = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        return path

    def press(self, key: str) -> None:
        """Press and release a key ("Escape")."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def send(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its answer."""
        try:
            return self._loop.run_until_complete(asyncio.wait_for(self._send(method, parameters), timeout))
        except asyncio.TimeoutError:
            raise BrowserError(f"no answer to {method} within {timeout} s") from None

    # ----------------------------------------------------------------- inside

    def _page_address(self, timeout: float = 60) -> str:
        """Address of the page's DevTools socket; the browser writes its port to a file."""
        deadline = time.monotonic() + timeout
        port_file = self.profile / "DevToolsActivePort"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            assert self._process
            if self._process.poll() is not None:
                raise BrowserError(
                    f"{self.program} ended at once:\n{(self.profile / 'browser.log').read_text()[-2000:]}"
                )
            if port_file.is_file() and (port := port_file.read_text().split("\n")[0].strip()):
                targets = json.loads(opener.open(f"http://127.0.0.1:{port}/json/list", timeout=10).read())
                pages = [target for target in targets if target["type"] == "page"]
                if pages:
                    return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        raise BrowserError(f"{self.program} opened no DevTools port within {timeout} s")

    async def _connect(self, address: str) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(address, max_msg_size=0)

    def _set_up(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        width, height = self.size
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    async def _send(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self._last_id += 1
        wanted = self._last_id
        await self._socket.send_json({"id": wanted, "method": method, "params": parameters})
        while True:
            frame = await self._socket.receive()
            if not isinstance(frame.data, str):
                raise BrowserError(f"the browser closed the connection during {method}")
            message = json.loads(frame.data)
            if message.get("id") == wanted:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                return message["result"]
            if message.get("method") == "Page.javascriptDialogOpening":  # leaving a page with an unsaved workflow
                self._last_id += 1  # nothing waits for this answer
                accept = {"id": self._last_id, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
                await self._socket.send_json(accept)
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, data: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.messages.append(f"exception: {thrown(data['exceptionDetails'])}")
        elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "warning"):
            words = (str(a.get("value", a.get("description", ""))) for a in data["args"])
            self.messages.append(f"{data['type']}: {' '.join(words)}")
        elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.messages.append(f"error: {data['entry']['text']} {data['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and data["request"]["url"].startswith("http"):
            self.requests.append(data["request"]["url"])


def thrown(details: Mapping[str, Any]) -> str:
    """Message of a JavaScript exception."""
    exception = details.get("exception", {})
    return str(exception.get("description") or exception.get("value") or details.get("text"))
