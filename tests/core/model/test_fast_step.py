"""Memory of a fast step and its bytes over the bus, at full size without the memory (benchmarks/fast_step.py)."""

from functools import cache

import pytest
import torch

from benchmarks.fast_step import GIB, FastStep, account_fast_step
from benchmarks.peak import SIZE_360P, Clip
from mova_core.config import MOVA
from mova_core.estimate import FULL, Workload, activations, kept_keys_values, required
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import VideoShape

HEIGHT, WIDTH = SIZE_360P
LOAD = Workload.of(VideoShape(batch=1, frames=193, height=HEIGHT, width=WIDTH))
KEPT = kept_keys_values(MOVA, LOAD, 1)


@cache
def counted(quality: str, on_device: bool) -> FastStep:
    return account_fast_step(Clip(height=HEIGHT, width=WIDTH), MOVA, quality, on_device)


def test_the_peak_of_a_step_stays_within_its_limit() -> None:
    assert 5 * GIB < counted("light", True).peak <= (2.3 + 3.8) * GIB
    assert 2 * GIB < counted("standard", False).peak <= 2.9 * GIB  # with the states that wait for the teacher


def test_the_estimate_of_a_step_is_the_counted_one() -> None:
    assert activations(MOVA, LOAD, FULL) + KEPT == pytest.approx(counted("light", True).peak, rel=0.1)


def test_what_is_kept_goes_out_once_a_step_and_comes_back_four_times() -> None:
    away, here = counted("standard", False).kept, counted("light", True).kept
    assert (away.sent, away.fetched) == (KEPT, 4 * KEPT)
    assert (here.sent, here.fetched) == (0, 0)


def test_a_teacher_brings_at_most_the_weights_of_a_forward_again() -> None:
    weights, light = counted("standard", False).weights, counted("light", True).weights
    assert weights["picture"] == light["picture"]
    assert 0 < weights["teacher"] < weights["picture"]
    assert weights["sound"] == light["sound"]
    assert weights["sound"] < 0.1 * weights["picture"]  # once for all of its steps


def test_high_streamed_brings_at_most_the_weights_of_two_forwards_and_needs_no_more_room_for_it() -> None:
    """Its teacher begins at layer 0 and enters the last joint layer for the bridge's keys and values alone."""
    step, model = counted("standard", False), Mova(MOVA, device="meta", dtype=torch.bfloat16)
    layers = model.layer_modules(Runtime())
    ear = model.dual_tower_bridge.video_to_audio_conditioners[-1]
    sizes = [sum(p.numel() * 2 for module in layer for p in module.parameters()) for layer in [*layers, [ear]]]
    teacher = sum(sizes[: MOVA.bridge.layers - 1]) + sizes[-1]
    assert step.weights["teacher"] < teacher < step.weights["picture"] == sum(sizes[:-1])
    assert step.weights["picture"] + teacher + step.weights["sound"] <= 1.9 * step.weights["picture"]
    assert 2 * GIB < step.stay + step.peaks["sound"] <= required(MOVA, LOAD, FULL, sizes[0])
