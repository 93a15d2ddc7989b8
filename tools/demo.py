"""One clip, from nothing: `python tools/demo.py`.

Finds ComfyUI (COMFYUI_PATH, the folder this pack stands in, comfy-cli's default place) or installs it with comfy-cli,
makes an environment where this Python lacks what is needed, makes a tiny checkpoint of random weights (or takes
--model), runs image to video and sound, and says what the MP4 holds. Where ComfyUI cannot be had, the core's own loop
makes the same kind of clip. Starts on any Python 3.10 or newer with nothing installed.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NoReturn

if sys.version_info < (3, 10):  # noqa: UP036 - said before a newer syntax fails
    sys.exit("this needs Python 3.10 or newer")
if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from mova_core.errors import MovaError
from mova_core.shapes import VideoShape
from tools.comfy.environment import CORE, CannotPrepare, Wanted, first_usable, missing, prepare, torch_packages
from tools.comfy.find import REPOSITORY, find_comfyui, install, reachable

DEMO = REPOSITORY / ".demo"
CORE_MODULES = ("torch", "safetensors", "tokenizers", "sentencepiece", "ftfy", "av", "PIL", "numpy", "tqdm")
LOOP_MODULES = (*CORE_MODULES, "transformers", "diffusers")
ROUTE_MODULES = (
    *(*CORE_MODULES, "torchsde", "aiohttp", "einops", "yaml", "scipy", "alembic"),
    *("transformers", "comfy_kitchen", "comfyui_frontend_package"),
)
DEMO_PROMPT = (
    'An astronaut in an orange suit smiles, turns to the camera and says "Hello from the demo." '
    "The audio shows a calm female voice in a quiet room."
)
DEMO_SIZE = {"width": 160, "height": 96, "frames": 25, "steps": 8}
TRAINED_SIZE = {"width": 640, "height": 352, "frames": 193, "steps": 50}
MOST_SIDE, MOST_FRAMES, MOST_STEPS = 4096, 2001, 1000  # as the nodes take
CORE_ROUTE = "core"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make one clip with MOVA.",
        epilog="Without --model: tiny random weights, 160x96, 25 frames, 8 steps, on the CPU; picture and sound mean "
        "nothing. With --model: 640x352, 193 frames, 50 steps, on the GPU if ComfyUI finds one.",
    )
    parser.add_argument("--model", type=Path, help="a downloaded MOVA folder (the one with model_index.json)")
    parser.add_argument("--image", type=Path, help="the first frame; a photograph of an astronaut by default")
    parser.add_argument("--prompt", default=DEMO_PROMPT, help="what is seen and heard")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another clip")
    parser.add_argument("--out", type=Path, default=DEMO / "mova.mp4", help="where to put the MP4")
    for name, what in (("width", "pixels, a multiple of 16"), ("height", "pixels, a multiple of 16")):
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--frames", type=int, help="4n + 1, at 24 a second")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--cfg", type=float, default=5.0, help="guidance; 1 halves the time")
    parser.add_argument("--no-venv", action="store_true", help="use this Python as it is, install nothing")
    parser.add_argument("--core", action="store_true", help="do not look for ComfyUI: run the core's own loop")
    parser.add_argument("--route", help=argparse.SUPPRESS)  # decided: "core", or ComfyUI's folder
    chosen = parser.parse_args(arguments)
    for name, value in (TRAINED_SIZE if chosen.model else DEMO_SIZE).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")  # how their files begin


def trouble(chosen: argparse.Namespace) -> str:
    """What is wrong with an option, before anything is installed or started; empty where nothing is."""
    try:
        VideoShape(batch=1, frames=chosen.frames, height=chosen.height, width=chosen.width)
    except MovaError as error:
        return f"--width, --height, --frames: {error}"
    if max(chosen.width, chosen.height) > MOST_SIDE or chosen.frames > MOST_FRAMES:
        return f"--width, --height, --frames: at most {MOST_SIDE}, {MOST_SIDE} and {MOST_FRAMES}"
    if not 1 <= chosen.steps <= MOST_STEPS:
        return f"--steps {chosen.steps}: from 1 to {MOST_STEPS}"
    if not (math.isfinite(chosen.cfg) and 0 <= chosen.cfg <= 100):
        return f"--cfg {chosen.cfg}: a number from 0 to 100"
    if not 0 <= chosen.seed < 2**64:
        return f"--seed {chosen.seed}: from 0 to 2**64 - 1"
    if not chosen.prompt.strip():
        return "--prompt is empty; say what is seen and heard"
    if chosen.model is not None and not (chosen.model / "model_index.json").is_file():
        return f"there is no {chosen.model / 'model_index.json'}: --model takes a downloaded MOVA folder"
    return _wrong_image(chosen.image) or _wrong_place(chosen.out)


def _wrong_image(image: Path | None) -> str:
    if image is None:
        return ""
    if not image.is_file():
        return f"there is no {image}"
    try:
        with image.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        return f"{image} cannot be read: {error.strerror or error}"
    known = start.startswith(PICTURES) or (start[:4], start[8:12]) == (b"RIFF", b"WEBP")
    return "" if known else f"{image} is no picture that can be read; give a PNG, JPEG or WebP"


def _wrong_place(out: Path) -> str:
    if out.suffix.lower() != ".mp4" or out.is_dir():
        return f"--out {out}: give the name of an MP4 file, such as clip.mp4"
    there = next(place for place in out.absolute().parents if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return f"--out {out}: nothing can be written in {there}"
    return ""


def say(line: str) -> None:
    """To the terminal, but not into the command's output: that begins with the route taken."""
    print(line, file=sys.stderr, flush=True)


