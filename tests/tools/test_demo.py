"""The demo finds the best route there is, says which in its first line, and its clips hold what was asked for."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.comfy import COMFYUI, needs_comfy
from tools import demo
from tools.comfy import environment
from tools.comfy import find as find_comfyui
from tools.comfy.environment import CannotPrepare, Wanted, interpreter, prepare
from tools.comfy.events import Event
from tools.comfy.server import ComfyServer
from tools.comfy.starting import signals_wait
from tools.routes.comfyui import follow, image_to_video_audio
from tools.routes.progress import Bar

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--width", "32", "--height", "32", "--frames", "5", "--steps", "2"]


def comfyui_at(place: Path) -> Path:
    (place / "comfy").mkdir(parents=True)
    (place / "main.py").touch()
    return place.resolve()


def test_comfyui_path_comes_first_then_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(find_comfyui, "REPOSITORY", tmp_path / "pack")
    assert find_comfyui.find_comfyui(print) is None
    default = comfyui_at(find_comfyui.places()[0])
    assert find_comfyui.find_comfyui(print) == default
    named = comfyui_at(tmp_path / "named")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert find_comfyui.find_comfyui(print) == named


def test_the_comfyui_that_the_pack_stands_in_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    comfyui = comfyui_at(tmp_path / "anywhere")
    monkeypatch.setattr(find_comfyui, "REPOSITORY", comfyui / "custom_nodes" / "mova")
    assert find_comfyui.find_comfyui(print) == comfyui


def test_a_wrong_comfyui_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    told: list[str] = []
    find_comfyui.find_comfyui(told.append)
    assert str(tmp_path) in told[0]


@pytest.mark.parametrize("within_reach", [False, True])
def test_the_first_line_says_that_comfyui_cannot_be_had(
    within_reach: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_comfyui", lambda say: say("a note"))
    monkeypatch.setattr(demo, "reachable", lambda: within_reach)
    monkeypatch.setattr(demo, "install", lambda say: None)
    assert demo.choose_route(core=False) is None
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("without ComfyUI (no ComfyUI found")
    assert "the core's own loop" in first


def test_the_first_line_names_the_comfyui_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_comfyui", lambda say: tmp_path)
    assert demo.choose_route(core=False) == tmp_path
    assert capsys.readouterr().out == f"through ComfyUI in {tmp_path}\n"


def test_an_environment_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    with pytest.raises(CannotPrepare, match="was not made by this command"):
        prepare(tmp_path, Wanted(packages=("ftfy",)), print)
    assert [path.name for path in tmp_path.iterdir()] == ["pyvenv.cfg"]


def test_an_environment_that_was_interrupted_as_it_was_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path, **_: object) -> None:
        assert [path.name for path in folder.iterdir()] == [environment.STAMP], "what was there before is gone"
        (folder / "pyvenv.cfg").touch()
        (folder / "lib").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(environment.venv, "create", stopped)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "venv", Wanted(packages=("ftfy",)), lambda line: None)


@pytest.mark.parametrize("wheel", [b"no zip", None])
def test_a_photograph_that_cannot_be_had_is_none_and_leaves_nothing(
    wheel: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **_: object) -> Any:
        path = Path(command[command.index("--dest") + 1]) / "scikit_image.whl"
        if wheel is None:
            zipfile.ZipFile(path, "w").close()  # the picture is no longer in it
        else:
            path.write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo.subprocess, "run", download)
    assert demo.astronaut(tmp_path / "demo") is None
    assert not (tmp_path / "demo").exists()


def test_an_environment_made_before_is_used_again(tmp_path: Path) -> None:
    wanted = Wanted(packages=("ftfy",))
    python = interpreter(tmp_path)
    python.parent.mkdir()
    python.touch()
    (tmp_path / environment.STAMP).write_text(wanted.digest())
    assert prepare(tmp_path, wanted, pytest.fail) == python
    assert wanted.digest() != Wanted(packages=("ftfy", "av")).digest()


def test_torchaudio_is_installed_for_a_comfyui_that_asks_for_it_only(tmp_path: Path) -> None:
    for asked in ("torch\ntorchvision\n", "torch\ntorchvision\ntorchaudio\n"):
        (tmp_path / "requirements.txt").write_text(f"comfy-kitchen==0.2.36\n{asked}torchsde\n")
        found = environment.torch_packages(tmp_path)
        assert list(found) == asked.split()
        assert found["torch"].startswith("torch==")


def test_an_interpreter_is_asked_for_its_modules() -> None:
    assert environment.missing(sys.executable, ["json", "no_such_module"]) == ["no_such_module"]
    assert environment.missing("no-such-python", ["json"]) is None
    assert environment.first_usable(["no-such-python", sys.executable], ["json"]) == Path(sys.executable)


def test_the_bar_shows_what_comfyui_reports() -> None:
    shown = io.StringIO()
    settings = {"prompt": "p", "negative": "n", "width": 32, "height": 32, "frames": 5, "fps": 24.0}
    graph = image_to_video_audio("folder", "image.png", steps=2, cfg=5.0, seed=0, **settings)
    watch = follow(graph, Bar(shown))
    watch(Event("executing", {"node": "load"}, 0.0))
    watch(Event("progress", {"node": "sample", "value": 1, "max": 2}, 0.0))
    watch(Event("progress", {"node": "sample", "value": 1, "max": 2}, 0.0))
    watch(Event("executing", {"node": None}, 0.0))
    assert "loading" in shown.getvalue()
    assert f"[{'#' * 15}{' ' * 15}] 1/2 denoising" in shown.getvalue()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--width", "100"], "96x96 and 112x96"),
        (["--height", "0"], "--height"),
        (["--frames", "10"], "9 and 13"),
        (["--steps", "0"], "--steps 0: from 1 to 1000"),
        (["--steps", "1001"], "--steps 1001: from 1 to 1000"),
        (["--width", "8192"], "at most 4096, 4096 and 2001"),
        (["--frames", "4001"], "at most 4096, 4096 and 2001"),
        (["--cfg", "nan"], "--cfg nan"),
        (["--cfg", "1e300"], "--cfg 1e+300"),
        (["--seed", "-1"], "--seed -1"),
        (["--prompt", "  "], "--prompt is empty"),
        (["--model", "no-such-folder"], "takes a downloaded MOVA folder"),
        (["--image", "no-such.png"], "there is no no-such.png"),
        (["--image", __file__], "is no picture"),
        (["--out", "clip.txt"], "give the name of an MP4 file"),
        (["--out", f"{__file__}/clip.mp4"], "nothing can be written"),
    ],
)
def test_every_option_is_checked_before_anything_is_installed_or_started(
    given: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("choose_route", "choose_python", "astronaut"):
        monkeypatch.setattr(demo, name, lambda *_, **__: pytest.fail("something was begun"))
    monkeypatch.setattr(sys, "argv", ["demo.py", *given])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert told in str(ended.value)


@pytest.mark.parametrize("cuda_less", [True, False])
def test_a_demo_on_the_cpu_asks_for_torch_without_cuda_and_shows_how_far_pip_is(
    cuda_less: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(command: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append([str(part) for part in command])
        return subprocess.CompletedProcess([], 0 if cuda_less else "uv" in ran[-1])

    monkeypatch.setattr(environment.subprocess, "run", run)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    told: list[str] = []
    environment._install(tmp_path / "python", Wanted(packages=("torch==2.11.0", "av"), cpu=True), told.append)
    assert ran[1][-3:] == ["--torch-backend", "cpu", "torch==2.11.0"]
    assert ran[-1][-2:] == ["torch==2.11.0", "av"]
    assert not any(part in ("-q", "--quiet") for command in ran for part in command)
    assert bool(told) is not cuda_less


@needs_comfy
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 6), (signal.SIGTERM, 1)])
def test_an_interrupt_leaves_no_server_and_no_folder(number: int, times: int, tmp_path: Path) -> None:
    """However often it comes: people press Ctrl+C until something ends."""
    variables = {**os.environ, "COMFYUI_PATH": str(COMFYUI), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    command = [sys.executable, "tools/demo.py", "--no-venv", "--image", str(picture), "--out", str(tmp_path / "c.mp4")]
    with subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.DEVNULL) as running:
        assert waited_for(lambda: list(tmp_path.glob("mova-demo-*/server.log")))
        for _ in range(times):
            running.send_signal(number)  # to it alone, as a supervisor would
            time.sleep(0.15)
        assert running.wait(timeout=60) != 0
    assert [place.name for place in tmp_path.iterdir()] == ["picture.png"]
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_no_interrupt_comes_between_the_start_of_a_server_and_its_record() -> None:
    came: list[str] = []

    def own(*_: object) -> None:
        came.append("signal")

    before = signal.signal(signal.SIGTERM, own)
    try:
        with signals_wait():
            os.kill(os.getpid(), signal.SIGTERM)
            came.append("record")
        assert came == ["record", "signal"]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_server_that_is_interrupted_as_it_starts_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    plain = subprocess.Popen

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def start(_: object, **given: Any) -> subprocess.Popen[bytes]:
        started.append(plain([sys.executable, "-c", "import time; time.sleep(60)"], **given))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            ComfyServer(tmp_path, comfyui=tmp_path).start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert started[0].poll() is not None


def waited_for(condition: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(condition())


def run_demo(tmp_path: Path, *arguments: str) -> list[str]:
    from PIL import Image

    picture, clip = tmp_path / "picture.png", tmp_path / "clip.mp4"
    Image.linear_gradient("L").convert("RGB").save(picture)
    command = [sys.executable, "tools/demo.py", "--no-venv", "--image", str(picture), "--out", str(clip), *SMALL]
    variables = {**os.environ, **({"COMFYUI_PATH": str(COMFYUI)} if COMFYUI else {}), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2/2 denoising" in done.stderr
    return done.stdout.splitlines()


def check_clip(line: str, tmp_path: Path) -> None:
    assert line.startswith(f"clip: {tmp_path / 'clip.mp4'}  5 frames, 0.21 s, 32x32 at 24 fps; sound 0.21 s, 48000 Hz")


def test_the_core_alone_makes_a_clip(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    first, clip, _ = run_demo(tmp_path, "--core")
    assert first.startswith("without ComfyUI (as --core asks)")
    check_clip(clip, tmp_path)


@needs_comfy
def test_comfyui_makes_the_same_kind_of_clip(tmp_path: Path) -> None:
    first, clip, _ = run_demo(tmp_path)
    assert first == f"through ComfyUI in {COMFYUI}"
    check_clip(clip, tmp_path)
