"""The video VAE's two layouts: one name for one weight, there and back."""

import re

import pytest

from mova_core.checkpoint.keys import VIDEO_VAE_ROWS, original_video_vae, rename
from mova_core.errors import CheckpointError
from tests.fixtures.key_shapes import WanVAESizes, wan_vae_shapes
from tests.golden import key_table

PUBLISHED = "video_vae (diffusers layout)"
FOREIGN = (
    r"conv_in|conv_out|norm_out|mid_block|down_blocks|up_blocks|upsamplers|resnets|norm\d|conv_shortcut|quant_conv"
)
WHERE = "somewhere/video_vae"
KEYS = wan_vae_shapes(WanVAESizes(base_channels=4, latent_channels=16))


def test_every_published_key_has_one_original_name():
    table = key_table(PUBLISHED)
    ours = original_video_vae(table, WHERE)
    assert len(ours) == len(table) == 194
    assert list(ours.values()) == list(table.values())
    assert not [key for key in ours if re.search(FOREIGN, key)]
    assert table.keys() == KEYS.keys()


def test_nothing_is_left_in_the_names_of_diffusers():
    ours = original_video_vae(KEYS, WHERE)
    assert len(ours) == len(KEYS)
    assert not [key for key in ours if re.search(FOREIGN, key)]
    assert {key.split(".")[0] for key in ours} == {"encoder", "decoder", "conv1", "conv2"}


@pytest.mark.parametrize(
    ("theirs", "original"),
    [
        ("quant_conv.bias", "conv1.bias"),
        ("post_quant_conv.weight", "conv2.weight"),
        ("encoder.conv_in.weight", "encoder.conv1.weight"),
        ("decoder.conv_out.bias", "decoder.head.2.bias"),
        ("decoder.norm_out.gamma", "decoder.head.0.gamma"),
        ("encoder.mid_block.resnets.1.norm2.gamma", "encoder.middle.2.residual.3.gamma"),
        ("encoder.mid_block.attentions.0.to_qkv.weight", "encoder.middle.1.to_qkv.weight"),
        ("encoder.down_blocks.10.conv2.bias", "encoder.downsamples.10.residual.6.bias"),
        ("encoder.down_blocks.5.time_conv.bias", "encoder.downsamples.5.time_conv.bias"),
        ("encoder.down_blocks.3.conv_shortcut.weight", "encoder.downsamples.3.shortcut.weight"),
        ("decoder.up_blocks.0.resnets.2.conv1.bias", "decoder.upsamples.2.residual.2.bias"),
        ("decoder.up_blocks.1.upsamplers.0.resample.1.bias", "decoder.upsamples.7.resample.1.bias"),
        ("decoder.up_blocks.3.resnets.0.norm1.gamma", "decoder.upsamples.12.residual.0.gamma"),
    ],
)
def test_names_are_those_of_the_original_file(theirs, original):
    assert theirs in KEYS
    assert rename(theirs, VIDEO_VAE_ROWS) == original


def test_every_row_of_the_table_is_needed():
    whole = original_video_vae(KEYS, WHERE)
    for row in VIDEO_VAE_ROWS:
        rest = [other for other in VIDEO_VAE_ROWS if other is not row]
        assert {rename(key, rest) for key in KEYS} != whole.keys(), row


def test_an_original_file_passes_unchanged_and_twice_is_once():
    once = original_video_vae({key: object() for key in KEYS}, WHERE)
    twice = original_video_vae(once, WHERE)
    assert list(once) == list(twice)
    assert all(once[key] is twice[key] for key in once)
    assert twice is not once


def test_two_weights_of_one_meaning_are_refused():
    with pytest.raises(CheckpointError, match=rf"{WHERE}.*Download"):
        original_video_vae({**KEYS, "conv1.bias": (32,)}, WHERE)
