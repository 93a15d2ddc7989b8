"""AdamW: torch's own, a rate a part, and moments in a quarter of the memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mova_core.errors import ConfigError
from mova_core.training.optim import AdamW, Rates, gradient_norm
from tests.golden import relative_error

HIGH, AUDIO = "video_dit.blocks.0.self_attn.q.lora_A.weight", "audio_dit.blocks.0.self_attn.q.lora_A.weight"
RATES = Rates(high=1e-2, low=1e-2, audio=1e-2, bridge=1e-2, clip=0.0)


def made(shape: tuple[int, ...] = (7, 60)) -> dict[str, nn.Parameter]:
    make = torch.Generator().manual_seed(1)
    return {name: nn.Parameter(torch.randn(shape, generator=make)) for name in (HIGH, AUDIO)}


def gradients(count: int, shape: tuple[int, ...] = (7, 60)) -> list[Tensor]:
    make = torch.Generator().manual_seed(2)
    return [
        torch.randn(shape, generator=make) * 10.0 ** float(torch.randint(-6, 2, (1,), generator=make))
        for _ in range(count)
    ]


def test_it_is_torchs() -> None:
    ours, theirs = made(), made()
    optimizer = AdamW(ours, RATES)
    wanted = torch.optim.AdamW(theirs.values(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for count, gradient in enumerate(gradients(6)):
        for parameter in (ours[HIGH], theirs[HIGH]):
            parameter.grad = gradient.clone()
        optimizer.step(count)
        wanted.step()
        wanted.zero_grad()
    assert relative_error(ours[HIGH].detach(), theirs[HIGH].detach()) < 1e-6
    assert torch.equal(ours[AUDIO], made()[AUDIO])  # never had a gradient: no decay, no step
    assert ours[HIGH].grad is None


def test_clipping_bounds_the_norm_of_all_together() -> None:
    clipped, scaled = made(), made()
    for name, gradient in zip((HIGH, AUDIO), gradients(2), strict=True):
        clipped[name].grad = gradient.clone()
    norm = gradient_norm(clipped.values())
    rates = Rates(high=1e-2, low=0, audio=1e-2, bridge=0, clip=norm / 4)
    assert AdamW(clipped, rates).step(0) == pytest.approx(norm)
    for name, gradient in zip((HIGH, AUDIO), gradients(2), strict=True):
        scaled[name].grad = gradient / 4
    AdamW(scaled, RATES).step(0)
    for name in (HIGH, AUDIO):
        torch.testing.assert_close(clipped[name], scaled[name], rtol=1e-5, atol=1e-6)


def test_each_part_has_its_rate_and_warms_up() -> None:
    rates = Rates(high=1.0, low=0.5, audio=0.25, bridge=0.0, warmup=3)
    assert [rates.at("high", step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [rates.at(part, 9) for part in ("low", "audio", "bridge")] == [0.5, 0.25, 0.0]
    parameters = made()
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    AdamW(parameters, Rates(high=1e-2, low=0, audio=0.0, bridge=0)).step(0)
    assert not torch.equal(parameters[HIGH], made()[HIGH])
    assert torch.equal(parameters[AUDIO], made()[AUDIO])


def test_small_moments_take_two_bytes_and_go_the_same_way() -> None:
    shape = (64, 256)
    ours, theirs = made(shape), made(shape)
    start = theirs[HIGH].detach().clone()
    small, wide = AdamW(ours, RATES, small=True), AdamW(theirs, RATES)
    for count, gradient in enumerate(gradients(30, shape)):
        for parameter in (ours[HIGH], theirs[HIGH]):
            parameter.grad = gradient.clone()
        small.step(count)
        wide.step(count)
    bytes_ = sum(t.numel() * t.element_size() for name, t in small.tensors().items() if "steps" not in name)
    assert bytes_ <= 2.05 * start.numel()
    changes = [(p[HIGH].detach() - start).flatten() for p in (ours, theirs)]
    assert torch.nn.functional.cosine_similarity(*changes, dim=0) > 0.99
    assert relative_error(*changes) < 0.15


@pytest.mark.parametrize("small", [False, True])
def test_taken_up_it_goes_on_bit_for_bit(small: bool) -> None:
    straight, first = made(), made()
    whole, before = AdamW(straight, RATES, small=small), AdamW(first, RATES, small=small)
    steps = gradients(6)
    for count, gradient in enumerate(steps):
        straight[HIGH].grad = gradient.clone()
        whole.step(count)
    for count, gradient in enumerate(steps[:3]):
        first[HIGH].grad = gradient.clone()
        before.step(count)
    second = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in first.items()}
    after = AdamW(second, RATES, small=small)
    after.load({name: tensor.clone() for name, tensor in before.tensors().items()})
    for count, gradient in enumerate(steps[3:], 3):
        second[HIGH].grad = gradient.clone()
        after.step(count)
    assert torch.equal(second[HIGH], straight[HIGH])
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, after.tensors()[name]), name


def test_what_is_impossible_is_named() -> None:
    with pytest.raises(ConfigError, match="high nan"):
        Rates(high=float("nan"), low=0, audio=0, bridge=0)
    with pytest.raises(ConfigError, match="clip -1"):
        Rates(high=0, low=0, audio=0, bridge=0, clip=-1)
    with pytest.raises(ConfigError, match="nothing to train"):
        AdamW({}, RATES)
    kept = AdamW(made(), RATES)
    kept.parameters[HIGH].grad = torch.ones(7, 60)
    kept.step(0)
    with pytest.raises(ConfigError, match="another run"):
        AdamW(made(), RATES, small=True).load(kept.tensors())
    with pytest.raises(ConfigError, match="another run"):
        AdamW({AUDIO: made()[AUDIO]}, RATES).load(kept.tensors())