# --- before there is an environment: standard library only ----------------------------------------------------------


def choose_route(core: bool) -> Path | None:
    """ComfyUI's folder, or None for the core's own loop. Prints the first line of output: which of the two, and why."""
    reason, notes = "as --core asks", list[str]()
    found = None if core else find_comfyui(notes.append)
    if not core and found is None:
        reason = "no ComfyUI found, and its repository cannot be reached to install it"
        if reachable():
            say("no ComfyUI found; installing it with comfy-cli")
            found, reason = install(say), "no ComfyUI found, and comfy-cli could not install it"
    if found is None:
        route = (
            f"without ComfyUI ({reason}): the core's own loop, text encoder and video VAE of transformers, diffusers"
        )
    else:
        route = f"through ComfyUI in {found}"
    print(route, flush=True)
    for note in notes:
        say(note)
    return found


def choose_python(comfyui: Path | None, no_venv: bool, *, cpu: bool = False) -> Path:
    """An interpreter with what the route needs: this one, ComfyUI's own, or one made here, with `cpu` without CUDA.

    Raises:
        CannotPrepare: there is none, and none can be made.
    """
    modules = LOOP_MODULES if comfyui is None else (*ROUTE_MODULES, *torch_packages(comfyui))
    if no_venv:
        if lacking := missing(sys.executable, modules):
            raise CannotPrepare(f"this Python lacks {', '.join(lacking)}; install them, or leave --no-venv away")
        return Path(sys.executable)
    if usable := first_usable([sys.executable, *comfyui_pythons(comfyui)], modules):
        return usable
    own = REPOSITORY / "requirements.txt"
    if comfyui is None:
        return prepare(DEMO / "venv-core", Wanted(packages=CORE, files=(own,), cpu=cpu), say)
    packages = tuple(torch_packages(comfyui).values())
    return prepare(DEMO / "venv", Wanted(packages=packages, files=(comfyui / "requirements.txt", own), cpu=cpu), say)


def comfyui_pythons(comfyui: Path | None) -> list[Path]:
    """Interpreters that a ComfyUI may have brought: comfy-cli's, a user's, the portable build's."""
    if comfyui is None:
        return []
    places = [comfyui / ".venv", comfyui / "venv"]
    found = [place / part for place in places for part in ("bin/python", "Scripts/python.exe")]
    return [path for path in [*found, comfyui.parent / "python_embeded" / "python.exe"] if path.exists()]


def astronaut(folder: Path) -> Path | None:
    """NASA's photograph of Eileen Collins (public domain) from scikit-image's wheel; None where pip cannot get it."""
    picture = folder / "astronaut.png"
    if picture.is_file():
        return picture
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*pip, "--dest", wheels, "scikit-image"], capture_output=True)
        wheel = next(Path(wheels).glob("*.whl"), None)
        if done.returncode or wheel is None:
            return None
        try:
            content = zipfile.ZipFile(wheel).read("skimage/data/astronaut.png")
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".astronaut.{os.getpid()}.part"
            part.write_bytes(content)
            part.replace(picture)  # there whole, or not at all
        except (OSError, KeyError, zipfile.BadZipFile):
            return None
    return picture


# --- in the environment ---------------------------------------------------------------------------------------------


