"""What download tools, file systems and version control leave in place of a file is named, with its own remedy."""

import gzip
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint.files import component_files, component_tensors, read_header, read_json, read_tensors
from mova_core.errors import CheckpointError

NAME = "diffusion_pytorch_model.safetensors"
CONTENTS = {
    "nothing": (b"", "0 bytes.*again"),
    "room made and nothing written": (bytes(5000), "zeros.*Resume"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "an LFS pointer with a byte order mark": (
        b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\n",
        "git lfs pull",
    ),
    "an annex pointer": (b"/annex/objects/SHA256E-s4932--ab12.safetensors\n", "git annex get"),
    "an annex link as text": (b"../.git/annex/objects/X1/2z/SHA256E-s3/SHA256E-s3", "git annex get"),
    "a Xet pointer": (b"# xet version 0\nfilesize = 12\n", "Xet pointer.*[Dd]ownload"),
    "a DVC pointer": (b"outs:\n- md5: 00\n  size: 3\n", "dvc pull"),
    "a page": (b"<!DOCTYPE html><html><title>Log in</title>", "web page.*licence"),
    "a page after blank lines": (b"\n\n  <HTML><body>404", "web page"),
    "a server's XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML.*again"),
    "a server's JSON": (b'{"error":"Invalid credentials in Authorization header"}', "Invalid credentials"),
    "a server's sentence": (b"Entry not found", "text, not weights: 'Entry not found'"),
    "a link as text": (b"../../blobs/0123456789abcdef", "link that was copied as text"),
    "a sidecar": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100), "AppleDouble.*without"),
    "a shortcut": (b"L\x00\x00\x00\x01\x14\x02\x00" + bytes(90), "Windows shortcut"),
    "an internet shortcut": (b"[InternetShortcut]\r\nURL=https://x\r\n", "internet shortcut"),
    "a GGUF file": (b"GGUF\x03\x00\x00\x00" + bytes(64), "GGUF loader"),
    "a gzip archive": (gzip.compress(b"x" * 100), "gzip archive.*Unpack"),
    "a tar archive": (b"video_dit/model".ljust(257, b"\0") + b"ustar\x0000" + bytes(600), "tar archive.*Unpack"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5.*safetensors version"),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_what_stands_in_place_of_weights_is_named(tmp_path, what):
    content, says = CONTENTS[what]
    path = tmp_path / NAME
    path.write_bytes(content)
    for read in (read_header, read_tensors, lambda path: component_tensors(path.parent)):
        with pytest.raises(CheckpointError, match=says) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("what", [what for what in CONTENTS if "JSON" not in what])
def test_what_stands_in_place_of_a_configuration_is_named(tmp_path, what):
    content, says = CONTENTS[what]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        read_json(path)


def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"dim": 3}')
    assert read_json(tmp_path / "config.json") == {"dim": 3}


def test_a_zip_archive_is_no_pickle_unless_it_holds_one(tmp_path):
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("model/config.json", "{}")
    with pytest.raises(CheckpointError, match=r"zip archive.*Unpack"):
        read_header(tmp_path / NAME)
    torch.save({"a": torch.ones(2)}, tmp_path / NAME)
    with pytest.raises(CheckpointError, match="can carry code"):
        read_header(tmp_path / NAME)


# --- neighbours ----------------------------------------------------------------------------------------------------

PARTIAL = (".part", ".crdownload", ".incomplete", ".aria2", ".download", ".opdownload", ".!qB", ".tmp", ".filepart")


@pytest.mark.parametrize("ending", PARTIAL)
def test_an_empty_file_beside_a_partial_one_is_being_downloaded(tmp_path, ending):
    (tmp_path / NAME).write_bytes(b"")
    (tmp_path / f"{NAME}{ending}").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=rf"not finished: {re.escape(NAME + ending)}.*Resume"):
        read_header(tmp_path / NAME)


@pytest.mark.parametrize("ending", PARTIAL)
def test_a_folder_of_partial_files_is_not_finished(tmp_path, ending):
    (tmp_path / f"{NAME}{ending}").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=rf"not finished \({re.escape(NAME + ending)}\).*Resume"):
        component_files(tmp_path)


