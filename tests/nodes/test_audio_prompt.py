"""A prompt for the sound reaches the audio tower, and the picture only through the bridge."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes import graph
from tests.nodes.conftest import PROMPT, condition
from tests.nodes.graph import Run, Scene, check_finite, equal, streams

pytestmark = needs_comfy

SOUND = "A man whistles in a cave while water drips."


def prompted(run: Run, scene: Scene, **more: str) -> Scene:
    texts = run("MOVATextEncode", clip=scene.clip, prompt=PROMPT, negative_prompt="blurry, static", **more)
    picture = torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(3))
    positive, negative, latent = condition(run, texts, scene.vae, first_frame=picture)[:3]
    return scene.but(positive=positive, negative=negative, latent=latent)


sampled = partial(graph.sampled, steps=3, cfg=5.0)


def test_no_audio_prompt_and_the_same_one_are_the_same_clip(run: Run, scene: Scene) -> None:
    plain = sampled(run, prompted(run, scene), cfg=1.0)
    assert equal(plain, sampled(run, prompted(run, scene, audio_prompt=" \n"), cfg=1.0))
    assert equal(plain, sampled(run, prompted(run, scene, audio_prompt=PROMPT), cfg=1.0))


@pytest.mark.parametrize("scales", [{}, {"bridge_cfg": 3.5, "audio_cfg": 2.0}])
def test_without_the_bridge_it_changes_the_sound_and_not_one_bit_of_the_picture(
    run: Run, scene: Scene, scales: dict[str, float]
) -> None:
    apart = scene.but(model=run("MOVABridgeStrength", model=scene.model, audio_to_video=0.0, video_to_audio=0.0)[0])
    # one condition a forward in both: on the CPU a batch of two is rounded otherwise than two of one
    one = sampled(run, prompted(run, apart, audio_prompt=SOUND), **scales)
    other = sampled(run, prompted(run, apart, audio_prompt=PROMPT), **scales)
    assert torch.equal(streams(one)[0], streams(other)[0])
    assert not torch.allclose(streams(one)[1], streams(other)[1])
    check_finite(one, scene.latent)


def test_through_the_bridge_it_reaches_the_picture(run: Run, scene: Scene) -> None:
    one, other = (sampled(run, prompted(run, scene, audio_prompt=words)) for words in (SOUND, PROMPT))
    assert not torch.allclose(streams(one)[0], streams(other)[0])


def test_combined_prompts_keep_theirs(run: Run, scene: Scene) -> None:
    with_sound, without = prompted(run, scene, audio_prompt=SOUND), prompted(run, scene)
    both = run("ConditioningCombine", conditioning_1=with_sound.positive, conditioning_2=without.positive)[0]
    made = sampled(run, without.but(positive=both))
    check_finite(made, scene.latent)
    assert not equal(made, sampled(run, without))
    assert not equal(made, sampled(run, with_sound))
