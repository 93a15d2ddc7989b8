"""What a ComfyUI server says over its websocket, collected by a thread: events, and preview frames."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# First four bytes of a binary websocket message, as ComfyUI's protocol.py numbers them.
PREVIEW, PREVIEW_WITH_METADATA = 1, 4


class ServerError(RuntimeError):
    """ComfyUI did not start, died, or did not answer in time."""


@dataclass(frozen=True)
class Event:
    """One text message of the websocket: its type and its data, with the local time it came."""

    kind: str
    data: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Preview:
    """One preview frame, as the encoded image that the page would show."""

    image: bytes
    prompt_id: str | None
    node: str | None


class EventStream:
    """The websocket of one client, read by a thread from `open()` until `close()`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[Event] = []
        self.previews: list[Preview] = []
        self.failure: str = ""
        self._news = threading.Condition()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self, timeout: float = 30) -> None:
        self._thread.start()
        if not self._connected.wait(timeout) or self.failure:
            raise ServerError(f"no websocket at {self.url}: {self.failure or 'timed out'}")

    def close(self) -> None:
        if self._loop and self._task and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(timeout=5)

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition` holds, checking it at each message and at least twice a second."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(min(left, 0.5))
        return True

    async def _listen(self) -> None:
        import aiohttp

        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(self.url, max_msg_size=0) as ws:
                await ws.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
                async for message in ws:
                    self._take(message.data)
        except asyncio.CancelledError:
            pass
        except (aiohttp.ClientError, OSError) as error:
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._connected.set()

    def _take(self, message: str | bytes) -> None:
        with self._news:
            if isinstance(message, str):
                content = json.loads(message)
                self.events.append(Event(content["type"], content.get("data") or {}, time.monotonic()))
                if content["type"] == "feature_flags":  # the server has noted ours: previews will name their prompt
                    self._connected.set()
            elif preview := read_preview(bytes(message)):
                self.previews.append(preview)
            self._news.notify_all()


def read_preview(message: bytes) -> Preview | None:
    """A binary websocket message as a preview frame, or None if it is something else (progress text)."""
    kind = int.from_bytes(message[:4], "big")
    if kind == PREVIEW:
        return Preview(message[8:], None, None)
    if kind != PREVIEW_WITH_METADATA:
        return None
    end = 8 + int.from_bytes(message[4:8], "big")
    metadata = json.loads(message[8:end])
    return Preview(message[end:], metadata.get("prompt_id"), metadata.get("node_id"))
