"""JSON as the checkpoints have it: sorted, indented by two, the same bytes on every system."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
