"""Model folders are found wherever the stock loader finds them, and what lies in a file's place is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy

SNAPSHOT = "hub/models--OpenMOSS-Team--MOVA-360p/snapshots/0a1b"


@pytest.fixture
def roots(tmp_path: Path, diffusers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Search paths of their own: the usual folder, a hub's cache, and a path that is itself a model."""
    import folder_paths

    tiny = diffusers / "tiny"
    shutil.copytree(tiny, tmp_path / "usual" / "MOVA-360p")
    shutil.copytree(tiny, tmp_path / "usual" / "video" / "openmoss" / "deep" / "MOVA-720p")
    shutil.copytree(tiny, tmp_path / "itself" / "MOVA-own")
    snapshot = tmp_path / SNAPSHOT
    shutil.copytree(tiny, snapshot)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        file.rename(blobs / f"blob{number}")
        file.symlink_to(os.path.relpath(blobs / f"blob{number}", file.parent))
    places = [str(tmp_path / "usual"), str(tmp_path / "hub"), str(tmp_path / "itself" / "MOVA-own"), "/no/such/place"]
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: places)
    return tmp_path


def test_every_folder_of_the_stock_loader_is_listed(roots: Path, pack: Pack, comfy_nodes: Any) -> None:
    loading = pack.module("nodes.host.loaders.loading")
    stock = comfy_nodes.DiffusersLoader._model_paths()
    assert set(loading.folders()) == {Path(name).as_posix() if name != "." else "MOVA-own" for name in stock}
    assert len(stock) == 4
    assert loading.find_folder(".") == loading.find_folder("MOVA-own") == roots / "itself" / "MOVA-own"


@pytest.mark.parametrize(
    "name", ["models--OpenMOSS-Team--MOVA-360p/snapshots/0a1b", "MOVA-own", "video/openmoss/deep/MOVA-720p"]
)
def test_what_is_listed_loads(roots: Path, run: Run, name: str) -> None:
    assert len(run("MOVALoader", folder=name, weight_dtype="default")) == 4


def test_links_that_lead_back_end_and_links_to_models_are_found(roots: Path, pack: Pack) -> None:
    loading = pack.module("nodes.host.loaders.loading")
    before = set(loading.folders())
    (roots / "usual" / "loop").symlink_to(roots / "usual")
    (roots / "usual" / "video" / "back").symlink_to(roots / "usual" / "video")
    (roots / "usual" / "linked").symlink_to(roots / "itself" / "MOVA-own")
    (roots / "usual" / "gone").symlink_to(roots / "nowhere")
    assert set(loading.folders()) == before | {"linked"}


def test_a_folder_that_is_gone_is_named(roots: Path, run: Run, pack: Pack) -> None:
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match="no MOVA folder 'elsewhere'"):
        run("MOVALoader", folder="elsewhere", weight_dtype="default")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4932871234\n"
PLACES = ("video_dit_2", "audio_dit", "audio_vae", "video_vae", "text_encoder", "tokenizer", "scheduler", "model_index")


@pytest.mark.parametrize("place", PLACES)
def test_a_pointer_anywhere_in_a_folder_is_named_and_nothing_else(
    roots: Path, run: Run, pack: Pack, place: str
) -> None:
    folder = roots / "usual" / "MOVA-360p"
    files = [folder / "model_index.json"] if place == "model_index" else list((folder / place).iterdir())
    for file in files:
        file.write_bytes(LFS)
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match="Git LFS pointer") as caught:
        run("MOVALoader", folder="MOVA-360p", weight_dtype="default")
    assert any(str(file) in str(caught.value) for file in files)


@pytest.mark.parametrize("part", ["text_encoder", "video_vae", "audio_vae", "audio_dit", "video_dit_2", "tokenizer"])
def test_a_missing_part_is_the_only_one_named(roots: Path, run: Run, pack: Pack, part: str) -> None:
    folder = roots / "usual" / "MOVA-360p"
    shutil.rmtree(folder / part)
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match=part) as caught:
        run("MOVALoader", folder="MOVA-360p", weight_dtype="default")
    others = {"text_encoder", "video_vae", "audio_vae", "audio_dit", "video_dit_2", "dual_tower_bridge"} - {part}
    assert not [name for name in others if name in str(caught.value).replace(str(folder / part), "")]


