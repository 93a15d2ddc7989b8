"""ComfyUI's own executor in this process: whole graphs, with its caches, expansion and errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

Graph = dict[str, dict[str, Any]]


@dataclass
class Ran:
    """What a run left: outputs that the page shows by node, its error, and which nodes ran."""

    error: str = ""
    shown: dict[str, Any] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)


class Executor:
    """Runs graphs one after the other; `restart` forgets all that was cached.

    `cache` is one of ComfyUI's CacheType; `sizes` are what `--cache-lru` and `--cache-ram` give.
    """

    def __init__(self, cache: str = "CLASSIC", **sizes: float) -> None:
        self.count, self.cache = 0, cache
        self.sizes = {"lru": 0, "ram": 0, "ram_inactive": 0} | sizes
        self.restart()

    def restart(self) -> None:
        import execution
        import server

        kind = execution.CacheType[self.cache]
        self.runner = execution.PromptExecutor(server.PromptServer.instance, cache_type=kind, cache_args=self.sizes)

    def __call__(self, graph: Graph) -> Ran:
        import execution

        self.count += 1
        name = str(self.count)
        copy = {node: {**content, "inputs": dict(content["inputs"])} for node, content in graph.items()}
        valid, error, outputs, errors = asyncio.run(execution.validate_prompt(name, copy, None))
        if not valid:
            return Ran(error=f"{error} {errors}")
        self.runner.execute(copy, name, {}, outputs)
        messages = self.runner.status_messages
        said = [data["exception_message"] for event, data in messages if event == "execution_error"]
        ran = [
            data.get("display_node") or data["node"]
            for event, data in messages
            if event == "executing" and data["node"]
        ]
        return Ran(error="".join(said), shown=self.runner.history_result["outputs"], executed=ran)