def make(chosen: argparse.Namespace, scratch: Path) -> Path:
    """The clip, by the route that was chosen."""
    from mova_core.text import NEGATIVE_PROMPT
    from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
    from tools.routes.progress import Bar

    model = chosen.model or write_tiny_checkpoint(scratch / "MOVA-tiny-random")
    image = chosen.image or painted(scratch)
    names = ("prompt", "width", "height", "frames", "steps", "cfg", "seed")
    settings = {name: getattr(chosen, name) for name in names} | {"negative": NEGATIVE_PROMPT, "fps": 24.0}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    bar = Bar()
    if chosen.route == CORE_ROUTE:
        return make_by_core(model, image, chosen.out, settings, bar)
    from tools.routes import comfyui as demo_comfyui

    cpu = chosen.model is None or not demo_comfyui.has_accelerator()
    return demo_comfyui.run(Path(chosen.route), model.resolve(), image, chosen.out, cpu=cpu, bar=bar, **settings)


def make_by_core(model: Path, image: Path, out: Path, settings: dict[str, Any], bar: Any) -> Path:
    import numpy
    import torch
    from PIL import Image

    from tools.routes import core as core_loop
    from tools.routes.media import write_mp4

    picture = torch.from_numpy(numpy.array(Image.open(image).convert("RGB")))[None]
    clip = core_loop.run(core_loop.Job(folder=model, picture=picture, **settings), bar.show)
    bar.end()
    return write_mp4(out, clip.pictures, settings["fps"], clip.waveform, clip.sample_rate)


def painted(folder: Path) -> Path:
    """A picture of colours, where the photograph is out of reach."""
    from PIL import Image

    say("the photograph could not be downloaded; the first frame is painted instead (give your own with --image)")
    picture = folder / "painted.png"
    Image.merge("RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256), 96)]).save(
        picture
    )
    return picture


def describe(clip: Path) -> str:
    from tools.routes.media import describe_mp4

    facts = describe_mp4(clip)
    size = f"{facts['width']}x{facts['height']} at {facts['fps']:g} fps"
    picture = f"{facts['frames']} frames, {facts['seconds']:.2f} s, {size}"
    sound = f"sound {facts['audio_seconds']:.2f} s, {facts['sample_rate']} Hz, peak {facts['audio_peak']:.2f}"
    return f"clip: {clip.resolve()}  {picture}; {sound}"


def main() -> int:
    chosen = options()
    return launch(chosen) if chosen.route is None else finish(chosen)


def launch(chosen: argparse.Namespace) -> int:
    """Decide the route and the interpreter, then run this file again with both."""
    if wrong := trouble(chosen):
        sys.exit(f"demo.py: {wrong}")
    try:
        comfyui = choose_route(chosen.core)
        python = choose_python(comfyui, chosen.no_venv, cpu=chosen.model is None)
    except CannotPrepare as error:
        sys.exit(str(error))
    image = chosen.image or astronaut(DEMO)
    decided = ["--route", str(comfyui or CORE_ROUTE), *(["--image", str(image)] if image else [])]
    environment = dict(os.environ)
    if chosen.model is None:  # tensors this small only wait for a second thread
        environment.setdefault("OMP_NUM_THREADS", "1")
    command = [str(python), __file__, *sys.argv[1:], *decided]
    if os.name == "posix":  # the same process, so that a signal reaches what it started
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    return follow(subprocess.Popen(command, env=environment))


def follow(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that hears the same Ctrl+C, however often it comes, until it has cleaned up."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


ENDING = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def interrupted(*_: object) -> NoReturn:
    """A request to end is an interrupt, so that servers stop and temporary folders go; one is enough for all that."""
    for name in ENDING:
        signal.signal(getattr(signal, name), lambda *_: None)
    raise KeyboardInterrupt


def finish(chosen: argparse.Namespace) -> int:
    """Make the clip with this interpreter and describe it."""
    from tools.comfy.events import ServerError

    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="mova-demo-", ignore_cleanup_errors=True) as scratch:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(scratch) / "inductor"))  # else it stays in /tmp
            clip = make(chosen, Path(scratch))
    except (MovaError, ServerError, OSError) as error:
        sys.exit(f"no clip: {error}")
    print(describe(clip))
    print(
        f"made in {time.monotonic() - began:.0f} s" + ("" if chosen.model else "; random weights, so it means nothing")
    )
    return 0


if __name__ == "__main__":
    for name in ENDING:  # SIGINT too: a shell's background process is started deaf to it
        signal.signal(getattr(signal, name), interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nstopped")
