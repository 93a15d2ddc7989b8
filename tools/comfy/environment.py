"""The Python environments that `tools/demo.py` and `tools/check.py` make for themselves. Standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

STAMP = ".mova-environment"  # in a folder made here: a digest of what was installed into it

# Of one release; a ComfyUI's requirements.txt names those that it needs, without versions.
COMFYUI_TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
CORE_TORCH = ("torch==2.13.0",) if sys.version_info < (3, 15) else ("torch",)
CORE = (
    *(*CORE_TORCH, "safetensors", "tokenizers", "sentencepiece", "transformers", "diffusers"),
    *("av", "pillow", "numpy", "tqdm"),
)

FIND = "import sys, importlib.util as u; print(*(m for m in sys.argv[1:] if u.find_spec(m) is None))"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an environment needs: packages and requirement files for pip, modules to tell whether it is there."""

    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ()
    cpu: bool = False  # torch without CUDA, which takes 5 GB less

    def digest(self) -> str:
        """Changes when what would be installed changes."""
        content = [
            "cpu" if self.cpu else "",
            *self.packages,
            *(file.read_text(encoding="utf-8") for file in self.files),
            sys.version,
        ]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()


def torch_packages(comfyui: Path) -> dict[str, str]:
    """Module -> package and version, of those of torch that this ComfyUI asks for: newer ones do without torchaudio."""
    asked = (comfyui / "requirements.txt").read_text(encoding="utf-8").split()
    return {name: package for package in COMFYUI_TORCH if (name := package.split("==")[0]) in asked}


class CannotPrepare(RuntimeError):  # noqa: N818 - reads as what happened
    """An environment could not be made; the message says what to do."""


def missing(python: str | Path, modules: Iterable[str]) -> list[str] | None:
    """Modules that an interpreter does not have; None where it does not run."""
    try:
        asked = subprocess.run([python, "-c", FIND, *modules], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.split() if asked.returncode == 0 else None


def first_usable(pythons: Iterable[str | Path], modules: Iterable[str]) -> Path | None:
    """The first interpreter that has all modules."""
    wanted = list(modules)
    return next((Path(python) for python in pythons if missing(python, wanted) == []), None)


def interpreter(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare(folder: Path, wanted: Wanted, say: Callable[[str], None]) -> Path:
    """The Python of an environment in `folder` that has what is wanted; made, or made anew, where it does not.

    Raises:
        CannotPrepare: `folder` holds an environment of somebody else's, or pip failed.
    """
    python, stamp = interpreter(folder), folder / STAMP
    if stamp.is_file() and stamp.read_text() == wanted.digest() and python.exists():
        return python
    if folder.exists() and not stamp.is_file() and any(folder.iterdir()):
        raise CannotPrepare(f"{folder} was not made by this command; remove it, or pass --no-venv to use your own")
    say(f"making an environment in {folder}: {', '.join((*wanted.packages, *(str(file) for file in wanted.files)))}")
    try:
        _clear(folder, stamp)
        venv.create(folder, with_pip=True)
        _install(python, wanted, say)
    except subprocess.CalledProcessError as error:
        hint = "install python3-venv" if "ensurepip" in str(error.cmd) else "its message is above; run this again"
        raise CannotPrepare(f"the environment in {folder} could not be made ({hint})") from None
    stamp.write_text(wanted.digest())
    return python


def _clear(folder: Path, stamp: Path) -> None:
    """Empty a folder but for its stamp: whenever this is interrupted, it is still known as made here."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text("unfinished")
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != stamp:
            path.unlink()


def _install(python: Path, wanted: Wanted, say: Callable[[str], None]) -> None:
    """By pip, whose own lines tell how far it is, on a terminal or not.

    uv knows where the builds of torch without CUDA are and pip does not, so `cpu` asks uv for torch first; where that
    cannot be had, pip installs what its index has.
    """
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    torch = [package for package in wanted.packages if package.startswith("torch")]
    if wanted.cpu and torch and sys.platform in ("linux", "win32"):
        uv = [python, "-m", "uv", "pip", "install", "--python", python, "--torch-backend", "cpu", *torch]
        tried = [subprocess.run(command, stdout=sys.stderr).returncode for command in ([*pip, "uv"], uv)]
        if any(tried):
            say("torch without CUDA cannot be had here; installing the one that pip finds")
    files = [part for file in wanted.files for part in ("-r", str(file))]
    subprocess.run([*pip, *wanted.packages, *files], check=True, stdout=sys.stderr)
