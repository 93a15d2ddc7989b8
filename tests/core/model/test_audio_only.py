"""The audio tower alone, asking the keys and values of an earlier forward, is the audio tower beside the video."""

from dataclasses import replace

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.model.audio_only import audio_velocity
from mova_core.ops import PLAIN, Runtime
from tests.fixtures.tiny_model import TINY, tiny_inputs, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


INPUTS = tiny_inputs(batch=2)


def kept_of(model, run=PLAIN, **changes):
    """What a full forward keeps, and its audio velocity."""
    kept = {}
    velocities = replace(INPUTS, **changes).run(model, runtime=replace(run, keep=kept.__setitem__))
    return kept, velocities[1]


def alone(model, kept, run=PLAIN, **changes):
    given = replace(INPUTS, **changes)
    with torch.no_grad():
        return audio_velocity(model, given.audio, given.context, given.audio_timestep, kept, run)


@pytest.mark.parametrize("strength", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("rows", [None, 4])
def test_at_the_noise_level_of_the_full_forward_it_gives_the_same_velocity(model, strength, rows):
    run = Runtime(video_to_audio=strength, query_rows=rows, ffn_rows=rows)
    kept, wanted = kept_of(model, run)
    assert all((pair is None) == (strength == 0) for pair in kept.values())
    assert torch.equal(alone(model, kept, run), wanted)


def test_the_video_has_no_part_in_it_but_by_its_keys_and_values(model):
    """Other audio at another noise level, beside a video whose states cannot change: no bridge leads to it."""
    deaf = Runtime(audio_to_video=0.0)
    kept, _ = kept_of(model, deaf)
    changes = {"audio": INPUTS.audio.flip(-1), "audio_timestep": torch.tensor([5.0, 800.0])}
    wanted = replace(INPUTS, **changes).run(model, runtime=deaf)[1]
    assert torch.equal(alone(model, kept, deaf, **changes), wanted)


def test_keeping_changes_nothing(model):
    assert torch.equal(kept_of(model)[1], INPUTS.run(model)[1])


def test_what_is_heard_matters_and_is_scaled_by_the_bridges_strength(model):
    kept, _ = kept_of(model)
    deaf = dict.fromkeys(kept)
    assert not torch.allclose(alone(model, kept), alone(model, deaf))
    assert torch.equal(alone(model, kept, Runtime(video_to_audio=0.0)), alone(model, deaf))


def test_a_layer_that_a_patch_left_out_stays_out(model):
    def skipping(index, layer, video, audio):
        return (video, audio) if index == 1 else layer(video, audio)

    run = Runtime(layer=skipping)
    kept, wanted = kept_of(model, run)
    assert sorted(kept) == [0]
    assert torch.equal(alone(model, kept, run), wanted)


def test_audio_layers_beyond_the_bridge_are_walked_too():
    model = tiny_model(replace(TINY, bridge=replace(TINY.bridge, layers=1)))
    kept, wanted = kept_of(model)
    assert kept[1] is None
    assert torch.equal(alone(model, kept), wanted)


def two_streams(model, run=PLAIN):
    """A second stream of sound with a prompt, latents and noise level of its own."""
    other = {
        "audio": torch.cat((INPUTS.audio, INPUTS.audio.flip(-1))),
        "audio_timestep": torch.cat((INPUTS.audio_timestep, torch.tensor([800.0, 40.0]))),
    }
    texts = torch.cat((INPUTS.context, INPUTS.context.flip(1) * 0.5))
    kept = {}
    run = replace(run, keep=kept.__setitem__)
    made = replace(INPUTS, **other).run(model, audio_context=texts, runtime=run)
    return made, kept, other, texts


@pytest.mark.parametrize("rows", [None, 4])
def test_a_second_stream_of_sound_hears_the_video_and_is_not_heard(model, rows):
    run = Runtime(query_rows=rows, ffn_rows=rows)
    (video, audio), kept, other, texts = two_streams(model, run)
    wanted = INPUTS.run(model, runtime=run)
    torch.testing.assert_close(video, wanted[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(audio[:2], wanted[1], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        second = audio_velocity(model, other["audio"][2:], texts[2:], other["audio_timestep"][2:], kept, run)
        both = audio_velocity(model, other["audio"], texts, other["audio_timestep"], kept, run)
    torch.testing.assert_close(audio[2:], second, atol=1e-6, rtol=1e-5)
    assert torch.equal(both, audio)


def test_streams_that_do_not_fit_the_batch_are_refused(model):
    three = torch.cat((INPUTS.audio, INPUTS.audio[:1]))
    with pytest.raises(ShapeError, match="audio latents"):
        replace(INPUTS, audio=three).run(model)
    twice = replace(INPUTS, audio=torch.cat((INPUTS.audio, INPUTS.audio)))
    with pytest.raises(ShapeError, match="audio latents"):
        twice.run(model)
