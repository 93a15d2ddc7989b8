"""ComfyUI and the pack in this process, on the CPU, for unit tests of nodes. Mark those tests `needs_comfy`."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mova_core.checkpoint.convert import convert
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.wan_sized import write_wan_sized
from tests.golden import CHECKPOINT, LARGER
from tests.in_process import Pack, load_pack, prepare_comfyui, stock_nodes
from tests.nodes.graph import FPS, Run, Scene, runner
from tests.nodes.long_runs import Counted

PROMPT = "A cat plays the piano.\n\nThe audio shows rain on a tin roof."


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base directory of the ComfyUI in this process: `models`, `input` and `output` lie in it."""
    return tmp_path_factory.mktemp("comfy")


@pytest.fixture(scope="session")
def comfy_nodes(comfy_base: Path) -> ModuleType:
    """ComfyUI's own `nodes` module, with `comfy` importable."""
    return prepare_comfyui(comfy_base)


@pytest.fixture(scope="session")
def stock(comfy_nodes: ModuleType) -> dict[str, type]:
    """ComfyUI's own nodes by id, those of comfy_extras included."""
    return stock_nodes(comfy_nodes)


@pytest.fixture(scope="session")
def pack(comfy_nodes: ModuleType) -> Pack:
    """This pack, loaded as ComfyUI loads a custom node pack."""
    loaded = load_pack(comfy_nodes)
    gc.freeze()  # ComfyUI and its libraries are a million objects that stay
    return loaded


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors this small gain nothing from a second thread, and on a busy machine they wait for it."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def run(stock: dict[str, type], pack: Pack) -> Run:
    """Runs a stock node or one of ours by its id."""
    return runner(stock | dict(pack.nodes))


@pytest.fixture(scope="session")
def diffusers(comfy_base: Path) -> Path:
    """Where 'MOVA Loader' finds folders: `tiny`, the official tensors' `golden`, and `larger`, the larger set's."""
    folder = comfy_base / "models" / "diffusers"
    write_tiny_checkpoint(folder / "tiny")
    (folder / "golden").symlink_to(CHECKPOINT)
    if (LARGER / "tiny_hf").is_dir():
        (folder / "larger").symlink_to(LARGER / "tiny_hf")
    return folder


@pytest.fixture(scope="session")
def scene(run: Run, diffusers: Path) -> Scene:
    """The tiny checkpoint in float32, a prompt, and 9 frames of 80 x 48 after a first picture."""
    with torch.inference_mode():
        model, clip, vae, audio_vae = run("MOVALoader", folder="tiny", weight_dtype="fp32")
        texts = run("MOVATextEncode", clip=clip, prompt=PROMPT, negative_prompt="blurry, static")
        picture = torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(3))
        made = condition(run, texts, vae, first_frame=picture)
        return Scene(model, clip, vae, audio_vae, *made)


def condition(run: Run, texts: tuple[object, ...], vae: object, **inputs: object) -> tuple[object, ...]:
    """Outputs of 'MOVA Image to Video+Audio' at the size of the tiny clip."""
    size = {"width": 80, "height": 48, "frames": 9, "fps": FPS, "batch_size": 1}
    return run("MOVAImageToVideoAudio", positive=texts[0], negative=texts[1], vae=vae, **(size | inputs))


@pytest.fixture
def folder(comfy_base: Path) -> Iterator[Path]:
    """Where runs are kept on their way; empty before and after."""
    path = comfy_base / "output" / "mova_runs"
    shutil.rmtree(path, ignore_errors=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def evaluations(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Of the model, counted from here."""
    return Counted(pack, monkeypatch)


@pytest.fixture(scope="session")
def models(comfy_base: Path, diffusers: Path) -> dict[str, str]:
    """Part -> the name of its converted file, as the loaders list it."""
    parts = ["video_dit", "video_dit_2", "shared", "merged", "video_vae", "audio_vae", "text_encoder"]
    files = convert(diffusers / "tiny", comfy_base / "models", parts=parts)
    return {file.metadata["mova"]: file.path.name for file in files}


@pytest.fixture(scope="session")
def wan_sized(comfy_base: Path) -> dict[str, str]:
    return write_wan_sized(comfy_base / "models" / "diffusion_models")
