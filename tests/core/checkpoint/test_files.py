"""Damaged, hostile and mistaken files: every one is refused at once, by name, with what to do."""

import json
import os
import pickle
import random
import re
import time
import tracemalloc
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from mova_core.checkpoint import files
from mova_core.checkpoint.files import (
    check_header,
    component_files,
    component_header,
    component_tensors,
    read_header,
    read_json,
    read_tensors,
)
from mova_core.checkpoint.load import load_joint
from mova_core.checkpoint.source import from_folder
from mova_core.config import MOVA_SCHEDULER, MovaConfig
from mova_core.errors import MovaError
from tests.fixtures.tiny_model import (
    SCHEDULER,
    TINY,
    WEIGHTS,
    published_weights,
    split,
    tiny_config,
    tiny_weights,
    write_published,
)

ADVICE = r"[Dd]ownload|[Cc]hoose|Check|newer version"
SECONDS = 1.0
LAYERS_2 = "diffusion_pytorch_model-00002-of-00002.safetensors"


@contextmanager
def refused(*says: str):
    """Within a second of work, with a short error of ours that says these things (patterns) and what to do."""
    start = time.process_time()
    with pytest.raises(MovaError) as caught:
        yield
    assert time.process_time() - start < SECONDS
    for pattern in (*says, ADVICE):
        assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in {str(caught.value)!r}"
    assert len(str(caught.value)) < 1000


def entry(shape: object, offsets: object, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file_of(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "weights.safetensors"


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, Tensor]]:
    return published_weights()


@pytest.fixture
def folder(tmp_path, weights) -> Path:
    return write_published(tmp_path / "mova", weights=weights)


# one file


def test_a_header_says_what_the_file_holds_and_tensors_come_back_as_saved(path):
    saved = {"a": torch.arange(6.0).view(2, 3).bfloat16(), "b": torch.tensor(7), "c": torch.zeros(0, 4)}
    save_file(saved, path, metadata={"k": "v"})
    header = read_header(path)
    assert header.shapes == {"a": (2, 3), "b": (), "c": (0, 4)}
    assert header.dtypes == {"a": "BF16", "b": "I64", "c": "F32"}
    assert header.metadata == {"k": "v"}
    assert all(torch.equal(read_tensors(path)[key], tensor) for key, tensor in saved.items())


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 60, 0.5, -1])
def test_every_truncation_of_a_file_is_refused(path, kept):
    save_file({"a": torch.ones(40), "b": torch.ones(3, 5)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with refused(re.escape(str(path))):
        read_tensors(path)


def test_a_file_that_goes_on_is_refused(path):
    save_file({"a": torch.ones(4)}, path)
    path.write_bytes(path.read_bytes() + b"\0")
    with refused(re.escape(str(path)), "17"):
        read_header(path)


def test_missing_files_folders_and_pipes_are_refused(path):
    for read in (read_header, read_tensors, read_json):
        with refused(re.escape(str(path)), "No such file"):
            read(path)
    path.mkdir()
    for read in (read_header, read_json):
        with refused(re.escape(str(path)), "not a file"):
            read(path)
    path.rmdir()
    os.mkfifo(path)
    for read in (read_header, read_json):
        with refused(re.escape(str(path)), "not a file"):
            read(path)


@pytest.mark.parametrize("new", [True, False])
def test_pickled_weights_are_named_as_such_and_not_loaded(path, new):
    class Bomb:
        def __reduce__(self):
            return os.abort, ()

    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
    with refused("pickled", "safetensors version"):
        read_tensors(path)
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps(Bomb(), protocol))
        with refused("pickled"):
            read_tensors(path)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x0580])
def test_a_header_as_long_as_a_pickle_looks_is_still_a_header(path, length):
    text = json.dumps({"a": entry([3], [0, 3])}).encode().ljust(length)
    path.write_bytes(file_of(text, b"abc"))
    assert read_tensors(path)["a"].tolist() == list(b"abc")


@pytest.mark.parametrize("length", [0, 1, 2**62, 2**63, 2**64 - 1, 100, files.MAX_HEADER + 1])
def test_a_header_longer_than_its_file_is_refused(path, length):
    path.write_bytes(length.to_bytes(8, "little") + b'{"a":1}'.ljust(90))
    with refused(re.escape(str(path)), str(length)):
        read_header(path)


