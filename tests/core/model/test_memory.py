"""Memory and work of the joint forward at the published width, on tensors without memory (benchmarks/peak.py)."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peak import FRAMES, GIB, SIZE_360P, SIZE_720P, Clip, Ledger, account, at_depth, few_layers, ungraded
from mova_core.config import MOVA, MovaConfig
from mova_core.estimate import CHUNKED, FULL, ChunkSizes, Workload, activations, work
from mova_core.model.mova import Mova
from mova_core.ops import PAIRS, Rotary, Runtime
from mova_core.shapes import DEFAULT_FPS, VideoShape
from tests.fixtures.allocations import UNTURNED, allocated
from tests.fixtures.tiny_model import TINY, tiny_config, tiny_inputs, tiny_model

SIZES = {"360p": SIZE_360P, "720p": SIZE_720P}
PATHS = {"normal": FULL, "low": CHUNKED}


def books(
    size: str, path: str, layers: tuple[int, int] = (1, 1), frames: int = FRAMES, rotary: Rotary = PAIRS
) -> Ledger:
    return counted(size, path, layers, frames, rotary)


@cache
def counted(size: str, path: str, layers: tuple[int, int], frames: int, rotary: Rotary) -> Ledger:
    rows, (height, width) = PATHS[path], SIZES[size]

    def run(ledger: Ledger) -> Runtime:
        chunks = {"ffn_rows": rows.feed_forward, "query_rows": rows.queries}
        return Runtime(attention=ledger.attention, rotary=rotary, **chunks)

    return account(Clip(height=height, width=width, frames=frames), few_layers(*layers), run)


def multiplied(size: str, path: str, config: MovaConfig) -> Ledger:
    return books(size, path, (config.bridge.layers, config.video.layers - config.bridge.layers), rotary=UNTURNED)


def gib(size: str, path: str, **more: int) -> float:
    return books(size, path, **more).peak / GIB


# The ledger itself


def test_the_ledger_counts_what_is_alive_and_no_longer() -> None:
    with Ledger() as ledger:
        x = torch.empty(1000, dtype=torch.float32)
        y = x + 1
        view = y.view(10, 100)
        del x, y
        assert ledger.now == 4096  # the view keeps it
        z = view * 2
        del view
        assert (ledger.now, ledger.peak) == (4096, 8192)
        del z
        assert ledger.now == 0
    assert ledger.traffic == {"add": 8000, "mul": 8000}


def test_the_ledger_agrees_with_torchs_own_counter() -> None:
    def run(ledger: Ledger) -> Runtime:
        return Runtime(attention=ledger.attention)

    ours = account(Clip(height=32, width=48, frames=9), few_layers(1), run)
    with ungraded():
        model = Mova(few_layers(1), device="meta", dtype=torch.bfloat16)
        inputs = Clip(height=32, width=48, frames=9).inputs(few_layers(1), torch.bfloat16)
        with FlopCounterMode(display=False) as theirs:
            model(
                **inputs,
                fps=DEFAULT_FPS,
                runtime=Runtime(attention=lambda q, k, v, heads, site, place=None: torch.empty_like(q)),
            )
    assert ours.matrix_flops == theirs.get_total_flops()


def test_the_ledger_agrees_with_the_allocator() -> None:
    """A real float32 forward: its inputs apart, the ledger's peak is the allocator's."""
    model, inputs = tiny_model(tiny_config(head_width=48)), tiny_inputs(tiny_config(head_width=48))
    inputs.run(model)
    ledger = Ledger(grain=1)
    ledger.exclude(model)
    given = [value for value in vars(inputs).values() if isinstance(value, torch.Tensor)]
    for tensor in given:
        ledger.enter(tensor, "input")
    before = ledger.now
    with ledger:
        inputs.run(model)
    assert ledger.peak - before == pytest.approx(allocated(lambda: inputs.run(model)), rel=0.02)


# The limits


@pytest.mark.parametrize(
    ("size", "path", "limit"),
    [("360p", "normal", 2.3), ("720p", "normal", 9.0), ("360p", "low", 1.9), ("720p", "low", 6.0)],
)
def test_the_peak_of_a_forward_stays_within_its_limit(size: str, path: str, limit: float) -> None:
    assert limit / 2 < gib(size, path) <= limit


@pytest.mark.parametrize("path", PATHS)
def test_the_peak_does_not_depend_on_the_number_of_layers(path: str) -> None:
    two, three, plain = (books("360p", path, layers, 49).peak for layers in ((2, 1), (3, 1), (1, 2)))
    assert two == three == plain


@pytest.mark.parametrize("path", PATHS)
def test_the_peak_grows_linearly_in_frames(path: str) -> None:
    near, middle, far = (gib("360p", path, frames=frames) for frames in (97, 145, 193))
    assert far - middle == pytest.approx(middle - near, rel=0.03)


@pytest.mark.parametrize(
    ("size", "path", "slope"),
    [("360p", "normal", 44), ("720p", "normal", 180), ("360p", "low", 27), ("720p", "low", 112)],
)
def test_the_slope_is_known_in_mib_a_latent_frame(size: str, path: str, slope: float) -> None:
    assert (gib(size, path) - gib(size, path, frames=97)) * 1024 / 24 == pytest.approx(slope, rel=0.04)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_large_is_double_and_rotary_tables_are_small(path: str) -> None:
    ledger = books("720p", path)
    for dtype in (torch.float64, torch.complex128):
        assert ledger.largest[dtype] <= 2**20
    assert 0 < ledger.largest[torch.complex64] <= 0.10 * GIB  # one table, nothing of the hidden state's width
    tables = [e for e in ledger.at_peak if e.shape[-1] == MOVA.video.head_width // 2]
    assert 0 < sum(e.bytes for e in tables if e.made_by in ("cat", "complex")) <= 0.20 * GIB


@pytest.mark.parametrize(("size", "path"), [("360p", "normal"), ("360p", "low"), ("720p", "normal")])
def test_nothing_is_computed_twice(size: str, path: str) -> None:
    """1211.17 and 4942.90 TFLOP of matrix products, as the official forward; chunks add nothing."""
    height, width = SIZES[size]
    wanted = work(MOVA, Workload.of(VideoShape(batch=1, frames=FRAMES, height=height, width=width)))
    assert at_depth(lambda config: multiplied(size, path, config).matrix_flops) == wanted.matrix
    assert at_depth(lambda config: multiplied(size, path, config).attention_flops) == wanted.attention
    assert wanted.matrix / 1e12 == pytest.approx({"360p": 1211.174, "720p": 4942.895}[size], abs=0.001)


@pytest.mark.parametrize("rows", [ChunkSizes(feed_forward=5, queries=None), ChunkSizes(feed_forward=7, queries=8)])
def test_chunks_change_rounding_only(rows: ChunkSizes) -> None:
    model, inputs = tiny_model(), tiny_inputs(batch=2)
    whole = inputs.run(model)
    parts = inputs.run(model, runtime=Runtime(ffn_rows=rows.feed_forward, query_rows=rows.queries))
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


# The estimate


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("frames", [97, FRAMES])
def test_predicted_activations_are_the_counted_ones(size: str, path: str, frames: int) -> None:
    height, width = SIZES[size]
    load = Workload.of(VideoShape(batch=1, frames=frames, height=height, width=width))
    assert activations(MOVA, load, PATHS[path]) == pytest.approx(books(size, path, frames=frames).peak, rel=0.15)


def test_predicted_work_is_the_counted_work_of_any_configuration() -> None:
    def run(ledger: Ledger) -> Runtime:
        return Runtime(attention=ledger.attention)

    with ungraded():
        inputs = {
            name: tensor.to("meta")
            for name, tensor in vars(tiny_inputs(batch=2)).items()
            if isinstance(tensor, torch.Tensor)
        }
        model: nn.Module = Mova(TINY, device="meta")
        names = {"video": "video_latents", "audio": "audio_latents"}
        with Ledger() as ledger:
            model(**{names.get(k, k): v for k, v in inputs.items()}, fps=DEFAULT_FPS, runtime=run(ledger))
    expected = work(TINY, Workload(video=3 * 2 * 3, audio=11, batch=2, text=7))
    assert ledger.attention_flops == expected.attention
    assert ledger.matrix_flops == pytest.approx(expected.matrix, rel=0.01)
