"""Rotary embedding: positions count only by their differences, and both bridge sides share one clock."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mova_core.model import rope
from mova_core.model.rope import audio_table, axis_widths, bridge_positions, bridge_table, rotate_halves, video_table
from mova_core.ops import ELEMENTWISE_ROWS, PAIRS, RotaryPairs, Runtime
from tests.fixtures.tiny_model import tiny_inputs, tiny_model, wave

CPU = torch.device("cpu")
ONE, ZERO = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """(N, L, S) products of (1, L, N, K) queries and keys."""
    return torch.einsum("blnk,bsnk->nls", q, k)


def pairs(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    return PAIRS.rotate(x.clone(), PAIRS.table(*table), 0)


@pytest.mark.parametrize(("head", "widths"), [(128, (44, 42, 42)), (32, (12, 10, 10)), (12, (4, 4, 4)), (2, (2, 0, 0))])
def test_a_head_is_shared_between_frames_height_and_width(head, widths):
    assert axis_widths(head) == widths


@pytest.mark.parametrize("shift", [(5.0, 0.0, 0.0), (0.0, 7.0, 0.0), (0.0, 0.0, 3.5), (40.0, -9.0, 2.25)])
def test_video_scores_depend_on_position_differences_only(shift):
    q, k = wave((1, 24, 2, 32), 1), wave((1, 24, 2, 32), 2)
    here, there = (video_table((2, 3, 4), 32, ONE, s, CPU) for s in (ZERO, shift))
    torch.testing.assert_close(scores(pairs(q, here), pairs(k, here)), scores(pairs(q, there), pairs(k, there)))
    assert (scores(pairs(q, here), pairs(k, there)) - scores(pairs(q, here), pairs(k, here))).abs().max() > 0.1


def test_audio_scores_depend_on_position_differences_only():
    table = audio_table(30, 16, CPU)
    q, k = wave((1, 1, 1, 16), 1).expand(1, 30, 1, 16), wave((1, 1, 1, 16), 2).expand(1, 30, 1, 16)
    found = scores(pairs(q, table), pairs(k, table))[0]
    for offset in range(-29, 30):  # the same vectors everywhere: every diagonal is one number
        diagonal = found.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_bridge_scores_depend_on_position_differences_only():
    q, k = wave((1, 6, 2, 16), 1), wave((1, 5, 2, 16), 2)
    near = [rotate_halves(x, bridge_table(torch.arange(float(x.shape[1])), 16, CPU)) for x in (q, k)]
    far = [rotate_halves(x, bridge_table(torch.arange(float(x.shape[1])) + 37, 16, CPU)) for x in (q, k)]
    torch.testing.assert_close(scores(*near), scores(*far), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fps", [8.0, 16.0, 23.976, 24.0, 25.0, 60.0])
def test_a_video_frame_and_an_audio_step_of_one_second_have_one_position(fps):
    video, audio = bridge_positions(49, 403, fps, 50.0)
    frame_seconds, step_seconds = 4 * torch.arange(49) / fps, torch.arange(403) / 50
    torch.testing.assert_close(video / 50, frame_seconds)
    torch.testing.assert_close(audio / 50, step_seconds)
    assert video[0] == audio[0] == 0


def test_a_video_frame_and_an_audio_step_of_one_second_have_one_angle():
    video, audio = bridge_positions(13, 100, 25.0, 50.0)  # a latent frame every eight audio steps
    for ours, theirs in zip(bridge_table(video, 128, CPU), bridge_table(audio, 128, CPU)):
        assert torch.equal(ours, theirs[::8])


def test_the_two_conventions_are_one_up_to_the_order_of_channels():
    x, table = wave((1, 7, 2, 16)), audio_table(7, 16, CPU)
    order = torch.arange(16).view(2, 8).T.flatten()  # 0, 8, 1, 9, ...
    torch.testing.assert_close(rotate_halves(x, table)[..., order], pairs(x[..., order], table))
    assert not torch.allclose(rotate_halves(x, table), pairs(x, table))


def test_turning_keeps_length_and_position_zero_does_nothing():
    x, table = wave((2, 9, 3, 16)), audio_table(9, 16, CPU)
    for turned in (pairs(x, table), rotate_halves(x, table)):
        torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
        assert torch.equal(turned[:, 0], x[:, 0])
        assert not torch.allclose(turned[:, 1], x[:, 1])


def test_video_tokens_are_numbered_frames_first_and_columns_fastest():
    cos, sin = video_table((3, 4, 5), 32, ONE, ZERO, CPU)
    t, h, w = (torch.arange(n, dtype=torch.float64) for n in (3, 4, 5))
    grid = torch.stack(torch.meshgrid(t, h, w, indexing="ij"), dim=-1).view(-1, 3)  # (L, 3)
    axis = torch.tensor([0] * 6 + [1] * 5 + [2] * 5)
    rate = torch.cat([10000.0 ** (-2 * torch.arange(n, dtype=torch.float64) / (2 * n)) for n in (6, 5, 5)])
    angles = grid[:, axis] * rate
    torch.testing.assert_close(cos.double(), angles.cos(), rtol=0, atol=1e-7)
    torch.testing.assert_close(sin.double(), angles.sin(), rtol=0, atol=1e-7)


def test_scale_stretches_positions_and_shift_moves_them():
    table = video_table((5, 1, 1), 32, (0.5, 1.0, 1.0), (2.0, 0.0, 0.0), CPU)
    for ours, theirs in zip(table, video_table((10, 1, 1), 32, (0.5, 1.0, 1.0), ZERO, CPU)):
        assert torch.equal(ours[0], theirs[4])
        assert torch.equal(ours[4], theirs[8])


def test_long_inputs_are_turned_the_same_in_pieces(monkeypatch):
    x, table = wave((1, 60, 1, 16)), audio_table(60, 16, CPU)
    frames = bridge_table(torch.arange(12.0), 16, CPU)
    whole = pairs(x, table), rotate_halves(x, frames)
    assert ELEMENTWISE_ROWS > 60
    monkeypatch.setattr("mova_core.ops.ELEMENTWISE_ROWS", 7)
    monkeypatch.setattr(rope, "ELEMENTWISE_ROWS", 7)
    assert torch.equal(pairs(x, table), whole[0])
    assert torch.equal(rotate_halves(x, frames), whole[1])


def test_a_start_turns_later_tokens_by_their_own_angles():
    x, table = wave((1, 9, 1, 16)), audio_table(9, 16, CPU)
    assert torch.equal(PAIRS.rotate(x[:, 4:7].clone(), PAIRS.table(*table), 4), pairs(x, table)[:, 4:7])


def test_every_token_of_a_frame_turns_by_the_frame():
    x, frames = wave((1, 12, 1, 16)), bridge_table(torch.arange(3.0), 16, CPU)
    tokens = tuple(part.repeat_interleave(4, dim=0) for part in frames)
    assert torch.equal(rotate_halves(x, frames), rotate_halves(x, tokens))


def test_tables_are_float32_under_a_bfloat16_model(monkeypatch):
    seen = []

    class Spy(RotaryPairs):
        def table(self, cos: Tensor, sin: Tensor) -> Tensor:
            seen.extend((cos.dtype, sin.dtype))
            return super().table(cos, sin)

    def spy(x, table):
        seen.extend(part.dtype for part in table)
        assert x.dtype == torch.bfloat16
        return rotate_halves(x, table)

    monkeypatch.setattr("mova_core.model.bridge.rotate_halves", spy)
    inputs = replace(tiny_inputs(), context=tiny_inputs().context.bfloat16())
    inputs.run(tiny_model(dtype=torch.bfloat16), runtime=Runtime(rotary=Spy()))
    assert seen == [torch.float32] * (2 * 2 + 2 * 2 * 2 * 2)  # two towers; two layers, directions and sides


def test_a_model_in_bfloat16_turns_no_position_in_bfloat16():
    model = tiny_model().bfloat16()  # as a host might cast it, buffers and all
    tables = model.dual_tower_bridge.tables(49, torch.zeros(1, 403, 24, dtype=torch.bfloat16), 24.0)
    for ours, theirs in zip(tables, bridge_positions(49, 403, 24.0, 50.0)):
        assert all(torch.equal(a, b) for a, b in zip(ours, bridge_table(theirs, 12, CPU)))
        angle = torch.atan2(ours[1][:, 0], ours[0][:, 0])
        assert (torch.cos(angle - theirs) > 1 - 1e-4).all()  # the fastest channel turns by the position itself


@pytest.mark.parametrize("head", [12, 128])
def test_bridge_angles_are_their_formula_to_float32_rounding(head):
    positions = bridge_positions(49, 403, 24.0, 50.0)[0]
    rates = 10000.0 ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angles = positions.double()[:, None] * rates
    cos, sin = bridge_table(positions, head, CPU)
    torch.testing.assert_close(cos.double(), angles.cos(), rtol=0, atol=1e-4)
    torch.testing.assert_close(sin.double(), angles.sin(), rtol=0, atol=1e-4)
