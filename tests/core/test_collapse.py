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
