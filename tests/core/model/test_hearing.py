"""The audio tower alone, with what it heard of the video, is the audio tower beside the video."""

from dataclasses import replace

import pytest
import torch

from mova_core.model.hearing import Hearing, hear
from mova_core.ops import Runtime
from tests.fixtures.tiny_model import tiny_inputs, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


INPUTS = tiny_inputs(batch=2)


def recorded(model, run=None):
    hearing = Hearing()
    velocities = INPUTS.run(model, runtime=hearing.recording(run or Runtime()))
    return hearing.heard(), velocities[1]


def alone(model, heard, run=None, **changes):
    given = replace(INPUTS, **changes)
    with torch.no_grad():
        return hear(model, given.audio, given.context, given.audio_timestep, heard, run or Runtime())


@pytest.mark.parametrize("strength", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("rows", [None, 4])
def test_repeating_the_same_step_gives_the_same_velocity(model, strength, rows):
    run = Runtime(video_to_audio=strength, query_rows=rows, ffn_rows=rows)
    heard, wanted = recorded(model, run)
    assert all((message is None) == (strength == 0) for layer, message in heard.items() if layer < 2)
    torch.testing.assert_close(alone(model, heard, run), wanted, atol=1e-6, rtol=1e-5)


def test_recording_changes_nothing(model):
    assert torch.equal(recorded(model)[1], INPUTS.run(model)[1])


def test_where_nothing_was_heard_it_is_the_tower_alone_at_any_step(model):
    apart = Runtime(video_to_audio=0.0)
    heard, _ = recorded(model, apart)
    changes = {"audio": INPUTS.audio.flip(-1), "audio_timestep": torch.tensor([5.0, 800.0])}
    wanted = replace(INPUTS, **changes).run(model, runtime=apart)[1]
    torch.testing.assert_close(alone(model, heard, **changes), wanted, atol=1e-6, rtol=1e-5)


def test_what_was_heard_matters_and_is_scaled_by_the_bridges_strength(model):
    heard, _ = recorded(model)
    deaf = dict.fromkeys(heard)
    assert not torch.allclose(alone(model, heard), alone(model, deaf))
    assert torch.equal(alone(model, heard, Runtime(video_to_audio=0.0)), alone(model, deaf))


def test_a_layer_that_a_patch_left_out_stays_out(model):
    def skipping(index, layer, video, audio):
        return (video, audio) if index == 1 else layer(video, audio)

    run = Runtime(layer=skipping)
    heard, wanted = recorded(model, run)
    assert sorted(heard) == [0, 2]
    torch.testing.assert_close(alone(model, heard, run), wanted, atol=1e-6, rtol=1e-5)