def test_a_length_of_the_other_endianness_is_refused(path):
    text = json.dumps({"a": entry([3], [0, 3])}).encode()
    path.write_bytes(len(text).to_bytes(8, "big") + text + b"abc")
    with refused(re.escape(str(path))):
        read_header(path)


def test_a_page_saved_in_place_of_a_file_is_refused(path):
    for page in (b"<!DOCTYPE html><html>Not found</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"):
        path.write_bytes(page)
        with refused(re.escape(str(path))):
            read_header(path)


OK = entry([2], [0, 2])
HEADERS = {
    "not JSON": b'{"a":',
    "empty": b"  ",
    "NaN": b'{"a": NaN}',
    "a list": b"[1, 2]",
    "a number": b"12",
    "text": b'"abc"',
    "null": b"null",
    "not UTF-8": b'{"\xff":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "UTF-16": json.dumps({"a": OK}).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps({"a": OK}).encode(),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 60_000,
    "the name twice": b'{"a":%(o)s,"a":%(o)s}' % {b"o": json.dumps(OK).encode()},
    "an entry twice": b'{"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
}
ENTRIES = {
    "a gap": {"a": OK, "b": entry([1], [3, 4])},
    "a gap before": {"a": entry([2], [1, 3])},
    "an overlap": {"a": OK, "b": entry([2], [1, 3])},
    "one place twice": {"a": OK, "b": OK},
    "too few bytes": {"a": entry([3], [0, 2])},
    "too many bytes": {"a": entry([1], [0, 2])},
    "beyond the end": {"a": entry([200], [0, 200])},
    "backwards": {"a": entry([2], [2, 0])},
    "a negative shape": {"a": entry([-1, -2], [0, 2])},
    "a negative offset": {"a": entry([2], [-2, 0])},
    "a float shape": {"a": entry([2.0], [0, 2])},
    "a true shape": {"a": entry([True, 2], [0, 2])},
    "a text shape": {"a": entry("2", [0, 2])},
    "no shape": {"a": {"dtype": "U8", "data_offsets": [0, 2]}},
    "an empty text shape": {"a": entry("", [0, 1])},
    "a shape of objects": {"a": entry([{}], [0, 2])},
    "a huge shape": {"a": entry([2**62, 4, 4], [0, 2])},
    "a shape beyond 64 bits": {"a": entry([10**30, 0], [0, 0])},
    "a long shape": {"a": entry([1] * 100 + [2], [0, 2])},
    "very long numbers": {"a": entry([10**4000] * 500, [0, 2])},
    "an unknown type": {"a": entry([2], [0, 2], "X9")},
    "a listed type": {"a": entry([2], [0, 2], ["U8"])},
    "no type": {"a": entry([2], [0, 2], None)},
    "three offsets": {"a": entry([2], [0, 2, 4])},
    "offsets as an object": {"a": entry([2], {"0": 0, "2": 2})},
    "a number for an entry": {"a": 5},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": OK},
    "metadata as a list": {"__metadata__": ["a"], "a": OK},
    "a very long name": {"x" * 100_000: entry([3], [0, 2])},
}


@pytest.mark.parametrize("what", [*HEADERS, *ENTRIES])
def test_a_header_that_does_not_describe_its_file_is_refused(path, what):
    text = HEADERS[what] if what in HEADERS else json.dumps(ENTRIES[what]).encode()
    path.write_bytes(file_of(text, b"ab"))
    with refused(re.escape(str(path)), "Delete it"):
        read_header(path)


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "../../etc", ""])
def test_strange_names_are_read_or_refused_and_lead_nowhere(path, name):
    path.write_bytes(file_of(json.dumps({name: OK}).encode(), b"ab"))
    try:
        assert list(read_tensors(path)) == [name]
    except MovaError as error:
        assert str(path) in str(error)  # noqa: PT017, both outcomes are right


def many(piece: bytes, count: int, end: bytes) -> bytes:
    return b"{" + b",".join(b'"%d":' % n + piece for n in range(count)) + end


