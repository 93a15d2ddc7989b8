"""Published folder -> single files -> published folder: what is written, what is refused, and that nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from mova_core.checkpoint import writer
from mova_core.checkpoint.convert import convert, main, manifest_path, restore, verify
from mova_core.checkpoint.convert.plan import PRECISIONS, SINGLE_FILES, USUAL
from mova_core.checkpoint.files import component_tensors, read_header, read_json, read_tensors
from mova_core.checkpoint.quantization import FORMATS, dequantized, takes
from mova_core.checkpoint.source import from_files, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE
from mova_core.checkpoint.writer import Piece, check_space, header_of, write_pieces
from mova_core.errors import CheckpointError
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.golden import REPOSITORY

COMPONENTS = ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge", "audio_vae", "video_vae", "text_encoder")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("published") / "MOVA-tiny")
    note = folder / ".cache" / "huggingface" / "download" / "model_index.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{REVISION}\netag\n0.0\n")
    return folder


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    convert(tiny, folder)
    return folder


def same(one, other) -> bool:
    assert one.keys() == other.keys()
    return all(a.dtype == other[k].dtype and torch.equal(a, other[k]) for k, a in one.items())


# --- there and back ------------------------------------------------------------------------------------------------


def test_there_and_back_is_the_identity_to_the_last_bit(tiny, models, tmp_path):
    restore(models, tmp_path)
    for name in COMPONENTS:
        assert same(component_tensors(tiny / name), component_tensors(tmp_path / name)), name
        assert read_json(tiny / name / "config.json") == read_json(tmp_path / name / "config.json")
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        assert read_json(tiny / name) == read_json(tmp_path / name)
    assert (tiny / "tokenizer" / "spiece.model").read_bytes() == (tmp_path / "tokenizer" / "spiece.model").read_bytes()


def test_a_merged_file_comes_back_too(tiny, tmp_path):
    convert(tiny, tmp_path / "models", parts=["merged"])
    restore(tmp_path / "models", tmp_path / "back")
    for name in COMPONENTS[:4]:
        assert same(component_tensors(tiny / name), component_tensors(tmp_path / "back" / name))


@pytest.mark.parametrize("precision", FORMATS)
def test_quantised_files_come_back_dequantised(tiny, tmp_path, precision):
    convert(tiny, tmp_path / "models", precision=precision, parts=["video_dit", "shared"])
    restore(tmp_path / "models", tmp_path / "back")
    before, after = (component_tensors(folder / "video_dit") for folder in (tiny, tmp_path / "back"))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        quantised = takes(FORMATS[precision], key, tuple(tensor.shape))
        assert torch.equal(tensor, after[key]) != quantised, key
        assert (tensor.float() - after[key].float()).norm() < 0.12 * tensor.float().norm()


@pytest.mark.parametrize("tied", [("encoder.embed_tokens.weight",), ("encoder.embed_tokens.weight", "shared.weight")])
def test_the_tied_table_of_the_text_encoder_is_written_once_and_restored_under_its_names(tiny, tmp_path, tied):
    source = tmp_path / "tiny"
    shutil.copytree(tiny, source)
    encoder = component_tensors(source / "text_encoder")
    table = encoder.pop("shared.weight")
    (source / "text_encoder" / "model.safetensors").unlink()
    writer_tensors = encoder | {name: table.clone() for name in tied}
    write_all(source / "text_encoder" / "model.safetensors", writer_tensors)
    (file,) = convert(source, tmp_path / "models", parts=["text_encoder"])
    keys = read_header(file.path).shapes
    assert "shared.weight" in keys
    assert "encoder.embed_tokens.weight" not in keys
    restore(tmp_path / "models", tmp_path / "back")
    assert same(writer_tensors, component_tensors(tmp_path / "back" / "text_encoder"))


def write_all(path, tensors):
    pieces = [Piece(tensors={k: (v.dtype, tuple(v.shape))}, make=lambda k=k, v=v: {k: v}) for k, v in tensors.items()]
    write_pieces(path, pieces, {})


# --- what is written -----------------------------------------------------------------------------------------------


def test_files_lie_where_comfyui_looks_for_them_and_say_what_they_are(tiny, models):
    for part in USUAL:
        folder, end, _ = SINGLE_FILES[part]
        (path,) = [p for p in (models / folder).iterdir() if end in p.name]
        header = read_header(path)
        assert header.metadata["format"] == "pt"
        assert header.metadata["mova"] == part
        assert header.metadata["mova_model"] == "MOVA-tiny"
        assert header.metadata["mova_revision"] == REVISION
        hashes = json.loads(header.metadata["mova_sources"])
        assert hashes
        for name, digest in hashes.items():
            assert writer.sha256(tiny / name) == digest


def test_the_manifest_names_every_file_with_its_hash(models):
    manifest = read_json(manifest_path(models, "MOVA-tiny"))
    assert len(manifest["files"]) == len(USUAL)
    for name, entry in manifest["files"].items():
        assert (models / name).stat().st_size == entry["bytes"]
        assert writer.sha256(models / name) == entry["sha256"]


def test_the_text_encoder_carries_its_vocabulary_byte_for_byte(tiny, models):
    (path,) = (models / "text_encoders").iterdir()
    stored = read_tensors(path)["spiece_model"]
    assert stored.dtype == torch.uint8
    assert stored.numpy().tobytes() == (tiny / "tokenizer" / "spiece.model").read_bytes()


def test_the_video_vae_has_the_original_names(models):
    keys = read_header(next((models / "vae").glob("*video_vae*"))).shapes
    assert "decoder.middle.0.residual.0.gamma" in keys
    assert not any("resnets" in key for key in keys)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_keeps_sensitive_layers_and_vaes_as_published(tiny, tmp_path, precision):
    files = convert(tiny, tmp_path, precision=precision, parts=["video_dit", "shared", "video_vae", "audio_vae"])
    assert [file.metadata["mova_precision"] for file in files] == [precision] * 2 + ["as published"] * 2
    stored, source = read_tensors(files[0].path), component_tensors(tiny / "video_dit")
    assert same(component_tensors(tiny / "audio_vae"), read_tensors(files[3].path))
    if precision in FORMATS:
        for key, tensor in source.items():
            if not takes(FORMATS[precision], key, tuple(tensor.shape)):
                assert torch.equal(stored[key], tensor), key
        assert any(key.endswith(".comfy_quant") for key in stored)
        stored = dequantized(stored)
    for key, tensor in source.items():
        assert (stored[key].float() - tensor.float()).norm() < 0.12 * tensor.float().norm()


@pytest.mark.parametrize(("precision", "share"), [("bf16", 1.0), ("fp8", 0.66), ("int8", 0.66), ("nvfp4", 0.5)])
def test_files_are_as_small_as_the_precision_promises(tiny, tmp_path, precision, share):
    (file,) = convert(tiny, tmp_path, precision=precision, parts=["video_dit"])
    source = sum(tensor.nbytes for tensor in component_tensors(tiny / "video_dit").values())
    assert sum(tensor.nbytes for tensor in read_tensors(file.path).values()) <= share * source


def test_every_tensor_starts_where_its_dtype_is_aligned(tiny, tmp_path):
    for precision in ("fp8", "nvfp4"):
        (file,) = convert(tiny, tmp_path, precision=precision, parts=["merged"])
        position, stored = len(header_of(file.pieces, file.metadata)), read_tensors(file.path)
        for piece in file.pieces:
            for name, (dtype, _) in piece.tensors.items():
                assert position % dtype.itemsize == 0, name
                position += stored[name].nbytes


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_converted_files_make_the_joint_model(tiny, tmp_path, precision):
    files = {file.metadata["mova"]: file.path for file in convert(tiny, tmp_path, precision=precision)}
    source = from_files(files["video_dit"], files["video_dit_2"], files["shared"])
    assert source.notes == ()
    assert source.audio_shift == source.scheduler.shift == 5.0
    for expert in ("video_dit", "video_dit_2"):
        tensors = dequantized(joint_names(source.tensors(expert, AUDIO, BRIDGE)))
        published = component_tensors(tiny / expert)
        assert {key for key in tensors if not key.startswith(("audio_dit.", "dual_"))} == published.keys()
        if precision == "bf16":
            assert all(torch.equal(tensors[key], value) for key, value in published.items())


# --- streaming, resuming, verifying --------------------------------------------------------------------------------


def counted(count, size=1000):
    """Pieces that note when they are made, and whether an earlier one is still held then."""
    made, alive = [], []

    def make(n):
        alive.append(sum(ref() is not None for ref in made))
        tensor = torch.full((size,), float(n))
        made.append(weakref.ref(tensor))
        return {f"w{n}": tensor}

    pieces = [Piece(tensors={f"w{n}": (torch.float32, (size,))}, make=lambda n=n: make(n)) for n in range(count)]
    return pieces, made, alive


def test_one_piece_is_held_at_a_time(tmp_path):
    pieces, made, alive = counted(20)
    write_pieces(tmp_path / "a.safetensors", pieces, {})
    assert len(made) == 20
    assert not any(alive)


@pytest.mark.parametrize("kept", [0, 5, 11, 12])
def test_a_file_that_was_cut_off_is_continued_after_its_last_whole_piece(tmp_path, kept):
    whole, path = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    pieces, _, _ = counted(12)
    digest = write_pieces(whole, pieces, {"a": "b"})
    data = whole.read_bytes()
    start = len(header_of(pieces, {"a": "b"}))
    (tmp_path / "a.safetensors.partial").write_bytes(data[: start + 4000 * kept + (7 if kept < 12 else 0)])
    again, made, _ = counted(12)
    assert write_pieces(path, again, {"a": "b"}) == digest
    assert len(made) == 12 - kept
    assert path.read_bytes() == data
    assert not (tmp_path / "a.safetensors.partial").exists()


def test_what_another_conversion_left_is_begun_anew(tmp_path):
    pieces, made, _ = counted(3)
    (tmp_path / "a.safetensors.partial").write_bytes(b"\x08\0\0\0\0\0\0\0{}      and more" * 900)
    write_pieces(tmp_path / "a.safetensors", pieces, {})
    assert len(made) == 3
    assert read_header(tmp_path / "a.safetensors").shapes == {f"w{n}": (1000,) for n in range(3)}


def test_a_failure_leaves_no_file_and_the_next_run_goes_on(tiny, tmp_path, monkeypatch):
    count = 0
    quantize = FORMATS["fp8"].quantize

    def failing(weight):
        nonlocal count
        count += 1
        if count == 5:
            raise OSError("the disk is gone")
        return quantize(weight)

    broken = {**FORMATS, "fp8": writer_free(FORMATS["fp8"], failing)}
    monkeypatch.setattr("mova_core.checkpoint.convert.plan.FORMATS", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        convert(tiny, tmp_path, precision="fp8", parts=["video_dit"])
    assert not list(tmp_path.rglob("*.safetensors"))
    files = convert(tiny, tmp_path, precision="fp8", parts=["video_dit"])
    monkeypatch.undo()
    clean = convert(tiny, tmp_path / "clean", precision="fp8", parts=["video_dit"])
    assert files[0].path.read_bytes() == clean[0].path.read_bytes()


def writer_free(kind, quantize):
    from dataclasses import replace

    return replace(kind, quantize=quantize)


def test_what_is_there_already_is_left_alone(tiny, tmp_path):
    first = convert(tiny, tmp_path, parts=["shared"])[0].path
    os.utime(first, (1, 1))
    convert(tiny, tmp_path, parts=["shared"])
    assert first.stat().st_mtime == 1


def test_a_changed_source_is_converted_again(tiny, tmp_path):
    source = tmp_path / "MOVA-tiny"
    shutil.copytree(tiny, source)
    path = convert(source, tmp_path / "models", parts=["audio_vae"])[0].path
    before = path.read_bytes()
    tensors = component_tensors(source / "audio_vae")
    write_all(source / "audio_vae" / "diffusion_pytorch_model.safetensors", {k: v + 1 for k, v in tensors.items()})
    convert(source, tmp_path / "models", parts=["audio_vae"])
    assert path.read_bytes() != before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_verifying_accepts_what_was_converted_and_finds_one_changed_byte(tiny, tmp_path, precision):
    files = convert(tiny, tmp_path, precision=precision, parts=["shared"])
    manifest = read_json(manifest_path(tmp_path, "MOVA-tiny"))
    verify(files, manifest, tmp_path)
    data = bytearray(files[0].path.read_bytes())
    data[-5] ^= 1
    files[0].path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        verify(files, manifest, tmp_path)
    manifest["files"][files[0].path.relative_to(tmp_path).as_posix()]["sha256"] = writer.sha256(files[0].path)
    with pytest.raises(CheckpointError, match="differs from its source"):
        verify(files, manifest, tmp_path)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_disk_too_small_is_known_before_anything_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(CheckpointError, match="free"):
        convert(tiny, tmp_path / "models")
    assert not list(tmp_path.rglob("*.safetensors*"))


def test_space_is_asked_for_where_the_folder_will_be(tmp_path):
    check_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(CheckpointError):
        check_space(tmp_path / "not" / "yet", 10**18)


def test_float16_is_refused_where_a_weight_does_not_fit(tiny, tmp_path):
    source = tmp_path / "MOVA-tiny"
    shutil.copytree(tiny, source)
    tensors = component_tensors(source / "audio_dit")
    tensors["blocks.0.ffn.0.bias"] = tensors["blocks.0.ffn.0.bias"] + 1e6
    write_all(source / "audio_dit" / "diffusion_pytorch_model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"audio_dit.blocks.0.ffn.0.bias.*bf16"):
        convert(source, tmp_path / "models", precision="fp16", parts=["shared"])


@pytest.mark.parametrize("lost", ["video_dit_2", "audio_vae", "tokenizer/spiece.model"])
def test_an_incomplete_folder_is_refused_by_name(tiny, tmp_path, lost):
    source = tmp_path / "MOVA-tiny"
    shutil.copytree(tiny, source)
    shutil.rmtree(source / lost) if (source / lost).is_dir() else (source / lost).unlink()
    with pytest.raises(CheckpointError, match=lost.split("/")[-1]):
        convert(source, tmp_path / "models")
    assert not list(tmp_path.glob("models/**/*.safetensors"))


def test_tables_that_should_be_one_and_differ_are_refused(tiny, tmp_path):
    source = tmp_path / "MOVA-tiny"
    shutil.copytree(tiny, source)
    tensors = component_tensors(source / "text_encoder")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    write_all(source / "text_encoder" / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match="differ"):
        convert(source, tmp_path / "models", parts=["text_encoder"])


def test_nothing_to_restore_and_two_models_at_once_are_refused(models, tiny, tmp_path):
    with pytest.raises(CheckpointError, match="nothing to restore"):
        restore(tiny, tmp_path / "back")
    both = tmp_path / "both"
    shutil.copytree(models, both)
    convert(tiny, both, precision="fp8", parts=["shared"])
    with pytest.raises(CheckpointError, match="audio_dit is in"):
        restore(both, tmp_path / "back")


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_converts_verifies_and_goes_back(tiny, tmp_path, capsys):
    assert main([str(tiny), str(tmp_path / "models"), "--precision", "fp8", "--verify"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("as converted from the source") == len(USUAL)
    assert "100%" in said.err
    assert main([str(tmp_path / "models"), str(tmp_path / "back"), "--to-folder"]) == 0
    assert (tmp_path / "back" / "model_index.json").is_file()


def test_a_dry_run_lists_sizes_and_writes_nothing(tiny, tmp_path, capsys):
    assert main([str(tiny), str(tmp_path / "models"), "--dry-run"]) == 0
    assert capsys.readouterr().err.count("GB") == len(USUAL)
    assert not (tmp_path / "models").exists()


def test_the_command_says_what_is_wrong_and_fails(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "models")]) == 1
    assert "lacks video_dit" in capsys.readouterr().err


@pytest.mark.parametrize("start", [["-m", "mova_core.checkpoint.convert"], [str(REPOSITORY / "tools" / "convert.py")]])
def test_it_starts_as_a_module_and_from_any_folder_as_a_script(start, tmp_path):
    place = REPOSITORY if start[0] == "-m" else tmp_path
    done = subprocess.run([sys.executable, *start, "--help"], cwd=place, capture_output=True, text=True, check=True)
    assert "--to-folder" in done.stdout