def test_weights_of_another_model_or_size_in_the_text_encoder_are_named(roots: Path, run: Run, pack: Pack) -> None:
    folder = roots / "usual" / "MOVA-360p"
    weights, config = folder / "text_encoder" / "model.safetensors", folder / "text_encoder" / "config.json"
    kept, stated = weights.read_bytes(), config.read_text()
    changes = {
        "the MOVA bridge": lambda: shutil.copy(next((folder / "dual_tower_bridge").glob("*.safetensors")), weights),
        "does not say d_model": lambda: config.write_text(json.dumps(json.loads(stated) | {"d_model": None})),
        "table of 512 x 64": lambda: config.write_text(json.dumps(json.loads(stated) | {"d_model": 64})),
        "does not fit its config.json": lambda: config.write_text(json.dumps(json.loads(stated) | {"d_ff": 16})),
    }
    for says, change in changes.items():
        change()
        with pytest.raises(pack.module("mova_core.errors").MovaError, match=says):
            run("MOVALoader", folder="MOVA-360p", weight_dtype="default")
        weights.write_bytes(kept)
        config.write_text(stated)


def text_encoder(roots: Path, change: Callable[[str, Tensor], dict[str, Tensor]]) -> None:
    """Change each matrix of the encoder of one folder."""
    path = roots / "usual" / "MOVA-360p" / "text_encoder" / "model.safetensors"
    made: dict[str, Tensor] = {}
    for key, value in load_file(path).items():
        made |= change(key, value) if value.ndim == 2 and key.startswith("encoder.block") else {key: value}
    save_file(made, path)


@pytest.mark.parametrize("name", ["weight_scale", "scale_weight", "scale"])
def test_a_text_encoder_in_scaled_float8_is_read(roots: Path, run: Run, name: str) -> None:
    def context() -> Tensor:
        clip = run("MOVALoader", folder="MOVA-360p", weight_dtype="default")[1]
        return run("MOVATextEncode", clip=clip, prompt="A cat plays the piano.", negative_prompt="")[0][0][0]

    def scaled(key: str, value: Tensor) -> dict[str, Tensor]:
        scale = value.float().abs().max() / 400
        return {key: (value.float() / scale).to(torch.float8_e4m3fn), key.removesuffix("weight") + name: scale}

    exact = context()
    text_encoder(roots, scaled)
    assert 0.001 < relative_error(context(), exact) < 0.1


def test_a_text_encoder_in_a_format_that_is_not_read_is_refused_by_name(roots: Path, run: Run, pack: Pack) -> None:
    wrong = pack.module("mova_core.errors").CheckpointError
    text_encoder(roots, lambda key, value: {key: (value * 100).to(torch.int8)})
    with pytest.raises(wrong, match=r"SelfAttention.*is torch.int8 without a scale"):
        run("MOVALoader", folder="MOVA-360p", weight_dtype="default")
    text_encoder(roots, lambda key, value: {key: value.float(), f"{key}.absmax": torch.ones(4)})
    with pytest.raises(wrong, match="quantised by bitsandbytes"):
        run("MOVALoader", folder="MOVA-360p", weight_dtype="default")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", ["gone.safetensors", "below/gone.safetensors"])
def test_a_link_whose_file_is_gone_is_told_where_a_file_is_chosen(
    comfy_base: Path, run: Run, pack: Pack, scene: Scene, name: str
) -> None:
    """As ComfyUI lists it: a hub's cache that was emptied leaves such links."""
    for kind in ("loras", "diffusion_models"):
        link = comfy_base / "models" / kind / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../blobs/0123")
    same = "in the high-noise file"
    calls = {
        "loras": lambda: run("MOVALoraLoader", model=scene.model, lora_name=name, expert="auto", strength=1.0),
        "diffusion_models": lambda: run("MOVAModelLoader", high_noise=name, low_noise=same, shared=same),
    }
    wrong = pack.module("mova_core.errors").CheckpointError
    for kind, call in calls.items():
        with pytest.raises(
            wrong, match=r"not a file but a link to \.\./blobs/0123, which is not there.*Download it again"
        ):
            call()
        (comfy_base / "models" / kind / name).unlink()
        with pytest.raises(wrong, match="there is no file"):
            call()
    with pytest.raises(wrong, match="there is no file"):
        run("MOVAModelLoader", high_noise="../../../etc/passwd", low_noise=same, shared=same)