def test_a_whole_file_is_whole_whatever_lies_beside_it_but_a_tool_that_writes_in_place(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / NAME)
    for other in (".DS_Store", "Thumbs.db", "desktop.ini", f"._{NAME}", f".{NAME}.Xy12Zq", f"{NAME}.part", "README.md"):
        (tmp_path / other).write_bytes(b"\x00\x05\x16\x07")
    assert component_tensors(tmp_path)["a"].tolist() == [1, 1, 1]
    (tmp_path / f"{NAME}.aria2").write_bytes(b"\0\1")  # keeps which pieces are there
    with pytest.raises(CheckpointError, match=r"being downloaded.*aria2"):
        read_header(tmp_path / NAME)


def test_hidden_indices_and_weights_are_no_part_of_a_component(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / NAME)
    (tmp_path / f"._{NAME}").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / f"._{NAME}.index.json").write_bytes(b"\x00\x05\x16\x07")
    assert component_files(tmp_path) == [tmp_path / NAME]


def test_a_download_of_the_hubs_own_library_that_was_cut_off_is_found(tmp_path):
    (tmp_path / "video_dit").mkdir()
    place = tmp_path / ".cache" / "huggingface" / "download" / "video_dit"
    place.mkdir(parents=True)
    (place / "abc.0123.incomplete").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"not finished.*0123\.incomplete"):
        component_files(tmp_path / "video_dit")


FOLDERS = {
    "pickles": (["pytorch_model.bin"], "pickled weights.*safetensors"),
    "an archive": (["video_dit.zip"], "archive.*Unpack"),
    "shards without an index": (
        [f"m-0000{n}-of-00002.safetensors" for n in (1, 2)],
        r"without their \.index\.json",
    ),
    "one folder deeper": ([f"video_dit/{NAME}"], "deeper, in video_dit.*Move"),
    "two copies": ([NAME, "diffusion_pytorch_model (1).safetensors"], r"\(1\)\.safetensors.*Keep one"),
    "sidecars alone": ([f"._{NAME}"], "sidecars"),
    "a torrent": ([f"{NAME}.torrent"], "names the file"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_what_a_folder_holds_instead_of_weights_is_named(tmp_path, what):
    names, says = FOLDERS[what]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file({"a": torch.ones(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match=says):
        component_files(tmp_path)


def test_folders_links_and_pipes_in_place_of_files_are_named(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(CheckpointError, match="a folder, not a file"):
        component_tensors(tmp_path)
    (tmp_path / NAME).rmdir()
    (tmp_path / NAME).symlink_to("../../blobs/0123")
    with pytest.raises(CheckpointError, match=r"link to \.\./\.\./blobs/0123, which is not there.*Download it again"):
        component_tensors(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).symlink_to(".git/annex/objects/a/b")
    with pytest.raises(CheckpointError, match="git annex get"):
        read_header(tmp_path / NAME)
    (tmp_path / "video_dit").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        component_files(tmp_path / "video_dit")


def test_a_file_cut_off_says_how_much_is_there(tmp_path: Path):
    save_file({"a": torch.ones(300)}, tmp_path / NAME)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="describes 1200 bytes of tensors, the file has 1100: it was cut off"):
        read_header(tmp_path / NAME)


# --- beyond any memory ---------------------------------------------------------------------------------------------


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


ABSURD = {
    "an empty tensor of endless rows": b'{"a":{"dtype":"U8","shape":[4611686018427387904,0],"data_offsets":[0,0]}}',
    "several": b'{"a":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
    "digits of 5000 places": b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}',
    "an offset of 5000 places": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,' + b"9" * 5000 + b"]}}",
    "a type of 800 kB": b'{"a":{"dtype":"' + b"U" * 800_000 + b'","shape":[0],"data_offsets":[0,0]}}',
    "a name of 800 kB": b'{"' + b"a" * 800_000 + b'":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "a field of 800 kB": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"'
    + b"b" * 800_000
    + b'":1,"dtype":"U8"}}',
    "a shape that is text of 800 kB": b'{"a":{"dtype":"U8","shape":"' + b"b" * 800_000 + b'","data_offsets":[0,0]}}',
}


@pytest.mark.parametrize("what", ABSURD)
def test_absurd_headers_are_refused_in_few_words(tmp_path, what):
    (tmp_path / NAME).write_bytes(header(ABSURD[what]))
    for read in (read_header, read_tensors):
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path / NAME)
        assert len(str(caught.value)) < 800
