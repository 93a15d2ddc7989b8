"""Guidance says the same of velocities, of denoised latents, and of an audio stream carried on the video's schedule.

The core guides velocities; ComfyUI guides denoised latents, x - sigma * velocity. Each is an affine map of the other,
and the weights of equation 6 add up to 1.
"""

import pytest
import torch

from mova_core.sampling.guidance import dual_guidance, text_guidance


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, 4, 3, 2, 2), (2, 8, 5)
    video, audio = (torch.randn(shape, generator=generator, dtype=torch.float64).float() for shape in shapes)
    return video, audio


LATENTS, PLAIN, BRIDGED, FULL = (pair(seed) for seed in range(4))
BRANCHES = (PLAIN, BRIDGED, FULL)


def denoised(velocities: tuple[torch.Tensor, ...], sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    video, audio = (x - sigma * v for x, v in zip(LATENTS, velocities, strict=True))
    return video, audio


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.05])
@pytest.mark.parametrize("scales", [(3.5, 5.0, 5.0), (2.0, 1.0, 3.0), (4.0, 4.0, 4.0), (0.0, 5.0, 0.5)])
def test_guiding_denoised_latents_is_guiding_velocities(sigma, scales):
    ours = dual_guidance(*(denoised(v, sigma) for v in BRANCHES), *scales)
    theirs = denoised(dual_guidance(*BRANCHES, *scales), sigma)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


@pytest.mark.parametrize("share", [-0.8, 0.4])
def test_guiding_a_stream_that_carries_a_share_of_its_latent_is_guiding_the_stream(share):
    def carried(velocities):
        return velocities[0], share * LATENTS[1] + 0.7 * velocities[1]

    ours = dual_guidance(*(carried(v) for v in BRANCHES), 3.5, 5, 3)
    theirs = carried(dual_guidance(*BRANCHES, 3.5, 5, 3))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_equation_6_is_text_guidance_plus_a_bridge_term():
    text = text_guidance(FULL, BRIDGED, 5, 3)
    ours = [t + 2.5 * (b - p) for t, b, p in zip(text, BRIDGED, PLAIN, strict=True)]
    for a, b in zip(ours, dual_guidance(*BRANCHES, 3.5, 5, 3), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