EMPTY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
BOMBS = {
    "a million keys": lambda: many(EMPTY, 1_000_000, b"}"),
    "too many keys": lambda: many(EMPTY, files.MAX_TENSORS + 10_000, b"}"),
    "empty entries": lambda: many(b"{}", 500_000, b"}"),
    "numbers": lambda: many(b"1", 400_000, b"}"),
    "one list": lambda: b'{"a":[' + b"1," * 2_000_000 + b"1]}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_header_of_very_many_parts_is_refused_before_it_takes_much_memory(path, bomb):
    path.write_bytes(file_of(BOMBS[bomb]()))
    with refused(re.escape(str(path))):
        read_header(path)
    tracemalloc.start()  # several times slower
    try:
        with pytest.raises(MovaError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_what_safetensors_itself_refuses_is_refused_in_our_words(path, monkeypatch):
    path.write_bytes(file_of(json.dumps({"a": entry([2], [0, 2], "X9")}).encode(), b"ab"))
    monkeypatch.setattr(files, "read_header", lambda path: None)  # as if it had changed in between
    with refused(re.escape(str(path)), "Delete it"):
        read_tensors(path)


def test_twenty_thousand_mutated_headers_are_taken_whole_or_refused_in_short(path):
    good = {"__metadata__": {"format": "pt"}, "a": entry([2, 3], [0, 12], "BF16"), "b": entry([], [12, 16], "F32")}
    token = re.compile(rb'"[^"]*"|-?\d+|.', re.DOTALL)
    whole = token.findall(json.dumps(good, separators=(",", ":")).encode())
    extra = b'" { } [ ] , : - 0 1 -1 1e9 0.5 16 99999999999999999999 null true NaN "" "a" "U8" \xff'.split(b" ")
    draw, accepted, reasons = random.Random(0), 0, set()
    for n in range(20_000):
        tokens = list(whole)
        for _ in range(draw.choice((1, 1, 2, 3))):
            at, removed = draw.randrange(len(tokens)), draw.choice((0, 1, 1, 1, 9))
            tokens[at : at + removed] = draw.choice(
                ([], [draw.choice(extra)], [draw.choice(extra)], [draw.choice(whole)])
            )
        content = file_of(b"".join(tokens), bytes(16))
        try:  # the same two checks on bytes; the file itself every twentieth time
            check_header(b"".join(tokens), 16)
            held = dict(safetensors.deserialize(content))
        except (ValueError, safetensors.SafetensorError) as error:
            held = None
            reasons.add(re.sub(r"\d+|`.*", "", str(error))[:60])
        if n % 20 == 0:
            path.write_bytes(content)
            with nullcontext() if held is not None else refused(re.escape(str(path))):
                assert read_tensors(path).keys() == held.keys()
        if held is not None:
            accepted += 1
            assert sum(len(entry["data"]) for entry in held.values()) == 16
    assert 100 < accepted < 10_000  # it is the checks that are tried, not only the JSON parser
    assert len(reasons) > 8


# JSON


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"3", b'"a"', b"\xff\xfe", b"[" * 100_000, b'{"a": "\xc3"}'])
def test_what_is_not_a_json_object_is_refused(path, text):
    path.write_bytes(text)
    with refused(re.escape(str(path))):
        read_json(path)


def test_a_very_large_configuration_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(2**40)
    with refused("too large"):
        read_json(path)


# one component


def sharded(folder: Path, names: dict[str, str], tensors: dict[str, Tensor]) -> None:
    folder.mkdir()
    for name in set(names.values()):
        if re.fullmatch(r"[\w.-]{3,99}", name, re.ASCII):
            save_file({key: tensors[key] for key in names if names[key] == name}, folder / name)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))


ONE, TWO = {"a": torch.ones(2), "b": torch.zeros(3)}, {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}


def test_shards_are_one_component(tmp_path):
    sharded(tmp_path / "x", TWO, ONE)
    assert [p.name for p in component_files(tmp_path / "x")] == list(TWO.values())
    assert component_header(tmp_path / "x").shapes == {"a": (2,), "b": (3,)}
    assert {k: v.tolist() for k, v in component_tensors(tmp_path / "x").items()} == {
        k: v.tolist() for k, v in ONE.items()
    }


