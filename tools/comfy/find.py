"""Where ComfyUI is on this machine, and how to get it with comfy-cli where it is not. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from tools.comfy.environment import Wanted, prepare

REPOSITORY = Path(__file__).absolute().parents[2]  # not resolved: the pack may be a link in custom_nodes
SOURCE = "https://github.com/Comfy-Org/ComfyUI"
PROBE_SECONDS = 20
INSTALL_SECONDS = 900


def find_comfyui(say: Callable[[str], None] = warnings.warn) -> Path | None:
    """COMFYUI_PATH, else the ComfyUI whose custom_nodes this pack stands in, else comfy-cli's default place.

    A COMFYUI_PATH that leads to none is told by `say`.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named and not is_comfyui(Path(named).expanduser()):
        say(f"COMFYUI_PATH is {named}, which holds no ComfyUI (no main.py beside a comfy folder); looking elsewhere")
    return next((place.resolve() for place in places() if is_comfyui(place)), None)


def places() -> list[Path]:
    """Where ComfyUI is looked for, in order."""
    named = os.environ.get("COMFYUI_PATH")
    here = [REPOSITORY.parent.parent] if REPOSITORY.parent.name == "custom_nodes" else []
    documents = ["Documents"] if sys.platform in ("darwin", "win32") else []
    default = Path.home().joinpath(*documents, "comfy", "ComfyUI")
    return [*([Path(named).expanduser()] if named else []), *here, default, installed_here()]


def is_comfyui(place: Path) -> bool:
    return (place / "main.py").is_file() and (place / "comfy").is_dir()


def installed_here() -> Path:
    """Where `install` puts it: inside this repository, out of git's sight."""
    return REPOSITORY / ".demo" / "ComfyUI"


def reachable() -> bool:
    """Can git see ComfyUI's source? Asked before anything is installed, so that a closed network costs seconds."""
    command = ["git", "ls-remote", "--exit-code", SOURCE, "HEAD"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        return not subprocess.run(command, env=environment, capture_output=True, timeout=PROBE_SECONDS).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(say: Callable[[str], None]) -> Path | None:
    """ComfyUI's latest release, cloned by comfy-cli into `installed_here()`; None where that fails.

    Its requirements are not installed: that is done where the demo's own environment is made.
    """
    target = installed_here()
    try:
        python = prepare(REPOSITORY / ".demo" / "comfy-cli", Wanted(packages=("comfy-cli",)), say)
        comfy = python.with_name("comfy.exe" if os.name == "nt" else "comfy")
        skip = ("--skip-manager", "--skip-torch-or-directml", "--skip-requirement")
        command = [comfy, "--skip-prompt", "--workspace", target, "install", "--version", "latest", "--cpu", *skip]
        environment = {**os.environ, "DO_NOT_TRACK": "1"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        say(f"comfy-cli could not install ComfyUI: {error}")
        return None
    if done.returncode or not is_comfyui(target):
        say(f"comfy-cli could not install ComfyUI (exit status {done.returncode})")
        return None
    return target
