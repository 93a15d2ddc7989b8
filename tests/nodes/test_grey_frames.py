"""The first picture is encoded with no more grey frames than the encoder looks back: the same latents, for less."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mova_core.image import frames_to_encode, temporal_reach
from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Scene

pytestmark = needs_comfy


def clip(guides: dict[int, float], frames: int) -> torch.Tensor:
    made = torch.full((frames, 16, 16, 3), 0.5)
    for frame, seed in guides.items():
        made[frame] = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(int(seed)))
    return made


@pytest.mark.parametrize(
    ("guides", "frames"), [({0: 1}, 193), ({0: 1}, 149), ({0: 1, 20: 2}, 193), ({0: 1}, 17), ({150: 1}, 193)]
)
def test_the_latents_are_those_of_the_whole_clip(
    pack: Pack, scene: Scene, guides: dict[int, float], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, seen = clip(guides, frames), []
    whole = scene.vae.encode(pictures)
    real = scene.vae.encode
    monkeypatch.setattr(scene.vae, "encode", lambda part: seen.append(len(part)) or real(part))
    made = pack.module("nodes.host.loaders.grey_frames").encoded(scene.vae, pictures, max(guides))
    torch.testing.assert_close(made, whole, atol=1e-6, rtol=1e-6)
    assert seen == [frames_to_encode(max(guides), 112, frames)]
    assert seen[0] == {0: min(frames, 117), 20: 137, 150: 193}[max(guides)]


def test_the_reach_is_that_of_the_layers(scene: Scene) -> None:
    """Of published and tiny VAEs alike; a frame beyond it changes nothing, one within it may."""
    inner: Any = scene.vae.first_stage_model
    assert temporal_reach(inner.encoder) == 112
    still, moved = clip({}, 149), clip({0: 1}, 149)
    difference = (scene.vae.encode(still) - scene.vae.encode(moved)).abs().amax(dim=(0, 1, 3, 4))
    assert bool((difference[29:] < 1e-6).all())
    assert difference[0] > 1e-3


def test_another_kind_of_vae_encodes_every_frame(pack: Pack) -> None:
    class Other:
        def encode(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 16, 1, 1, 1), float(len(pictures)))

    made = pack.module("nodes.host.loaders.grey_frames").encoded(Other(), clip({0: 1}, 193), 0)
    assert set(made.flatten().tolist()) == {193.0}
