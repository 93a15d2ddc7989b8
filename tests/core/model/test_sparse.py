"""Block-sparse self-attention: the tiles that Prism's own code keeps, exact over them; dense at no sparsity."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from mova_core.errors import ConfigError
from mova_core.model.sparse import TOKENS, Sparsity, attend, kept_tiles, tile_means, tiles_of
from mova_core.ops import PLAIN, Place, Runtime, sdpa
from tests.fixtures.tiny_model import TINY, tiny_inputs, tiny_model, wave
from tests.golden import PRISM, relative_error

SPARSE = PRISM / "sparse.safetensors"
GRID = (5, 6, 8)
CASES = ["s0_cnone", "s0.5_cnone", "s0.75_cnone", "s0_c0.2", "s0.5_c0.2", "s0.75_c0.2", "s0.93_c0.2", "s0.9_c0.6"]


def setting(case: str, **changes):
    share, cdf = case[1:].split("_c")
    return replace(Sparsity(sparsity=float(share), cdf=None if cdf == "none" else float(cdf)), **changes)


@pytest.fixture(scope="module")
def golden():
    if not SPARSE.is_file():
        pytest.skip("the tensors of Prism's own code are not here")
    with safe_open(SPARSE, "pt") as file:
        return {name.removeprefix("5x6x8/"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def regrouped(x, tiles, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)[:, :, tiles.token] * tiles.real[:, None]


@pytest.mark.parametrize("case", CASES)
def test_it_keeps_the_tiles_that_prism_keeps(golden, case):
    tensors = golden
    q, k = (regrouped(tensors[name].float(), tiles_of(GRID, torch.device("cpu")), 1) for name in "qk")
    real = tiles_of(GRID, torch.device("cpu")).real
    kept = kept_tiles(tile_means(q, real), tile_means(k, real), setting(case))
    assert torch.equal(kept.counts, tensors[f"{case}/lens"].long())
    for tile in range(kept.counts.shape[-1]):
        count = int(kept.counts[0, 0, tile])
        ours = kept.tiles[0, 0, tile, :count].sort().values
        assert torch.equal(ours, tensors[f"{case}/indices"][0, 0, tile, :count].long())


@pytest.mark.parametrize(
    ("case", "stored", "tail"),
    [
        ("s0_cnone", "dense", False),
        ("s0_c0.2", "dense", True),
        ("s0.5_cnone", "s0.5_cnone/out", False),
        ("s0.5_c0.2", "s0.5_cnone/out", False),
        ("s0.75_cnone", "s0.75_cnone/out", False),
        ("s0.75_cnone", "s0.75_cnone/tail_safe", True),
        ("s0.75_c0.2", "s0.75_cnone/tail_safe", True),
        ("s0.93_c0.2", "s0.93_c0.2/out", False),
    ],
)
def test_it_attends_as_prism_does(golden, case, stored, tail):
    made = attend(*given(golden), setting(case, exact_tail=tail))
    assert relative_error(made, golden[stored]) < 5e-6


def given(tensors):
    return *(tensors[name].float() for name in "qkv"), 1, Place(GRID, 0)


def qkv(grid, heads=2, width=8, batch=2):
    length = grid[0] * grid[1] * grid[2]
    return [wave((batch, length, heads * width), phase) for phase in (1, 2, 3)]


@pytest.mark.parametrize("grid", [(4, 4, 4), (5, 6, 8), (1, 5, 7), (3, 2, 9), (8, 4, 5)])
@pytest.mark.parametrize("cdf", [None, 0.2])
def test_nothing_left_out_is_dense(grid, cdf):
    q, k, v = qkv(grid)
    made = attend(q, k, v, 2, Place(grid, 0), Sparsity(sparsity=0.0, cdf=cdf))
    torch.testing.assert_close(made, sdpa(q, k, v, 2, "video.self"), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("tail", [False, True])
def test_queries_may_come_in_groups_of_four_frames(frames, tail):
    grid, sparsity = (4 + frames, 5, 6), Sparsity(exact_tail=tail)
    q, k, v = qkv(grid)
    whole = attend(q, k, v, 2, Place(grid, 0), sparsity)
    step = 4 * 5 * 6
    parts = [attend(q[:, s : s + step], k, v, 2, Place(grid, s), sparsity) for s in range(0, q.shape[1], step)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)


def test_the_last_frames_ask_every_key_where_four_do_not_divide_them():
    """Forty-nine latent frames, of 193 pictures, leave one."""
    grid = (49, 2, 2)
    q, k, v = qkv(grid)
    made = attend(q, k, v, 2, Place(grid, 0), Sparsity(sparsity=0.5))
    dense = sdpa(q, k, v, 2, "video.self")
    assert torch.equal(made[:, -4:], sdpa(q[:, -4:], k, v, 2, "video.self"))
    assert not torch.allclose(made[:, :-4], dense[:, :-4], atol=1e-3)


def test_a_share_may_be_too_small_for_one_tile():
    q, k, v = qkv((10, 4, 4))
    nothing = attend(q, k, v, 2, Place((10, 4, 4), 0), Sparsity(sparsity=0.9, cdf=None, exact_tail=False))
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("frames", [193, 205])
def test_a_quarter_of_the_tiles_of_720p_is_one_fixed_number(frames):
    grid = ((frames + 3) // 4, 45, 80)
    assert len(tiles_of(grid, torch.device("cpu")).token) == 3120 * TOKENS
    assert Sparsity().least(3120) == 780


@pytest.mark.parametrize("wrong", [{"sparsity": 1.0}, {"sparsity": -0.1}, {"cdf": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Sparsity(**wrong)


def sparse_runtime(sparsity, seen=None, **more):
    def attention(q, k, v, heads, site, place=None):
        if site != "video.self":
            assert place is None
            return sdpa(q, k, v, heads, site)
        if seen is not None:
            seen.append((place.start, q.shape[1]))
        return attend(q, k, v, heads, place, sparsity)

    return Runtime(attention=attention, query_frames=4, **more)


def test_a_forward_knows_its_grid_and_gives_whole_groups_of_frames():
    model, inputs = tiny_model(), tiny_inputs(batch=2)
    inputs = replace(inputs, video=wave((2, 4, 9, 4, 6), 1), condition=wave((2, 8, 9, 4, 6), 4))
    plain = inputs.run(model, runtime=PLAIN)
    dense = inputs.run(model, runtime=sparse_runtime(Sparsity(sparsity=0.0)))
    for ours, theirs in zip(dense, plain):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    seen: list[tuple[int, int]] = []
    whole = inputs.run(model, runtime=sparse_runtime(Sparsity(sparsity=0.5)))
    rows = inputs.run(model, runtime=sparse_runtime(Sparsity(sparsity=0.5), seen, query_rows=5, ffn_rows=5))
    assert seen[:3] == [(0, 24), (24, 24), (48, 6)]
    for ours, theirs in zip(rows, whole):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    assert TINY.video.layers * 3 == len(seen)
