"""A teacher gives the sound the keys and values of a forward of its own weights, in fewer layers."""

from dataclasses import replace

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.model.teacher import collect, with_states_kept
from mova_core.ops import PLAIN, Runtime
from tests.fixtures.tiny_model import TINY, tiny_inputs, tiny_model

DEEP = replace(
    TINY,
    video=replace(TINY.video, layers=4),
    audio=replace(TINY.audio, layers=3),
    bridge=replace(TINY.bridge, layers=3),
)
INPUTS = tiny_inputs(DEEP, batch=2)


@pytest.fixture(scope="module")
def model():
    return tiny_model(DEEP)


def full(model, start=None):
    """Keys and values of a full forward, and the states at `start`."""
    kept, states = {}, []
    run = replace(PLAIN, keep=kept.__setitem__)
    INPUTS.run(model, runtime=run if start is None else with_states_kept(run, start, states.append))
    return kept, (states or [None])[0]


def taught(model, run=PLAIN, start=0, states=None):
    kept = {}
    texts, times = (INPUTS.context, INPUTS.context), (INPUTS.video_timestep, INPUTS.audio_timestep)
    more = {"condition": INPUTS.condition, "fps": INPUTS.fps, "runtime": replace(run, keep=kept.__setitem__)}
    with torch.no_grad():
        collect(model, INPUTS.video, INPUTS.audio, texts, times, **more, start=start, states=states)
    return kept


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(a, b) for layer in one for a, b in zip(one[layer], other[layer], strict=True)
    )


def test_a_teacher_of_the_same_weights_gives_the_same_keys_and_values(model):
    assert same(taught(model), full(model)[0])


@pytest.mark.parametrize("start", [1, 2])
def test_so_does_one_that_starts_later_from_the_states_of_the_forward(model, start):
    kept, states = full(model, start)
    made = taught(model, start=start, states=states)
    assert sorted(made) == list(range(start, 3))
    assert same(made, {layer: pair for layer, pair in kept.items() if layer >= start})


def test_one_that_starts_after_the_last_joint_layer_does_nothing(model):
    assert taught(model, start=3, states=full(model, 3)[1]) == {}


def test_a_start_of_its_own_needs_states(model):
    for start in (1, 4, -1):
        with pytest.raises(ShapeError, match=r"starts at a layer of 0\.\.3"):
            taught(model, start=start)


def test_the_later_it_starts_the_less_it_differs_and_its_own_weights_decide(model):
    other = tiny_model(DEEP)
    with torch.no_grad():
        for block in other.blocks:
            block.self_attn.q.weight.mul_(1.5)
    kept, states = full(model, 1)
    whole, later = taught(other), taught(other, start=1, states=states)
    assert torch.equal(later[1][0], kept[1][0])  # of the states that came in
    assert not torch.allclose(later[2][0], kept[2][0])
    assert not torch.allclose(whole[1][0], kept[1][0])


def test_the_last_layer_is_entered_for_its_keys_and_values_alone(model):
    layers = []

    def prefetch(modules):
        layers.extend(modules)
        for _ in range(len(modules) + 1):
            yield

    ran = []
    run = Runtime(
        prefetch=prefetch,
        attention=lambda q, k, v, heads, site, place=None: ran.append(site) or PLAIN.attention(q, k, v, heads, site),
    )
    taught(model, run)
    assert ran.count("video.self") == 2
    assert layers[-1] == [model.dual_tower_bridge.video_to_audio_conditioners[2]]


def test_where_the_sound_is_cut_off_from_the_picture_nothing_runs(model):
    assert taught(model, Runtime(video_to_audio=0.0, attention=lambda *_: 1 / 0)) == {}
