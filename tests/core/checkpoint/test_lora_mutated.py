"""Mutated LoRA files, seeded: each is read whole, or refused by this package in a message that fits a screen."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mova_core.checkpoint.lora import choose, parse
from mova_core.checkpoint.lora_files import read_lora
from mova_core.errors import CheckpointError
from mova_core.model.mova import Mova
from tests.fixtures.tiny_model import TINY

SHAPES = {name: tuple(tensor.shape) for name, tensor in Mova(TINY, device="meta").state_dict().items()}
LAYERS = ("blocks.0.self_attn.q", "audio_dit.blocks.1.ffn.0", "blocks.1.ffn.2")
HUGE = (0, -1, 2**31, 2**62, 2**63 - 1, 2**64, 10**30, 1.5, "7", None, [], True)
ALPHA = json.dumps({"transformer.r": 2, "transformer.lora_alpha": 4, "transformer.alpha_pattern": {"q": 8}})


def tensors() -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    file = {}
    for layer in LAYERS:
        outputs, inputs = SHAPES[f"{layer}.weight"]
        file[f"{layer}.lora_A.weight"] = torch.randn(2, inputs, generator=noise)
        file[f"{layer}.lora_B.weight"] = torch.randn(outputs, 2, generator=noise)
        file[f"{layer}.lora_magnitude_vector"] = torch.rand(outputs, generator=noise)
        file[f"{layer}.alpha"] = torch.tensor(2.0)
    outputs, inputs = SHAPES["blocks.0.ffn.0.weight"]
    return file | {
        "blocks.0.ffn.0.lokr_w1": torch.ones(2, 2),
        "blocks.0.ffn.0.lokr_w2": torch.ones(outputs // 2, inputs // 2),
    }


def bytes_changed(whole: bytes, chance: random.Random, of: int) -> bytes:
    """A few bytes of the first `of` changed, taken out, doubled, or the end cut off."""
    content = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(of, len(content)) or 1)
        match chance.randrange(5):
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del content[at : at + chance.randint(1, 9)]
            case 2:
                content[at:at] = content[at : at + chance.randint(1, 30)]
            case 3:
                content[at : at + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7))
            case _ if chance.random() < 0.2:
                del content[at:]
    return bytes(content)


def header_changed(whole: bytes, chance: random.Random) -> bytes:
    """A header that is JSON and says something absurd."""
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(
            [key for key, entry in header.items() if isinstance(entry, dict) and "data_offsets" in entry]
        )
        entry = header[name]
        match chance.randrange(8):
            case 0:
                entry["shape"] = [chance.choice(HUGE) for _ in range(chance.randrange(6))]
            case 1:
                shape = [0, *(2**62 for _ in range(chance.randint(1, 15)))]
                header[f"{name}.diff"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
            case 2:
                entry["data_offsets"] = [chance.choice(HUGE), chance.choice(HUGE)]
            case 3:
                entry["dtype"] = chance.choice(("F4", "F8_E8M0", "C64", "I64", "BOOL", "", 7, "F" * 5000))
            case 4:
                digits = chance.choice(("9" * 5000, "-1", "\u0663", "1e9", "\n", "\U0001f600" * 200))
                header[name.replace("0", digits).replace("1", digits)] = header.pop(name)
            case 5:
                values = ("nan", "1e400", "9" * 5000, ALPHA[:40], "[" * 5000, '{"lora_alpha": NaN}', '{"r": 0}')
                header["__metadata__"] = {
                    chance.choice(("alpha", "lora_adapter_metadata", "x" * 5000)): chance.choice(values)
                }
            case 6:
                header["__metadata__"] = chance.choice(HUGE)
            case _:
                header[name] = chance.choice((*HUGE, {}, {"shape": 1}))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def mutated(tmp_path: Path, count: int) -> Iterator[bytes]:
    chance = random.Random(0)
    plain = save(tensors(), metadata={"lora_adapter_metadata": ALPHA})
    torch.save({"lora_state_dict": tensors(), "rank": 2, "alpha": 4.0}, tmp_path / "whole.pt")
    pickled = (tmp_path / "whole.pt").read_bytes()
    start = pickled.index(b"\x80\x02}")
    for _ in range(count):
        yield bytes_changed(plain, chance, 2000)
        yield header_changed(plain, chance)
        yield (
            pickled[:start]
            + bytes_changed(pickled[start : start + 2000], chance, 2000)[:2000].ljust(2000, b".")
            + pickled[start + 2000 :]
        )
        yield bytes_changed(pickled, chance, len(pickled))


def refusal(path: Path) -> str | None:
    """The message with which a file is refused; None where it is read."""
    try:
        file = read_lora(path)
        choose(parse(file.tensors, SHAPES, name=str(path), scales=file.scales), "auto", path.name)
    except CheckpointError as error:
        return str(error)
    return None


def test_a_mutated_file_is_read_or_refused_in_our_own_words(tmp_path):
    path, messages = tmp_path / "lora.safetensors", []
    for content in mutated(tmp_path, 150):
        path.write_bytes(content)
        messages.append(refusal(path))
    refused = [message for message in messages if message is not None]
    assert len(messages) - len(refused) > 30
    assert len(refused) > 200
    assert max(map(len, refused)) < 1500
    assert not [message for message in refused if "\n" in message]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files in folders")
@pytest.mark.parametrize("linked", [False, True])
def test_pipes_devices_and_folders_are_no_files_and_nobody_waits_for_them(tmp_path, linked):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), Path("/dev/null")):
        (tmp_path / "link.safetensors").unlink(missing_ok=True)
        (tmp_path / "link.safetensors").symlink_to(path)
        with pytest.raises(CheckpointError, match="cannot be read: it is not a file"):
            read_lora(tmp_path / "link.safetensors" if linked else path)


def test_a_link_to_itself_is_no_file(tmp_path):
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_lora(tmp_path / "loop.pt")