def test_shards_may_be_links_as_in_a_download_cache(tmp_path):
    sharded(tmp_path / "x", TWO, ONE)
    for name in TWO.values():
        (tmp_path / "x" / name).rename(tmp_path / f"blob-{name}")
        (tmp_path / "x" / name).symlink_to(tmp_path / f"blob-{name}")
    assert component_header(tmp_path / "x").shapes == {"a": (2,), "b": (3,)}


def test_a_missing_shard_is_named(tmp_path):
    sharded(tmp_path / "x", TWO, ONE)
    (tmp_path / "x" / TWO["b"]).unlink()
    with refused(re.escape(str(tmp_path / "x")), TWO["b"], "1 of 2", "Resume"):
        component_header(tmp_path / "x")


def test_very_many_missing_shards_are_counted_not_listed(tmp_path):
    sharded(tmp_path / "x", {}, {})
    names = {f"k{n}": f"m-{n}.safetensors" for n in range(20_000)}
    (tmp_path / "x" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))
    with refused("lacks 20000 of 20000"):
        component_files(tmp_path / "x")


@pytest.mark.parametrize(
    "name",
    [
        *("../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "..\\x", "a\\b", "C:x", "\\\\host\\x"),
        *("a\0b", "x" * 5000, "a\nb", "~", "\ud800", "%2e%2e/x", ".hidden"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, name):
    sharded(tmp_path / "x", {"a": name}, ONE)
    with refused(re.escape(str(tmp_path / "x")), "index"):
        component_tensors(tmp_path / "x")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"a": 5}}])
def test_an_index_without_a_map_is_refused(tmp_path, index):
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with refused("weight_map", re.escape(str(tmp_path))):
        component_files(tmp_path)


def test_one_tensor_in_two_shards_is_refused(tmp_path):
    sharded(tmp_path / "x", TWO, ONE)
    save_file(ONE, tmp_path / "x" / TWO["b"])
    with refused(TWO["b"], "a a second time"):
        component_tensors(tmp_path / "x")


def test_a_folder_of_none_or_several_weights_is_refused(tmp_path):
    with refused(re.escape(str(tmp_path)), "nothing"):
        component_files(tmp_path)
    for name in ("a", "b"):
        save_file(ONE, tmp_path / f"{name}.safetensors")
    with refused("a.safetensors, b.safetensors"):
        component_files(tmp_path)
    with refused(re.escape(str(tmp_path / "no")), "missing"):
        component_files(tmp_path / "no")


def test_a_folder_that_is_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "x")
    with refused(re.escape(str(tmp_path / "x"))):
        component_files(tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "m.safetensors").symlink_to(tmp_path / "y" / "m.safetensors")
    with refused(re.escape(str(tmp_path / "y"))):
        component_header(tmp_path / "y")


def test_headers_are_checked_before_anything_is_opened(tmp_path):
    sharded(tmp_path / "x", TWO, ONE)
    (tmp_path / "x" / TWO["b"]).write_bytes(b"")
    with refused(TWO["b"]):
        component_tensors(tmp_path / "x", read=lambda path: pytest.fail("opened"))


# the folder


def test_a_published_folder_is_inspected_and_loaded(folder, weights):
    found = from_folder(folder)
    assert found.model == TINY
    assert found.scheduler == SCHEDULER
    for expert, component in (("high", "video_dit"), ("low", "video_dit_2")):
        parts = split(load_joint(str(folder), expert).state_dict())
        for ours, theirs in (("video_dit", component), ("audio_dit", "audio_dit"), ("dual_tower_bridge",) * 2):
            assert parts[ours].keys() == weights[theirs].keys()
            assert all(torch.equal(parts[ours][key], weights[theirs][key]) for key in parts[ours])


def test_sizes_come_from_the_weights_where_no_configuration_says_them(tmp_path):
    config = tiny_config(head_width=128, video_layers=2, audio_layers=1)
    folder = write_published(tmp_path / "mova", config)
    for name in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"):
        (folder / name / "config.json").unlink()
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert from_folder(folder).model == config
    assert from_folder(folder).scheduler == MOVA_SCHEDULER


def test_the_loaded_weights_are_the_file_where_the_dtype_is_the_same(folder):
    model = load_joint(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_another_expert_is_refused(folder):
    with refused("middle", "high"):
        load_joint(folder, "middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"])
def test_a_missing_component_is_named(folder, name):
    (folder / name).rename(folder / "elsewhere")
    with refused(re.escape(str(folder)), f"lacks {name}"):
        from_folder(folder)


