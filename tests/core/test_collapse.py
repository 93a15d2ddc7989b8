"""The guard tells a flat colour from a scene, once the estimate can show it."""

import pytest
import torch

from mova_core.collapse import LEAST_SPREAD, collapsed, spatial_spread


def scene():
    return torch.randn(2, 16, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def flat(noise: float = 0.0):
    """One colour a frame, which may change over time: variation in time is no picture."""
    colour = torch.randn(2, 16, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(2, 16, 3, 8, 12)
    return colour + noise * scene()


def test_a_scene_is_no_collapse_and_a_colour_is():
    assert not collapsed(scene(), 0.5)
    assert collapsed(flat(), 0.5)
    assert collapsed(flat(noise=LEAST_SPREAD / 2), 0.5)


def test_one_flat_clip_of_a_batch_counts():
    both = scene()
    both[1] = flat()[1]
    assert collapsed(both, 0.5)
    assert spatial_spread(both)[0] > LEAST_SPREAD > spatial_spread(both)[1]


@pytest.mark.parametrize("sigma", [1.0, 0.95, 0.9])
def test_nothing_is_judged_before_the_experts_change(sigma):
    assert not collapsed(flat(), sigma)


def picture(kind):
    """(1, 16, 3, 24, 40) latents that vary little over their area, or in one place."""
    made = torch.Generator().manual_seed(2)
    grain = torch.randn(1, 16, 3, 24, 40, generator=made)
    y, x = torch.meshgrid(torch.arange(24), torch.arange(40), indexing="ij")
    ways = torch.randn(1, 16, 1, 1, 1, generator=made).sign()
    shapes = {
        "moon": ((y - 8) ** 2 + (x - 30) ** 2 < 9) * 1.0,
        "logo": ((y - 12).abs() < 3) * ((x - 20).abs() < 4) * 0.9,
        "night sky": (torch.rand(24, 40, generator=made) > 0.98) * 1.0,
        "fog": y / 24 * 0.3,
    }
    return ways * shapes[kind] + 0.03 * grain


@pytest.mark.parametrize("kind", ["moon", "logo", "night sky", "fog"])
def test_a_scene_that_varies_little_is_no_collapse_of_a_clip_that_begins_so(kind):
    first = spatial_spread(picture(kind)[:, :, :1])
    assert first < LEAST_SPREAD
    assert not collapsed(picture(kind), 0.5, first)
    gone = picture(kind)
    gone[:, :, 1:] = gone[:, :, 1:].mean(dim=(-2, -1), keepdim=True)
    assert collapsed(gone, 0.5, first)


@pytest.mark.parametrize("kind", ["moon", "logo", "night sky"])
def test_without_a_first_picture_one_spot_that_stands_out_is_enough(kind):
    assert not collapsed(picture(kind), 0.5)


def test_of_a_batch_each_clip_is_held_against_its_own_picture():
    both = torch.cat((picture("fog"), scene()[:1, :, :, :1, :1] + 0.5 * torch.randn(1, 16, 3, 24, 40)))
    assert not collapsed(both, 0.5, spatial_spread(both[:, :, :1]))
    assert collapsed(both, 0.5, spatial_spread(both[:, :, :1]).flip(0))
