"""A .pt file is tensors and settings, read as PyTorch reads them, or is refused: it runs and allocates nothing."""

import collections
import os
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from torch.nn import LayerNorm, Linear, Sequential

from mova_core.checkpoint.lora_files import read_lora
from mova_core.checkpoint.torch_file import MAX_CONTAINERS, NARROW, STORAGE_DTYPES, read_torch
from mova_core.errors import CheckpointError

NOISE = torch.Generator().manual_seed(0)
SETTINGS = {"rank": 3, "alpha": 6.5, "names": ["a", None, True, False, -5, 70_000, 2**40], "nested": {"b": (1, 2)}}


def tensors() -> dict[str, torch.Tensor]:
    some = {str(dtype): torch.randint(0, 2, (3, 4), generator=NOISE).to(dtype) for dtype in STORAGE_DTYPES.values()}
    some |= {name: torch.randint(0, 2, (5,), generator=NOISE).to(getattr(torch, name)) for name in NARROW}
    whole = torch.randn(6, 8, generator=NOISE)
    views = {"turned": whole.t(), "row": whole[2], "part": whole[1:3, ::2], "number": torch.tensor(3.0)}
    return some | views | {"empty": torch.zeros(0, 3), "trained": torch.nn.Parameter(whole)}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("container", [dict, collections.OrderedDict])