def test_no_folder_is_refused(tmp_path):
    for path in (tmp_path / "no", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with refused("not a folder"):
            from_folder(path)


def test_wan_is_recognised_by_what_it_lacks(folder, tmp_path):
    for name in ("audio_dit", "dual_tower_bridge"):
        (folder / name).rename(tmp_path / name)
    with refused("audio_dit, dual_tower_bridge", "Wan 2.2"):
        from_folder(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MovaError) as caught:
        from_folder(empty)
    assert "Wan" not in str(caught.value)


def put(folder: Path, name: str, weights: dict[str, Tensor], config: Path | None = None) -> None:
    """Other weights in a slot, with the configuration that belongs to them, if one is given."""
    save_file(weights, folder / name / WEIGHTS)
    if config:
        (folder / name / "config.json").write_bytes(config.read_bytes())


@pytest.mark.parametrize("slot", ["video_dit", "audio_dit", "dual_tower_bridge"])
@pytest.mark.parametrize("other", ["video_dit", "audio_dit", "dual_tower_bridge"])
@pytest.mark.parametrize("configured", ["own", "slot's", "none"])
def test_the_wrong_model_in_a_slot_is_refused(folder, weights, slot, other, configured):
    for name in [slot, "video_dit_2"] if slot == "video_dit" else [slot]:
        put(folder, name, weights[other], folder / other / "config.json" if configured == "own" else None)
        if configured == "none":
            (folder / name / "config.json").unlink()
    if slot == other:
        if configured != "none":  # heads of 12 cannot be seen in the weights
            from_folder(folder)
        return
    with refused(re.escape(str(folder))):
        from_folder(folder)


def test_experts_of_different_sizes_are_refused(folder, weights):
    fewer = tiny_config(video_layers=2)
    write_published(folder / "other", fewer)
    put(folder, "video_dit_2", split(tiny_weights(fewer))["video_dit"], folder / "other" / "video_dit" / "config.json")
    with refused(re.escape(str(folder)), r"video_dit and .*video_dit_2 differ"):
        from_folder(folder)


def test_a_configuration_of_another_size_than_its_weights_is_refused(folder):
    for name, key, value in (
        ("video_dit", "num_layers", 10**9),
        ("video_dit", "ffn_dim", 41),
        ("audio_dit", "dim", 48),
        ("audio_dit", "text_dim", 21),
        ("dual_tower_bridge", "audio_layers", 1),
        ("dual_tower_bridge", "audio_hidden_dim", 48),
    ):
        config = folder / name / "config.json"
        kept = config.read_text()
        config.write_text(json.dumps(json.loads(kept) | {key: value}))
        with refused(re.escape(str(config)), str(value)):
            load_joint(folder)
        config.write_text(kept)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_weight_too_few_too_many_or_of_another_shape_is_named(folder, weights, change):
    key = "blocks.1.cross_attn.norm_q.weight"
    given = weights["audio_dit"]
    changes = {"unknown": {f"{key}_spread": torch.ones(1)}, "shape": {key: torch.ones(5)}, "missing": {}}
    put(folder, "audio_dit", {k: v for k, v in given.items() if change != "missing" or k != key} | changes[change])
    with refused(re.escape(str(folder)), re.escape(f"audio_dit.{key}")):
        load_joint(folder)


def test_towers_and_bridge_of_different_models_are_refused(folder, tmp_path):
    other = tiny_config(head_width=24)
    write_published(tmp_path / "other", other)
    (folder / "dual_tower_bridge").rename(tmp_path / "kept")
    (tmp_path / "other" / "dual_tower_bridge").rename(folder / "dual_tower_bridge")
    with refused(re.escape(str(folder)), "bridge", "96"):
        from_folder(folder)


def test_damage_anywhere_in_a_folder_is_found_by_inspection(folder):
    for file in sorted(folder.rglob("*")):
        if file.suffix not in (".safetensors", ".json") or file.name == "model_index.json":
            continue
        kept = file.read_bytes()
        file.write_bytes(kept[: len(kept) // 2])
        with refused(re.escape(str(file))):
            from_folder(folder)
        file.write_bytes(kept)
    assert isinstance(from_folder(folder).model, MovaConfig)
