"""A ComfyUI server of one's own, started in a private base directory and driven over HTTP and its websocket.

    with ComfyServer(base, pack=Path("path/to/this/pack")) as server:
        result = server.run(api_graph)
        print(result.status, result.files, len(result.previews))

Models, custom nodes, input and output live under `base`, so nothing of the user's own ComfyUI is read or written.
The server listens on the loopback interface and is started offline (no manager, no API nodes, no model hub).
Needs Python with ComfyUI's requirements; `aiohttp` (one of them) is imported only when a server starts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.comfy.events import Event, EventStream, ServerError
from tools.comfy.find import find_comfyui
from tools.comfy.prompts import Graph, PromptRefused, Result, refusal
from tools.comfy.starting import free_port, place_pack, signals_wait

# What a pack carries that ComfyUI does not need, when it has to be copied.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
STATUS_OF_EVENT = {"execution_success": "success", "execution_error": "error", "execution_interrupted": "interrupted"}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ComfyServer:
    """One ComfyUI process, from `start()` to `stop()`; as a context manager, from enter to exit.

    Args:
        base: base directory; made if missing. `models`, `input`, `output`, `custom_nodes` and the log lie in it.
        pack: folder of a custom node pack to install, or None for a bare ComfyUI.
        pack_name: its folder name under custom_nodes.
        comfyui: the checkout; `find_comfyui()` by default.
        cpu: run on the CPU even where there is a GPU.
        arguments: more command line arguments for ComfyUI.
        environment: more environment variables for ComfyUI.
        python: the interpreter that has ComfyUI's requirements; this one by default.
        boot_seconds: how long the start may take.
    """

    def __init__(
        self,
        base: Path,
        *,
        pack: Path | None = None,
        pack_name: str = "mova",
        comfyui: Path | None = None,
        cpu: bool = True,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        boot_seconds: float = 300,
    ) -> None:
        self.base = Path(base).resolve()
        self.pack, self.pack_name = pack, pack_name
        self.comfyui = comfyui or find_comfyui()
        self.cpu, self.arguments, self.environment = cpu, tuple(arguments), dict(environment or {})
        self.python, self.boot_seconds = python, boot_seconds
        self.log_path = self.base / "server.log"
        self.client_id = uuid.uuid4().hex
        self.port = 0
        self.boot_took = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: EventStream | None = None

    # ------------------------------------------------------------------ places

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models(self) -> Path:
        return self.base / "models"

    @property
    def input(self) -> Path:
        return self.base / "input"

    @property
    def output(self) -> Path:
        return self.base / "output"

    def output_path(self, filename: str, subfolder: str = "", kind: str = "output") -> Path:
        """Path of a file that a node named in its output; `kind` is "output", "temp" or "input"."""
        return self.base / kind / subfolder / filename

    # ------------------------------------------------------------- life of it

    def start(self) -> ComfyServer:
        """Start the process and return once it answers.

        Raises:
            ServerError: no checkout, it ended while starting (with the end of its log), or it took too long.
        """
        if self.comfyui is None:
            raise ServerError("no ComfyUI found: set COMFYUI_PATH, or put a checkout at ~/comfy/ComfyUI")
        self._lay_out()
        self.port = free_port()
        began = time.monotonic()
        try:
            with self.log_path.open("wb") as log, signals_wait():
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self.comfyui,
                    env={**os.environ, **OFFLINE, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._await_answer(began + self.boot_seconds)
            self._stream = EventStream(f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}")
            self._stream.open()
        except BaseException:
            self.stop()
            raise
        self.boot_took = time.monotonic() - began
        return self

    def stop(self) -> None:
        """End the process: asked first (ComfyUI clears its temp folder), then told."""
        if self._stream:
            self._stream.close()
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
        else:
            process.terminate()
        # What a background shell has started never hears an interrupt.
        for seconds, insist in ((5, process.terminate), (10, process.kill), (10, lambda: None)):
            try:
                process.wait(seconds)
                return
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl+C: no more asking
                insist()

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the server's process, while it runs."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Everything ComfyUI has printed so far."""
        if not self.log_path.is_file():
            return ""
        return COLOUR.sub("", self.log_path.read_text(encoding="utf-8", errors="replace"))

    # ---------------------------------------------------------------- requests

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """ComfyUI's description of every node (or of one), by node id."""
        return self._get("/object_info" + (f"/{urllib.parse.quote(node)}" if node else ""))

    def history(self, prompt_id: str) -> dict[str, Any]:
        """ComfyUI's record of a finished prompt; empty while it runs."""
        return self._get(f"/history/{prompt_id}").get(prompt_id, {})

    def card_taken(self) -> int:
        """Bytes of the first device that are taken, by whomever; 0 on the CPU.

        Raises:
            OSError: no answer.
        """
        device = self._get("/system_stats")["devices"][0]
        free = device["vram_free"] - device["torch_vram_free"]  # without what torch holds and does not use
        return 0 if device["type"] == "cpu" else int(device["vram_total"] - free)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancel the running prompt (or only the named one), as the page's cancel button does."""
        self._post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def free(self) -> None:
        """Unload all models and forget cached results."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def queue(self, graph: Graph, *, workflow: Mapping[str, Any] | None = None) -> str:
        """Put an API-format graph into the queue.

        Args:
            workflow: the UI-format workflow to store in the output files, as the page does.

        Returns:
            The prompt id.

        Raises:
            PromptRefused: the graph does not validate.
        """
        body: dict[str, Any] = {"prompt": graph, "client_id": self.client_id}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            return self._post("/prompt", body)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRefused(refusal(json.loads(error.read()), graph)) from None

    def wait(self, prompt_id: str, timeout: float = 300, watch: Callable[[Event], None] | None = None) -> Result:
        """Follow a prompt to its end; `watch` is called with each of its events, in order, as it comes.

        Raises:
            ServerError: ComfyUI died, or the prompt did not end within `timeout` seconds.
        """
        assert self._stream, "the server is not started"
        shown = 0

        def ended() -> bool:
            nonlocal shown
            events = self._events(prompt_id) if watch else []
            for event in events[shown:]:
                shown += 1
                watch(event)
            return self._ended(prompt_id)

        self._wait_for(ended, timeout, f"prompt {prompt_id} to end")
        return self._result(prompt_id)

    def wait_event(self, kind: str, timeout: float = 120, **expected: Any) -> Mapping[str, Any]:
        """Wait for an event of one kind whose data has the `expected` values; past events count.

        Example: `server.wait_event("progress", prompt_id=running)` before an interrupt.
        """
        assert self._stream, "the server is not started"
        found: list[Mapping[str, Any]] = []

        def seen() -> bool:
            found[:] = [e.data for e in self._events() if e.kind == kind and expected.items() <= dict(e.data).items()]
            return bool(found)

        self._wait_for(seen, timeout, f"a {kind} event")
        return found[0]

    def run(self, graph: Graph, timeout: float = 300) -> Result:
        """`queue` and `wait` in one."""
        return self.wait(self.queue(graph), timeout)

    # ---------------------------------------------------------------- inside

    def _lay_out(self) -> None:
        for folder in ("custom_nodes", "input", "output", "models", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        if self.pack is not None:
            place_pack(self.pack, self.base / "custom_nodes" / self.pack_name)

    def _command(self) -> list[str]:
        device = ["--cpu"] if self.cpu else []
        return [
            *(self.python, "main.py", *device, "--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"),
            *("--disable-api-nodes", "--disable-auto-launch", "--preview-method", "latent2rgb"),
            *self.arguments,
        ]

    def _await_answer(self, deadline: float) -> None:
        while True:
            if not self.alive:
                raise ServerError(f"ComfyUI ended while starting; the end of {self.log_path}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"ComfyUI did not answer in {self.boot_seconds} s; its log:\n{self._log_tail()}")
            try:
                self._get("/object_info/KSampler", timeout=30)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)

    def _log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def _wait_for(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        assert self._stream
        if not self._stream.wait_until(lambda: condition() or not self.alive, timeout):
            raise ServerError(f"waited {timeout} s for {what}; the log ends:\n{self._log_tail()}")
        if not self.alive:
            raise ServerError(f"ComfyUI died while waiting for {what}; its log ends:\n{self._log_tail()}")

    def _events(self, prompt_id: str | None = None) -> list[Event]:
        assert self._stream
        return [e for e in list(self._stream.events) if prompt_id in (None, e.data.get("prompt_id"))]

    def _ended(self, prompt_id: str) -> bool:
        # Sent last, after the history is written.
        return any(e.kind == "executing" and e.data.get("node") is None for e in self._events(prompt_id))

    def _result(self, prompt_id: str) -> Result:
        assert self._stream
        events = self._events(prompt_id)
        status = next((STATUS_OF_EVENT[e.kind] for e in reversed(events) if e.kind in STATUS_OF_EVENT), "error")
        error = next((e.data for e in events if e.kind == "execution_error"), {})
        outputs = self.history(prompt_id).get("outputs", {})
        return Result(
            prompt_id=prompt_id,
            status=status,
            outputs=outputs,
            files=self._files(outputs),
            events=events,
            previews=[p for p in list(self._stream.previews) if p.prompt_id == prompt_id],
            message=f"{error['exception_type']}: {error['exception_message']}".strip() if error else "",
            error=error,
        )

    def _files(self, outputs: Mapping[str, Mapping[str, Any]]) -> list[Path]:
        entries = [
            e for shown in outputs.values() for items in shown.values() if isinstance(items, list) for e in items
        ]
        return [
            self.output_path(e["filename"], e.get("subfolder", ""), e.get("type", "output"))
            for e in entries
            if isinstance(e, dict) and "filename" in e
        ]

    def _get(self, path: str, timeout: float = 60) -> Any:
        return self._request(urllib.request.Request(self.url + path), timeout)

    def _post(self, path: str, body: Mapping[str, Any], timeout: float = 60) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers, method="POST")
        return self._request(request, timeout)

    @staticmethod
    def _request(request: urllib.request.Request, timeout: float) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
        with opener.open(request, timeout=timeout) as answer:
            content = answer.read()
        return json.loads(content) if content else {}