def test_it_is_what_pytorch_reads(tmp_path, protocol, container):
    kept = tensors()
    torch.save({"state": container(kept), **SETTINGS}, tmp_path / "x.pt", pickle_protocol=protocol)
    read = read_torch(tmp_path / "x.pt")
    theirs = torch.load(tmp_path / "x.pt", weights_only=False)  # ours; the restricted one lacks protocol 4
    assert {name: read[name] for name in SETTINGS} == SETTINGS
    for name, tensor in theirs["state"].items():
        ours = read["state"][name]
        assert (ours.dtype, ours.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(ours.double(), tensor.detach().double())


def test_a_modules_state_dictionary_with_its_notes_is_read(tmp_path):
    module = Sequential(Linear(2, 3), LayerNorm(3))
    torch.save(module.state_dict(), tmp_path / "x.pt")
    assert read_torch(tmp_path / "x.pt").keys() == module.state_dict().keys()


class Calls:
    """Unpickled, it calls something."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


ATTACKS = {
    "memory": Calls(bytearray, 2**31),
    "command": Calls(os.system, "touch ran"),
    "code": Calls(exec, "open('ran', 'w')"),
    "attribute": Calls(getattr, "x", "load"),
    "zeros": Calls(torch.zeros, 2**31),
    "set": {1, 2},
    "bytes": b"x" * 100,
    "complex": 1j,
    "device": torch.device("cpu"),
    "generator": Calls(range, 10**9),
    "path": Path("x"),
    "tuple keys": {(1, 2): 3},
    "sparse": torch.eye(3).to_sparse(),
    "object": Linear(1, 1),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_is_neither_tensor_nor_setting_is_refused_and_nothing_of_it_is_made(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.ones(2), "y": ATTACKS[kind]}, "x.pt")
    tracemalloc.start()
    with pytest.raises(
        CheckpointError, match=r"holds more than tensors.*nothing of it was run.*as safetensors"
    ) as error:
        read_torch(Path("x.pt"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    assert not Path("ran").exists()
    assert len(str(error.value)) < 500


def archive(path: Path, program: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name, content in {"data.pkl": program, **entries}.items():
            written.writestr(f"x/{name}", content)
    return path


def call(*arguments: object) -> bytes:
    """The program of one `_rebuild_tensor_v2` on a storage of four float32 numbers."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    rest = b"".join(pickle.dumps(value, 2)[2:-1] for value in arguments)
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tRs."


def test_a_handmade_program_of_one_tensor_is_read(tmp_path):
    path = archive(
        tmp_path / "x.pt", call(1, (3,), (1,), False, None), **{"data/0": torch.arange(4.0).numpy().tobytes()}
    )
    assert torch.equal(read_torch(path)["a"], torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "program",
    [
        call(0, (5,), (1,), False, None),
        call(2, (3,), (1,), False, None),
        call(0, (2, 2), (1,), False, None),
        call(-1, (2,), (1,), False, None),
        call(0, (-2,), (1,), False, None),
        call(0, (2,), (-1,), False, None),
        call(0, (2**40, 2**40), (0, 0), False, None),
        call(0, (10**600,), (0,), False, None),
        call(10**600, (1,), (0,), False, None),
        call(0, (0, 2**60), (1, 1), False, None),
        call(0, (1,) * 100, (1,) * 100, False, None),
        call("x", (2,), (1,), False, None),
        call(),
        b"\x80\x02}" + b"]" * (MAX_CONTAINERS + 1) + b".",
        b"\x80\x02" + b"}0" * 10 + b".",
        b"\x80\x02X\xff\xff\xff\xffab.",
        b"\x80\x02" + b"(" * (MAX_CONTAINERS + 1) + b".",
        b"\x80\x02N" + b"\x94" * (MAX_CONTAINERS + 1) + b".",
        b"\x80\x02]" + b"q\x00]h\x00h\x00e" * 100 + b".",
        b"\x80\x02}\x85\x85K\x01s.",
        b"\x80\x02h\x07.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02K\x01Q.",
        b"ctorch",
        b"",
        b".",
    ],
)
def test_a_program_that_lies_is_refused_at_once(tmp_path, program):
    path = archive(tmp_path / "x.pt", program, **{"data/0": bytes(16)})
    start = time.process_time()
    with pytest.raises(CheckpointError):
        read_torch(path)
    assert time.process_time() - start < 1.0


def test_a_list_of_a_million_entries_is_refused_before_it_is_read(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    whole = bytearray((tmp_path / "x.pt").read_bytes())
    at = whole.rindex(b"PK\x05\x06")
    whole[at + 12 : at + 16] = (50_000_000).to_bytes(4, "little")
    (tmp_path / "x.pt").write_bytes(bytes(60_000_000) + whole)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="far more than a LoRA"):
        read_torch(tmp_path / "x.pt")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_storage_at_an_odd_place_is_copied_once_however_often_it_is_named(tmp_path):
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ\x00\x00\x01\x00tQ"
    one = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x01\x85K\x01\x85\x89NtR"
    for shift in range(8):
        path = archive(
            tmp_path / "x.pt", b"\x80\x02](" + one * 200 + b"e.", **{"y" * (shift + 1): b"", "data/0": bytes(262144)}
        )
        read = read_torch(path)
        assert len({tensor.untyped_storage().data_ptr() for tensor in read}) == 1
        assert float(torch.stack(read).abs().sum()) == 0


def test_doubling_lists_stay_as_small_as_the_file(tmp_path):
    """Each list holds the one before twice: 2**200 numbers, were it ever walked."""
    program = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(200)) + b"."
    assert len(read_torch(archive(tmp_path / "x.pt", program))) == 2


@pytest.mark.parametrize("name", ["lora.safetensors", "lora.pt", "lora.zip"])
def test_a_zip_of_files_is_told_to_be_unpacked_and_nothing_else(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as made:
        for level in ("high", "low", "readme", "preview"):
            made.writestr(f"My LoRA/{level}.safetensors", bytes(1000))
    with pytest.raises(CheckpointError) as refused:
        read_lora(tmp_path / name)
    assert str(refused.value).endswith(
        "is a zip archive ('My LoRA/high.safetensors', 'My LoRA/low.safetensors', "
        "'My LoRA/readme.safetensors', ...). Unpack it"
    )


@pytest.mark.parametrize("name", ["model", "generator", "module", "state_dict", "lora_state_dict"])
def test_tensors_one_level_deeper_are_found_where_there_is_one_such(tmp_path, name):
    torch.save({name: {"a": torch.ones(2)}, "step": 7, "rank": 3}, tmp_path / "x.pt")
    assert list(read_lora(tmp_path / "x.pt").tensors) == ["a"]
    torch.save({"generator": {"a": torch.ones(2)}, "critic": {"a": torch.ones(2)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="'generator' is dict, not a tensor"):
        read_lora(tmp_path / "x.pt")
