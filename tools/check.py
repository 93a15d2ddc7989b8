"""Everything that must hold before a commit: `python tools/check.py`. Options are passed to pytest.

Formatting, lint, types, tests. Makes its own environment in .venv where this Python lacks what is needed. Tests that
need ComfyUI run where one is found (COMFYUI_PATH, the folder this pack stands in, comfy-cli's default place) and are
skipped and counted elsewhere; MOVA_REQUIRE_COMFYUI=1 makes its absence a failure. Starts on any Python 3.10 or newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.comfy.environment import CORE, CannotPrepare, Wanted, first_usable, prepare, torch_packages
from tools.comfy.find import REPOSITORY, find_comfyui

# One version of the tools whose verdicts change with their version.
DEVELOPMENT = (
    *("ruff==0.17.6", "mypy==2.4.1", "pytest", "pytest-xdist", "diffusers", "transformers"),
    *("playwright", "soxr", "pyloudnorm", "pyyaml"),
)
OF_COMFYUI = ("comfy-kitchen", "psutil")  # that it requires, and that tests without it need
MODULES = (
    *("ruff", "mypy", "pytest", "xdist", "diffusers", "transformers"),
    *("playwright", "soxr", "pyloudnorm", "tqdm", "comfy_kitchen", "psutil"),
    *("torch", "safetensors", "tokenizers", "sentencepiece", "ftfy", "av", "PIL", "numpy", "yaml"),
)
TESTED_MODULES = ("torchsde", "aiohttp", "einops")
PACK = "mova_pack"  # what pyproject.toml calls the repository as a package, whose own folder may have any name
CHECKS = (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",), ("mypy", "-p", f"{PACK}.nodes"))
MOST_PROCESSES = 4  # that run tests side by side: each may hold a ComfyUI and a browser, some 3 GB


def say(line: str) -> None:
    print(line, flush=True)


def choose_python(comfyui: Path | None) -> Path:
    """This interpreter where it has everything, else that of .venv, made or brought up to date."""
    own = REPOSITORY / "requirements.txt"
    if comfyui is None:
        modules, wanted = MODULES, Wanted(packages=(*CORE, *DEVELOPMENT, *OF_COMFYUI), files=(own,))
    else:
        torch = torch_packages(comfyui)
        modules = (*MODULES, *TESTED_MODULES, *torch)
        wanted = Wanted(packages=(*torch.values(), *DEVELOPMENT), files=(comfyui / "requirements.txt", own))
    return first_usable([sys.executable], modules) or prepare(REPOSITORY / ".venv", wanted, say)


def fetch_browser() -> None:
    """Chromium for the browser tests, on a CI machine that has apt; they are skipped where this fails."""
    apt = shutil.which("apt-get")
    if os.environ.get("CI") != "true" or apt is None:
        return
    from tools.comfy.browser import find_chromium

    if find_chromium() is None:
        root = [] if getattr(os, "geteuid", lambda: 1)() == 0 else ["sudo", "-n"]
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run([*root, apt, "-q", *arguments], stdout=subprocess.DEVNULL, timeout=300, check=False)


def main() -> int:
    comfyui = find_comfyui(say)
    say(f"ComfyUI: {comfyui or 'none found; tests that need it are skipped'}")
    try:
        python = choose_python(comfyui)
        if comfyui:
            fetch_browser()
    except CannotPrepare as error:
        sys.exit(str(error))
    except (OSError, subprocess.SubprocessError) as error:
        say(f"no browser: {error}")
    environment = {key: value for key, value in os.environ.items() if key != "COMFYUI_PATH"}
    environment |= {"COMFYUI_PATH": str(comfyui)} if comfyui else {}
    environment.setdefault("OMP_NUM_THREADS", "1")  # tensors of tests are small: a second thread only waits
    tests = ("pytest", "-n", str(min(MOST_PROCESSES, os.cpu_count() or 1)), *sys.argv[1:])  # tests/conftest.py groups
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, PACK).symlink_to(REPOSITORY, target_is_directory=True)
        environment["MYPYPATH"] = folder
        for check in (*CHECKS, tests):  # pytest last: its summary ends the output
            say(f"-- {' '.join(check)}")
            done = subprocess.run([python, "-m", *check], cwd=REPOSITORY, env=environment)
            if done.returncode and check[0] != "pytest":
                say(f"FAILED: {' '.join(check)}")
            failed += [check] if done.returncode else []
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
