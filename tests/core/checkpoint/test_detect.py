"""Configuration from key names and shapes, and what a file is called that is something else."""

import math
import random
import re

import pytest

from mova_core.audio_vae.codec import AudioVAE
from mova_core.checkpoint import detect
from mova_core.config import MOVA, MOVA_AUDIO_VAE
from mova_core.errors import CheckpointError
from mova_core.model.mova import Mova
from tests.fixtures.tiny_model import split, tiny_config
from tests.golden import key_table

WHERE = "somewhere/weights.safetensors"
Shapes = dict[str, tuple[int, ...]]


def shapes_of(module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def parts_of(config) -> dict[str, Shapes]:
    return {name: {k: tuple(v.shape) for k, v in part.items()} for name, part in split(_meta(config)).items()}


def _meta(config):
    return Mova(config, device="meta").state_dict()


@pytest.mark.parametrize("config", [MOVA, tiny_config(head_width=128)], ids=["published", "tiny"])
def test_shapes_say_what_the_configuration_says_for_heads_of_128(config):
    parts = parts_of(config)
    assert detect.tower_config(parts["video_dit"], WHERE) == config.video
    assert detect.tower_config(parts["audio_dit"], WHERE) == config.audio
    assert detect.bridge_config(parts["dual_tower_bridge"], WHERE) == config.bridge


def test_other_heads_are_taken_from_who_knows_them():
    config = tiny_config()
    parts = parts_of(config)
    assert detect.tower_config(parts["video_dit"], WHERE, heads=4) == config.video
    assert detect.bridge_config(parts["dual_tower_bridge"], WHERE, head_width=12) == config.bridge


def test_shapes_say_the_sizes_of_the_codec():
    assert detect.audio_vae_config(shapes_of(AudioVAE(MOVA_AUDIO_VAE, device="meta")), WHERE) == MOVA_AUDIO_VAE


@pytest.mark.parametrize("component", ["video_dit", "audio_dit", "dual_tower_bridge"])
def test_the_full_size_model_has_exactly_the_published_keys_and_shapes(component):
    table = key_table({"video_dit": "video_dit (== video_dit_2)"}.get(component, component))
    assert parts_of(MOVA)[component] == table
    assert (
        sum(math.prod(shape) for shape in table.values())
        == {
            "video_dit": 14_288_901_184,
            "audio_dit": 1_419_193_472,
            "dual_tower_bridge": 2_659_737_600,
        }[component]
    )


def wan(channels: int, patch: tuple[int, ...] = (1, 2, 2)) -> Shapes:
    return parts_of(tiny_config())["video_dit"] | {"patch_embedding.weight": (48, channels, *patch)}


FILES: list[tuple[Shapes, str]] = [
    (parts_of(tiny_config())["dual_tower_bridge"], "the MOVA bridge"),
    (parts_of(tiny_config())["audio_dit"], "the MOVA audio tower"),
    (wan(36), "image-to-video expert, of MOVA or Wan 2.2"),
    (wan(16), "text-to-video"),
    (wan(52), "52 input channels"),
    (wan(36) | {"blocks.0.cross_attn.k_img.weight": (5, 5)}, "Wan 2.1 image-to-video"),
    (wan(36) | {"vace_blocks.0.self_attn.q.weight": (5, 5)}, "VACE"),
    ({"transformer_blocks.0.audio_attn1.to_q.weight": (4, 4)}, "LTX audio-video"),
    ({"transformer_blocks.0.attn1.to_q.weight": (4, 4), "patchify_proj.weight": (4, 4)}, "LTX video"),
    (shapes_of(AudioVAE(MOVA_AUDIO_VAE, device="meta")), "DAC"),
    ({"decoder.mid_block.resnets.0.conv1.weight": (1,), "quant_conv.weight": (1,)}, "diffusers' layout"),
    ({"decoder.middle.0.residual.0.gamma": (1,)}, "a Wan video VAE$"),
    ({"encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}, "T5"),
    ({"video_dit.blocks.0.self_attn.q.lora_A.weight": (4, 4)}, "a LoRA"),
    ({"blocks.0.self_attn.q.lora_A": (4, 4)}, "a LoRA"),
    ({"something": (4,)}, "nothing this package knows"),
    ({}, "nothing this package knows"),
    (wan(36, ()), "nothing this package knows"),
]


@pytest.mark.parametrize(("shapes", "called"), FILES, ids=[called for _, called in FILES])
def test_files_are_called_what_they_are(shapes, called):
    assert re.search(called, detect.describe(shapes))


def test_each_reader_refuses_every_other_file_by_what_it_is():
    readers = {
        detect.tower_config: ("expert", "audio tower", "text-to-video", "52 input", "VACE", "Wan 2.1"),
        detect.bridge_config: ("bridge",),
        detect.audio_vae_config: ("DAC",),
    }
    for reader, own in readers.items():
        for shapes, called in FILES:
            if not any(word in called for word in own):
                with pytest.raises(CheckpointError, match=WHERE) as caught:
                    reader(shapes, WHERE)
                assert called.rstrip("$") in str(caught.value)


def test_damaged_shapes_are_refused_or_read_never_anything_else():
    parts = [*parts_of(tiny_config()).values(), shapes_of(AudioVAE(MOVA_AUDIO_VAE, device="meta"))]
    draw, odd = (
        random.Random(0),
        [(), (0,), (7,), (0, 0, 0), (1, 2, 3, 4, 5, 6), (2**40, 1), (5, 4, 0, 2, 2), (3, 5, 1)],
    )
    refusals = 0
    for part in parts:
        keys = [key for key in part if key.count(".") < 3 or ".0." in key]
        for reader in (detect.tower_config, detect.bridge_config, detect.audio_vae_config):
            for _ in range(200):
                try:
                    reader(part | {key: draw.choice(odd) for key in draw.choices(keys, k=3)}, WHERE)
                except CheckpointError:
                    refusals += 1
        assert all(detect.describe(part | {key: shape}) for key in keys for shape in odd)
    assert refusals > 1000
