"""Memory and work of a training step at full size, counted on tensors without memory (benchmarks/peak.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peak import GIB, SIZE_360P, SIZE_720P, Clip, Ledger, account_step, few_layers
from mova_core.config import MOVA
from mova_core.estimate import Workload
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import VideoShape
from mova_core.training.adapters import Adapters
from mova_core.training.budget import RECOMPUTED_ROWS, activations, budget, kept, step_work
from mova_core.training.step import Copies, training_step
from tests.fixtures.allocations import UNTURNED, allocated
from tests.fixtures.tiny_model import tiny_model
from tests.fixtures.training import parameters, shown

RANK = 32


@cache
def counted(size: tuple[int, int], frames: int, low: bool, layers: tuple[int, int] = (1, 1)) -> tuple[Ledger, int]:
    rows = RECOMPUTED_ROWS if low else None

    def run(ledger: Ledger) -> Runtime:
        return Runtime(attention=ledger.attention, rotary=UNTURNED, recompute=low, ffn_rows=rows, query_rows=rows)

    return account_step(Clip(height=size[0], width=size[1], frames=frames), few_layers(*layers), RANK, run)


def load(size: tuple[int, int], frames: int) -> Workload:
    return Workload.of(VideoShape(batch=1, frames=frames, height=size[0], width=size[1]))


@pytest.mark.parametrize(
    ("size", "frames", "low", "limit"),
    [
        (SIZE_360P, 193, False, 13.5),
        (SIZE_360P, 97, False, 7.4),
        (SIZE_360P, 49, False, 4.1),
        (SIZE_360P, 193, True, 10.8),
        (SIZE_720P, 49, True, 11.6),
    ],
    ids=["360p-193", "360p-97", "360p-49", "360p-193-low", "720p-49-low"],
)
def test_the_peak_of_a_step_stays_within_its_limit(size: tuple[int, int], frames: int, low: bool, limit: float) -> None:
    """Rotary copies left out by these counts are gone again before the peak."""
    peak = counted(size, frames, low)[0].peak
    assert 0.75 * limit < peak / GIB <= limit
    assert activations(MOVA, load(size, frames), low=low) == pytest.approx(peak, rel=0.06)


def test_the_peak_does_not_depend_on_the_number_of_layers() -> None:
    peaks = {counted(SIZE_360P, 49, False, layers)[0].peak for layers in ((1, 1), (2, 1), (1, 2))}
    assert len(peaks) == 1


def test_layers_inputs_take_the_host_memory_that_is_told() -> None:
    """One state of each tower a layer, 17.7 GB at 8 seconds of 360p; here of two layers."""
    _, held = counted(SIZE_360P, 97, False)
    two = kept(few_layers(1), load(SIZE_360P, 97))
    assert held == two
    for frames, limit in ((193, 17.75), (97, 9.1), (49, 4.75)):
        assert kept(MOVA, load(SIZE_360P, frames)) / 1e9 <= limit


@pytest.mark.parametrize("low", [False, True])
def test_predicted_work_is_the_counted_work(low: bool) -> None:
    config, clip = few_layers(2), load(SIZE_360P, 49)
    ledger, _ = counted(SIZE_360P, 49, low, (2, 1))
    wanted = step_work(config, clip, low=low)
    assert ledger.attention_flops == pytest.approx(wanted.attention, rel=0.01)
    assert ledger.matrix_flops == pytest.approx(wanted.matrix, rel=0.03)
    assert ledger.matrix_flops > 0.97 * wanted.matrix


def test_a_step_at_eight_seconds_is_within_its_work() -> None:
    assert step_work(MOVA, load(SIZE_360P, 193)).total / 1e15 <= 10.7
    assert step_work(MOVA, load(SIZE_360P, 193), low=True).total / 1e15 <= 11.4


def test_eight_seconds_of_360p_fit_a_card_of_24_gb() -> None:
    layer = 2 * sum(p.numel() for p in one_layer().parameters())
    whole = budget(MOVA, load(SIZE_360P, 193), layer=layer, parts=("high", "audio", "bridge"), rank=RANK)
    assert 18 < whole.device / GIB < 21
    small = budget(
        MOVA,
        load(SIZE_360P, 193),
        layer=layer,
        parts=("high", "audio", "bridge"),
        rank=16,
        optimizer="adamw8bit",
        low=True,
    )
    assert small.device / GIB < 15


def one_layer() -> nn.Module:
    model = Mova(few_layers(1, 0), device="meta")
    return nn.ModuleList(model.layer_modules()[0])


def test_the_count_agrees_with_the_allocator() -> None:
    """A real float32 step: what it allocates at most is what a ledger without memory says of it."""
    adapters = Adapters.attach(tiny_model(), parameters(), 2.0)
    given = shown(batch=3)

    def step() -> None:
        training_step(adapters.model, adapters, **given, fps=24.0)  # type: ignore[arg-type]

    step()  # gradients are there now
    ledger = Ledger(grain=1)
    ledger.exclude(adapters.model)
    for _, parameter in adapters.named_parameters():
        ledger.enter(parameter.data, "parameter")
        ledger.enter(parameter.grad, "gradient")
    for tensor in given.values():
        ledger.enter(tensor, "input")
    before = ledger.now
    with ledger:
        step()
    assert ledger.peak - before == pytest.approx(allocated(step), rel=0.15)


def test_each_layers_weights_are_brought_exactly_twice_and_are_nowhere_else_needed() -> None:
    """With every weight of a layer nan outside its window, losses and gradients are those without."""
    model, plain = tiny_model(), Adapters.attach(tiny_model(), parameters(), 2.0)
    streamed = Adapters.attach(model, parameters(), 2.0)
    brought: Counter[int] = Counter()
    weights = {id(p): p.clone() for layer in model.layer_modules() for m in layer for p in m.parameters()}
    by_id = {id(p): p for layer in model.layer_modules() for m in layer for p in m.parameters()}
    for parameter in by_id.values():
        parameter.fill_(float("nan"))

    def prefetch(layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
        for layer in layers:
            own = [p for module in layer for p in module.parameters()]
            for parameter in own:
                parameter.data.copy_(weights[id(parameter)])
                brought[id(parameter)] += 1
            yield
            for parameter in own:
                parameter.data.fill_(float("nan"))
        yield

    ours = training_step(model, streamed, **shown(), fps=24.0, runtime=Runtime(prefetch=prefetch))  # type: ignore[arg-type]
    wanted = training_step(plain.model, plain, **shown(), fps=24.0)  # type: ignore[arg-type]
    assert torch.equal(ours.loss, wanted.loss)
    for (name, one), (_, other) in zip(streamed.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]
    assert set(brought.values()) == {2}


def test_on_the_way_back_states_go_before_the_next_weights() -> None:
    """One link brings both; a layer that waits for its states must not wait for the weights of the layer after it."""
    order: list[str] = []

    class Told(Copies):
        def take(self) -> Tensor:
            order.append("state")
            return super().take()

    def prefetch(layers: Sequence[Sequence[nn.Module]]) -> Iterator[None]:
        for _ in layers:  # those of the next layer are sent for as a layer's turn comes
            order.append("weights")
            yield
        yield

    adapters = Adapters.attach(tiny_model(), parameters(), 2.0)
    training_step(adapters.model, adapters, **shown(), fps=24.0, runtime=Runtime(prefetch=prefetch), shelf=Told)  # type: ignore[arg-type]
    layers = len(adapters.model.blocks)
    assert order == ["weights"] * layers + ["state", "state", "weights"] * layers


def test_many_steps_allocate_no_more_than_one() -> None:
    adapters = Adapters.attach(tiny_model(), parameters("audio", "bridge"), 2.0)

    def steps(count: int) -> None:
        for _ in range(count):
            training_step(adapters.model, adapters, **shown(), fps=24.0)  # type: ignore[arg-type]

    steps(1)
    assert allocated(lambda: steps(4)) <= allocated(lambda: steps(1)) * 1.01
