"""Eight bits: close, whatever the scale of the numbers, and exact where nothing is made smaller."""

import pytest
import torch

from mova_core.model.compact import Compact, compacted
from tests.fixtures.tiny_model import wave


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_each_value_is_off_by_a_sixteenth_at_most(dtype, scale):
    x = (wave((2, 50, 24)) * scale).to(dtype)
    small = compacted(x)
    assert small.nbytes == x.numel()
    back = small.expanded(dtype)
    assert back.dtype == dtype
    floor = 2**-9 * x.float().abs().max() / 448 * (1 if dtype == torch.float32 else 8)  # the smallest steps of float8
    assert bool(((back - x).abs().float() <= x.abs().float() * (1 / 16 + 2**-6) + floor).all())


def test_nothing_is_zero_and_stays_so():
    assert torch.equal(compacted(torch.zeros(3, 4)).expanded(torch.float32), torch.zeros(3, 4))


def test_what_was_not_made_compact_is_itself():
    x = wave((3, 4))
    assert Compact(x, None).expanded(torch.float32) is x
