"""Mutated weight files through everything that reads them: tensors, or a short refusal of ours, and nothing else."""

import json
import random
import re
from pathlib import Path

import pytest

from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.load import assign
from mova_core.checkpoint.quantization import dequantized
from mova_core.checkpoint.source import audio_vae, from_files, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE, HIGH
from mova_core.errors import MovaError
from mova_core.model.mova import Mova
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint

FILES = 45
WORDS = (
    *("9" * 5000, "99999", "-1", "x" * 3000, "{", "[", "null", "\\u0000", "\\ud800", "F8_E4M3", "I8", "F4", "C64"),
    *("comfy_quant", "weight_scale", "scale_weight", "weight_scale_inv", "weight_s_rel", "qweight", "weight_g"),
    *("video_dit", "fusion_blocks", "remaining_video_blocks", "blocks", "0", "65536", "encoder", "__metadata__"),
)
SAID = (
    "{}",
    "[]",
    "9" * 5000,
    '{"layers": {"blocks.0.ffn.0": {"format": "nvfp4"}}}',
    '{"a": {"b": "' + "y" * 90_000 + '"}}',
)
HEADERS = (
    "mova_config",
    "mova_experts",
    "mova_model",
    "mova",
    "prism.config",
    "prism.component",
    "_quantization_metadata",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mutated")
    tiny = write_tiny_checkpoint(folder / "tiny")
    quantised = [convert(tiny, folder / p, precision=p, parts=["merged"])[0].path for p in ("int8_convrot", "fp8")]
    return [*quantised, convert(tiny, folder / "vae", parts=["audio_vae"])[0].path]


def by_token(header: bytes, draw: random.Random) -> bytes:
    tokens = re.findall(rb'"[^"]*"|-?\d+|.', header)
    for _ in range(draw.choice((1, 1, 3))):
        word = draw.choice(WORDS).encode()
        tokens[draw.randrange(len(tokens))] = draw.choice((word, b'"' + word + b'"', b"", draw.choice(tokens)))
    return b"".join(tokens)


def by_name(header: bytes, draw: random.Random) -> bytes:
    entries = json.loads(header)
    for key in draw.sample([key for key in entries if key != "__metadata__"], draw.choice((1, 4))):
        entry, parts = entries.pop(key), key.split(".")
        if draw.random() < 0.3:
            draw.shuffle(entry["shape"])
        else:
            parts[draw.randrange(len(parts))] = draw.choice(WORDS)
        entries[".".join(parts)] = entry
    if draw.random() < 0.4:
        entries["__metadata__"][draw.choice(HEADERS)] = draw.choice((*SAID, *WORDS))
    return json.dumps(entries).encode()


def test_mutated_files_are_read_or_refused_in_short(whole, tmp_path):
    draw, taken, refused, path = random.Random(0), 0, 0, tmp_path / "mutated.safetensors"
    for n in range(FILES):
        data = draw.choice(whole).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = (by_token, by_name, by_name)[n % 3](data[8:end], draw)
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
        try:
            if b'"decoder.model.0.bias"' in data[:end]:
                audio_vae(path)
            else:
                source = from_files(path)
                tensors = dequantized(joint_names(source.tensors(HIGH, AUDIO, BRIDGE)))
                assign(Mova(source.model, device="meta"), tensors, "mutated")
            taken += 1
        except MovaError as error:
            refused += 1
            assert len(str(error)) < 1200  # noqa: PT017, both outcomes are right
    assert refused > FILES // 2
    assert taken > 3
