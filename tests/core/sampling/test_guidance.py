"""Guidance obeys equation 6 and its special cases, and evaluates the model no more often than they need."""

import math

import pytest
import torch

from mova_core.errors import ConfigError
from mova_core.sampling.guidance import Guidance, dual_guidance, guide, rescale_guidance, text_guidance
from tests.golden import SETS, tensors


def velocities(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 3, 2, 2, generator=generator).to(dtype), torch.randn(2, 8, 5, generator=generator).to(
        dtype
    )


PLAIN, BRIDGED, FULL = velocities(0), velocities(1), velocities(2)
BRANCHES = {(False, False): PLAIN, (False, True): BRIDGED, (True, True): FULL}


def logged(guidance):
    """The guided velocities, and which (positive, bridge) evaluations they took."""
    calls = []

    def predict(positive, bridge):
        calls.append((positive, bridge))
        return BRANCHES[positive, bridge]

    return guide(predict, guidance), calls


def close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


@pytest.mark.parametrize("folder", SETS)
def test_text_guidance_equals_the_official_one(folder):
    golden, config = tensors("c_loop_fp32", folder)
    for step in range(config["call"]["num_inference_steps"]):
        pos, neg, theirs = (
            (golden[f"step{step}/{name}.video"], golden[f"step{step}/{name}.audio"])
            for name in ("pred_pos", "pred_neg", "guided")
        )
        assert all(map(torch.equal, text_guidance(pos, neg, config["call"]["cfg_scale"]), theirs))


def test_scale_1_is_exactly_the_positive_and_0_the_negative():
    assert all(map(torch.equal, text_guidance(FULL, BRIDGED, 1), FULL))
    assert all(map(torch.equal, text_guidance(FULL, BRIDGED, 0), BRIDGED))


def test_video_and_audio_may_have_scales_of_their_own():
    video, audio = text_guidance(FULL, BRIDGED, 5, 1)
    assert torch.equal(video, text_guidance(FULL, BRIDGED, 5)[0])
    assert torch.equal(audio, FULL[1])


def test_bridge_scale_1_is_text_guidance():
    close(dual_guidance(PLAIN, BRIDGED, FULL, 1, 5, 3), text_guidance(FULL, BRIDGED, 5, 3))


def test_equal_scales_guide_from_nothing_to_everything():
    close(dual_guidance(PLAIN, BRIDGED, FULL, 4, 4), text_guidance(FULL, PLAIN, 4))


def test_dual_guidance_is_linear_in_each_scale():
    at = {(b, t): dual_guidance(PLAIN, BRIDGED, FULL, b, t) for b in (0, 1, 2) for t in (0, 1, 2)}
    assert all(map(torch.equal, at[0, 0], PLAIN))
    for b, t in at:
        expected = [at[0, 0][m] + b * (at[1, 0][m] - at[0, 0][m]) + t * (at[0, 1][m] - at[0, 0][m]) for m in range(2)]
        close(at[b, t], expected)


@pytest.mark.parametrize(
    ("guidance", "calls"),
    [
        (Guidance(text_scale=1), [(True, True)]),
        (Guidance(text_scale=5), [(True, True), (False, True)]),
        (Guidance(text_scale=1, audio_text_scale=3), [(True, True), (False, True)]),
        (Guidance(text_scale=4, bridge_scale=4), [(True, True), (False, False)]),
        (Guidance(text_scale=5, bridge_scale=3.5), [(True, True), (False, False), (False, True)]),
    ],
)
def test_guidance_takes_no_evaluation_it_does_not_need(guidance, calls):
    ours, made = logged(guidance)
    assert made == calls
    close(ours, dual_guidance(PLAIN, BRIDGED, FULL, guidance.bridge_scale, guidance.text_scale, guidance.audio))


def test_guidance_is_computed_in_float32():
    half = [velocities(seed, torch.bfloat16) for seed in (0, 1, 2)]
    whole = [(video.float(), audio.float()) for video, audio in half]
    assert all(map(torch.equal, dual_guidance(*half, 3.5, 5), dual_guidance(*whole, 3.5, 5)))
    assert all(map(torch.equal, text_guidance(half[0], half[1], 1), whole[0]))


def test_full_rescale_gives_every_sample_the_spread_of_its_positive():
    guided = text_guidance(FULL, BRIDGED, 5)
    for ours, positive in zip(rescale_guidance(guided, FULL, 1), FULL, strict=True):
        for sample, reference in zip(ours, positive, strict=True):
            torch.testing.assert_close(sample.std(), reference.std())
    close(logged(Guidance(rescale=1))[0], rescale_guidance(guided, FULL, 1))


def test_rescale_0_changes_nothing_and_a_flat_velocity_is_no_accident():
    guided = text_guidance(FULL, BRIDGED, 5)
    assert all(map(torch.equal, rescale_guidance(guided, FULL, 0), guided))
    flat = (torch.zeros_like(FULL[0]), torch.zeros_like(FULL[1]))
    assert all(map(torch.equal, rescale_guidance(flat, FULL, 1), flat))


@pytest.mark.parametrize("scales", [{"text_scale": math.nan}, {"bridge_scale": math.inf}, {"rescale": 1.5}])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(ConfigError, match="must be"):
        Guidance(**scales)
