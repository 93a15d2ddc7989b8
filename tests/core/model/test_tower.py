"""Towers alone: patches, time embedding, modulation, heads."""

import math

import pytest
import torch
from torch import nn

from mova_core.config import TowerConfig
from mova_core.model.layers import FeedForward, add_gated_, modulated, timestep_embedding
from mova_core.model.mova import Mova
from mova_core.model.tower import AudioTower, VideoTower
from mova_core.ops import cast
from tests.fixtures.tiny_model import TINY, tiny_model, wave


def tower_of(kind, patch, channels):
    """A tower whose patch embedding copies each patch, channels fastest: as wide as a patch has values."""
    values = math.prod(patch) * channels
    config = TowerConfig(
        width=values,
        heads=1,
        layers=1,
        ffn_width=8,
        in_channels=channels,
        out_channels=channels,
        patch=patch,
        text_width=4,
        frequency_width=4,
        eps=1e-6,
    )
    tower = kind(config, ops=cast)
    copied = torch.eye(values).view(values, *patch, channels).movedim(-1, 1)
    tower.patch_embedding.weight.data, tower.patch_embedding.bias.data = copied, torch.zeros(values)
    return tower


def test_patchify_then_unpatchify_is_the_identity_for_video():
    tower, latents = tower_of(VideoTower, (1, 2, 2), 16), wave((2, 16, 3, 4, 10))
    tokens, grid = tower.patchify(latents)
    assert (tokens.shape, grid) == ((2, 3 * 2 * 5, 64), (3, 2, 5))
    assert torch.equal(tower.unpatchify(tokens, grid), latents)
    assert torch.equal(tokens[0, 1, :16], latents[0, :, 0, 0, 2])  # token 1 is the second column


def test_patchify_then_unpatchify_is_the_identity_for_audio():
    tower, latents = tower_of(AudioTower, (1,), 8), wave((2, 8, 11))
    assert torch.equal(tower.unpatchify(tower.patchify(latents)), latents)
    assert torch.equal(tower.patchify(latents)[0, 3], latents[0, :, 3])


@pytest.mark.parametrize("width", [4, 256])
def test_timesteps_are_sinusoids_cosines_first(width):
    steps = torch.tensor([0.0, 0.5, 961.5384521484375, 1000.0])
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = steps.double()[:, None] * rates
    wanted = torch.cat((angles.cos(), angles.sin()), dim=1)
    found = timestep_embedding(steps, width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-7)


def test_modulation_is_its_formula_and_leaves_its_input_alone():
    x, shift, scale = wave((2, 5, 8)), wave((2, 1, 8), 1), wave((2, 1, 8), 2)
    kept = x.clone()
    normed = (x.double() - x.double().mean(-1, keepdim=True)) / (
        x.double().var(-1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    found = modulated(x, shift, scale, 1e-6).double()
    torch.testing.assert_close(found, normed * (1 + scale) + shift, rtol=1e-6, atol=1e-6)
    assert torch.equal(x, kept)


def test_a_small_scale_is_not_lost_in_bfloat16():
    x = wave((1, 4, 64)).bfloat16()
    shift, scale = torch.zeros(1, 1, 64), torch.full((1, 1, 64), 2.0**-8)
    assert (1 + scale.bfloat16() == 1).all()
    assert not torch.equal(modulated(x, shift, scale, 1e-6), modulated(x, shift, 0 * scale, 1e-6))


def test_a_gated_addition_rounds_once():
    x, y, gate = wave((1, 4, 64)).bfloat16(), wave((1, 4, 64), 1).bfloat16(), wave((1, 1, 64), 2)
    exact = x.double() + y.double() * gate.double()
    add_gated_(x, y, gate)
    assert torch.equal(x, exact.bfloat16())


def test_the_feed_forward_is_linear_tanh_gelu_linear():
    ffn, x = FeedForward(TINY.video, ops=cast), wave((2, 5, TINY.video.width))
    kept = x.clone()
    with torch.no_grad():
        wanted = ffn[2](nn.functional.gelu(ffn[0](x), approximate="tanh"))
        assert torch.equal(ffn(x), wanted)
    assert torch.equal(x, kept)


def test_the_head_reads_the_time_of_each_sample():
    head, x = tiny_model().head, wave((3, 5, TINY.video.width))
    time = wave((3, TINY.video.width), 3)
    together = head(x, time)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], head(x[n : n + 1], time[n : n + 1]))


def test_every_layer_with_a_weight_comes_from_the_given_ops():
    class Mine:
        """Marks the layers that came through the seam."""

    kinds = {name: type(name, (Mine, getattr(cast, name)), {}) for name in vars(cast) if not name.startswith("_")}
    model = Mova(TINY, ops=type("ops", (), kinds), device="meta", dtype=torch.bfloat16)
    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    modulated = [module for module in owners if not isinstance(module, Mine)]
    assert all([name for name, _ in m.named_parameters(recurse=False)] == ["modulation"] for m in modulated)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert not list(model.buffers())  # a buffer would be cast with the weights: formulas are computed


def test_cast_layers_are_torchs_own_in_one_dtype_and_follow_the_input_in_two():
    shapes = {"Linear": (4, 6), "LayerNorm": (4,), "RMSNorm": (4,), "Conv1d": (4, 6, 3), "ConvTranspose1d": (4, 6, 3)}
    inputs = {"Conv1d": (2, 4, 9), "ConvTranspose1d": (2, 4, 9), "Conv3d": (2, 4, 3, 3, 3)}
    for name, sizes in (shapes | {"Conv3d": (4, 6, 2)}).items():
        plain, ours = getattr(nn, name)(*sizes), getattr(cast, name)(*sizes)
        ours.load_state_dict(plain.state_dict())
        x = wave(inputs.get(name, (2, 5, 4)))
        assert torch.equal(plain(x), ours(x))
        assert torch.equal(ours.bfloat16()(x), plain.bfloat16().float()(x))
