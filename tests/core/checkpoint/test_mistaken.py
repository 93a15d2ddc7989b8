"""What download tools, file systems and version control leave in place of a file is named, with its own remedy."""

import gzip
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint.files import component_files, component_tensors, read_header, read_json, read_tensors
from mova_core.checkpoint.holes import check_written
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
    "an older LFS pointer": (b"version http://git-media.io/v/2\noid sha256:00\n", "git lfs pull"),
    "a page in UTF-16": ("<!DOCTYPE html><html>Log in".encode("utf-16"), "web page.*licence"),
    "a refusal": (
        b"Access to model OpenMOSS/MOVA is restricted and you are not in the authorized list.",
        "Log in or accept",
    ),
    "a refusal in JSON": (b'{"error":"Invalid username or password."}', "refusal.*Log in or accept the licence"),
    "a limit": (b"You have reached your 'resolve' rate limit: please try again later.", "refusal.*Wait"),
    "a server's JSON in capitals": (b'{"Code":10010205001,"Message":"gone","Success":false}', "server's error message"),
    "a shortcut of macOS": (b'<?xml version="1.0"?>\n<!DOCTYPE plist PUBLIC "x">\n<plist>', "macOS shortcut"),
    "a binary shortcut": (b"bplist00\xd1\x01\x02" + bytes(20), "property list"),
    "a shortcut of Linux": (b"[Desktop Entry]\nType=Link\nURL=https://x\n", "internet shortcut"),
    "a torrent": (b"d8:announce35:udp://tracker", "torrent.*only names"),
    "a magnet link": (b"magnet:?xt=urn:btih:aa", "torrent.*only names"),
    "a checksum": (b"d41d8cd98f00b204e9800998ecf8427e  model.safetensors\n", "checksum"),
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


@pytest.mark.parametrize(
    "name",
    [
        "model.SAFETENSORS",
        "model.safetensors.txt",
        "model",
        "model.safetensors.bak",
        "model.safetensors~",
        "model.safetensors.lock",
        "model.safetensors:Zone.Identifier",
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_weights_under_another_name_are_told_to_be_renamed(tmp_path, name):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"under a name that .*\({re.escape(name)}\)\. Rename it"):
        component_files(tmp_path)


ENDS = (
    "fdmdownload",
    "qkdownloading",
    "BaiduPCS-Go-downloading",
    "jc!",
    "!sync",
    "dltemp",
    "axel",
    "thunder",
    "icloud",
)


@pytest.mark.parametrize("end", ENDS)
def test_what_more_download_tools_leave_is_not_finished(tmp_path, end):
    (tmp_path / f".{NAME}.{end}").write_bytes(b"x" * 20)
    with pytest.raises(CheckpointError, match=f"not finished .*{re.escape(end)}"):
        component_files(tmp_path)


COPIES = ("{} (1).safetensors", "{} - Copy.safetensors", "{}.safetensors.bak", "{} - Kopie.safetensors", "{}.txt")


@pytest.mark.parametrize("copy", COPIES)
def test_a_shard_under_the_name_of_a_copy_is_told(tmp_path, copy):
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in names:
        save_file({name: torch.ones(1)}, tmp_path / name)
    index = {"weight_map": {name: name for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    renamed = copy.format("model-00002-of-00002")
    (tmp_path / names[1]).rename(tmp_path / renamed)
    with pytest.raises(CheckpointError, match=rf"lacks 1 of 2.*{re.escape(renamed)} may be it: rename it so"):
        component_files(tmp_path)


def test_editors_copies_are_no_second_file(tmp_path):
    for name in (NAME, f"~{NAME}", f"._{NAME}"):
        save_file({"a": torch.ones(1)}, tmp_path / name)
    assert component_files(tmp_path) == [tmp_path / NAME]


# --- room that was made and not all filled ---------------------------------------------------------------------------

SIZES = {f"blocks.{n}.{part}": size for n in range(40) for part, size in (("weight", (64, 64)), ("bias", (64,)))}


def whole(path: Path) -> bytearray:
    save_file({name: torch.randn(size) for name, size in SIZES.items()}, path)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.5, 1.0), (0.9, 1.0), (0.3, 0.6), (0.0, 0.3)])
def test_a_file_of_the_right_length_with_a_hole_in_it_is_not_finished(tmp_path, begin, end):
    content = whole(tmp_path / NAME)
    data = 8 + int.from_bytes(content[:8], "little")
    first, last = (data + int(share * (len(content) - data)) for share in (begin, end))
    content[first:last] = bytes(last - first)
    (tmp_path / NAME).write_bytes(content)
    read_header(tmp_path / NAME)  # nothing is wrong with it
    with pytest.raises(CheckpointError, match=r"full length, but only zeros stand in it .*Resume the download"):
        check_written(tmp_path / NAME)


def test_layers_that_begin_as_zeros_are_no_hole(tmp_path):
    whole(tmp_path / NAME)
    check_written(tmp_path / NAME)
    tensors = {name: torch.randn(size) for name, size in SIZES.items()}
    for n in range(40):  # every bias, which are 40 in a row in the file's order, and some matrices alone
        tensors[f"blocks.{n}.bias"] = torch.zeros(64)
        if n % 3 == 0:
            tensors[f"blocks.{n}.weight"] = torch.zeros(64, 64)
    save_file(tensors, tmp_path / NAME)
    check_written(tmp_path / NAME)
    for few in ({}, {"a": torch.zeros(4, 4)}, {"a": torch.zeros(4, 4), "b": torch.zeros(0, 4)}):
        save_file(few, tmp_path / NAME)
        check_written(tmp_path / NAME)
