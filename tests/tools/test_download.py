"""The download tool asks for what the nodes read, says the sizes first, and passes failures on."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mova_core.checkpoint.convert.plan import revision_of
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools import download as tool

SHA = "0123456789abcdef0123456789abcdef01234567"
EXTRA = ("README.md", "assets/teaser.mp4", "video_dit/pytorch_model.bin", ".gitattributes")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("hub") / "MOVA-360p")
    for name in EXTRA:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


def files(folder: Path) -> list[SimpleNamespace]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return [SimpleNamespace(rfilename=p.relative_to(folder).as_posix(), size=p.stat().st_size) for p in found]


class Hub:
    """huggingface_hub, as far as the tool uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def HfApi(self) -> "Hub":  # noqa: N802, the library's name
        return self

    def model_info(self, repository: str, **options: Any) -> SimpleNamespace:
        self.asked.append(("info", repository, options))
        return SimpleNamespace(siblings=files(self.folder), sha=SHA)

    def snapshot_download(self, repository: str, **options: Any) -> None:
        self.asked.append(("snapshot", repository, options))


def fetch(hub: Hub, folder: Path, **options: Any) -> int:
    settings = {"revision": "", "skip": (), "dry_run": False} | options
    return tool.download(hub, "OpenMOSS-Team/MOVA-360p", folder, **settings)


def test_everything_the_nodes_read_is_asked_for_and_nothing_else(published):
    names = {item.path for item in tool.needed(files(published), tool.patterns(()))}
    everything = {file.rfilename for file in files(published)}
    assert everything - names == set(EXTRA)


def test_parts_that_are_there_as_stock_files_can_be_left_out(published):
    wanted = tool.patterns(("text_encoder", "video_vae"))
    names = {item.path.split("/")[0] for item in tool.needed(files(published), wanted)}
    assert not names & {"text_encoder", "tokenizer", "video_vae"}
    assert "video_dit_2" in names


def test_sizes_are_listed_before_anything_is_fetched(published, tmp_path, capsys):
    hub = Hub(published)
    assert fetch(hub, tmp_path, dry_run=True) == 0
    said = capsys.readouterr().out
    for item in tool.needed(files(published), tool.patterns(())):
        assert item.path in said
    assert "to download" in said
    assert [call[0] for call in hub.asked] == ["info"]


def test_the_snapshot_is_of_the_state_that_was_listed(published, tmp_path):
    hub = Hub(published)
    assert fetch(hub, tmp_path) == 0
    (_, repository, options) = hub.asked[-1]
    assert repository == "OpenMOSS-Team/MOVA-360p"
    assert options["revision"] == SHA
    assert options["local_dir"] == tmp_path
    assert not any(fnmatchcase("README.md", pattern) for pattern in options["allow_patterns"])


def test_what_is_there_already_is_not_counted(published, tmp_path, capsys):
    fetch(Hub(published), published, dry_run=True)
    said = capsys.readouterr().out
    assert "0.000 GB to download" in said
    assert said.count("there already") == len(tool.needed(files(published), tool.patterns(())))


def test_a_disk_too_small_and_another_repository_are_refused(published, tmp_path, monkeypatch, capsys):
    hub = Hub(published)
    monkeypatch.setattr(tool.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert fetch(hub, tmp_path) == 1
    assert "are needed" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fetch(Hub(empty), tmp_path) == 1
    assert "none of the files" in capsys.readouterr().err
    assert all(call[0] == "info" for call in hub.asked)


def test_offline_nothing_is_asked_of_the_network(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = Hub(published)
    fetch(hub, tmp_path, revision=SHA)
    assert [call[0] for call in hub.asked] == ["snapshot"]
    assert hub.asked[0][2]["revision"] == SHA


def test_errors_of_the_hub_are_passed_on_and_end_in_a_status(tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")

    def failing(self, *args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", failing)
    assert tool.main(["MOVA-360p", str(tmp_path)]) == 1
    assert "no route" in capsys.readouterr().err


@pytest.fixture
def endpoint(published: Path) -> Iterator[str]:
    """A hub of one repository on this machine, as much of it as a download asks for; ranges included."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            prefix = f"/OpenMOSS-Team/MOVA-360p/resolve/{SHA}/"
            if "/tree/" in path:
                tree = [{"type": "file", "path": f.rfilename, "size": f.size, "oid": "0"} for f in files(published)]
                self.send(json.dumps(tree).encode(), body, {})
            elif path.startswith("/api/models/OpenMOSS-Team/MOVA-360p"):
                listing = [{"rfilename": f.rfilename, "size": f.size} for f in files(published)]
                info = {"_id": "1", "id": "OpenMOSS-Team/MOVA-360p", "sha": SHA, "siblings": listing}
                self.send(json.dumps(info).encode(), body, {})
            elif path.startswith(prefix) and (published / path.removeprefix(prefix)).is_file():
                data = (published / path.removeprefix(prefix)).read_bytes()
                self.send(data, body, {"X-Repo-Commit": SHA, "ETag": f'"{hash(data)}"'})
            else:
                self.send_error(404)

        def send(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            self.send_response(206 if start else 200)
            ranged = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            for key, value in (headers | ranged | {"Content-Length": str(len(data) - start)}).items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data[start:])

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_mirror_serves_the_whole_folder_through_the_real_library(endpoint, published, tmp_path):
    pytest.importorskip("huggingface_hub")
    place = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")}
    command = [sys.executable, tool.__file__, "MOVA-360p", str(tmp_path / "model")]
    done = subprocess.run(command, env=kept | place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for item in tool.needed(files(published), tool.patterns(())):
        assert (tmp_path / "model" / item.path).read_bytes() == (published / item.path).read_bytes()
    assert not (tmp_path / "model" / "README.md").exists()
    assert revision_of(tmp_path / "model") == SHA


def test_a_file_that_was_cut_off_is_said_to_be_begun_again_and_is_whole_in_the_end(endpoint, published, tmp_path):
    """A process that was killed leaves such a file; the library does not go on within it."""
    pytest.importorskip("huggingface_hub")
    whole, cut = "audio_dit/diffusion_pytorch_model.safetensors", "audio_vae/diffusion_pytorch_model.safetensors"
    (tmp_path / "model" / "audio_dit").mkdir(parents=True)
    (tmp_path / "model" / whole).write_bytes((published / whole).read_bytes())
    left = tmp_path / "model" / ".cache" / "huggingface" / "download" / "audio_vae" / "xyz.0123.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes((published / cut).read_bytes()[:100])
    place = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")}
    command = [sys.executable, tool.__file__, "MOVA-360p", str(tmp_path / "model")]
    done = subprocess.run(command, env=kept | place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[2]: line for line in done.stdout.splitlines() if " GB  " in line}
    assert "(was cut off: begun again)" in lines[cut]
    assert "(there already)" in lines[whole]
    assert "again" not in lines["video_dit_2/config.json"]
    assert (tmp_path / "model" / cut).read_bytes() == (published / cut).read_bytes()
    assert not left.exists()


def test_what_a_failed_download_says_is_what_the_next_one_does(tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.HfApi, "model_info", lambda self, *a, **k: (_ for _ in ()).throw(OSError("cut")))
    assert tool.main(["MOVA-360p", str(tmp_path)]) == 1
    assert "whole files stay, and a file that was cut off is begun again" in capsys.readouterr().err
