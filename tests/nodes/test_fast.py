"""The fast sampler's laws, exact on tiny random weights: what a level does to the sound, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.golden import relative_error
from tests.in_process import Pack
from tests.nodes.fast_runs import SEED, STEPS, by_recipe, patched
from tests.nodes.graph import Run, Scene, check_finite, equal, streams

pytestmark = needs_comfy


def made(run: Run, scene: Scene, **widgets: Any) -> dict[str, Any]:
    given = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    return run("MOVAFastSampler", **(given | {"seed": SEED, "steps": STEPS} | widgets))[0]


def plain(run: Run, scene: Scene, **widgets: Any) -> dict[str, Any]:
    given = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    return run("MOVASampler", **(given | {"seed": SEED, "steps": STEPS, "cfg": 1.0} | widgets))[0]


def test_one_substep_without_guidance_is_the_joint_sampler(run: Run, scene: Scene, pack: Pack) -> None:
    one = by_recipe(pack, scene, substeps=1, text_steps=0, audio_scale=1.0)
    wanted = plain(run, scene)
    assert relative_error(streams(one)[0], streams(wanted)[0]) < 1e-6
    assert relative_error(streams(one)[1], streams(wanted)[1]) < 1e-5


def test_the_picture_of_one_step_is_untouched_by_any_choice_for_the_sound(run: Run, scene: Scene, pack: Pack) -> None:
    model = patched(scene)
    clips = [
        by_recipe(pack, scene, model, steps=1, **more)
        for more in ({}, {"teacher": 0}, {"substeps": 2}, {"audio_scale": 1.0})
    ]
    for other in clips[1:]:
        assert torch.equal(streams(other)[0], streams(clips[0])[0])
        assert not torch.allclose(streams(other)[1], streams(clips[0])[1], atol=1e-4)
    guided = plain(run, scene.but(model=model), steps=1, cfg=2.0)
    assert torch.equal(streams(clips[0])[0], streams(guided)[0])


def test_a_teacher_without_a_lora_to_take_off_is_the_distilled_pass(run: Run, scene: Scene, pack: Pack) -> None:
    """Bit for bit where the picture is not guided; there both prompts are one batch, which rounds another way."""
    light = by_recipe(pack, scene, text_steps=0)
    for start in (0, 1):
        assert equal(by_recipe(pack, scene, patched(scene, 0.0), teacher=start, text_steps=0), light)
    guided = made(run, scene), made(run, scene, quality="high", teacher=scene.model)
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(streams(guided[0]), streams(guided[1])))


def test_a_teacher_that_starts_late_has_less_to_say(scene: Scene, pack: Pack) -> None:
    """At the last joint layer it reads the distilled states by the same bridge; after it, nothing is left to read."""
    model, layers = patched(scene, names=("self_attn.q", "ffn.0")), scene.model.model.sizes.bridge.layers
    light = by_recipe(pack, scene, model)
    assert equal(by_recipe(pack, scene, model, teacher=layers), light)
    late = by_recipe(pack, scene, model, teacher=layers - 1)
    assert relative_error(streams(late)[1], streams(light)[1]) < 1e-5
    assert relative_error(streams(by_recipe(pack, scene, model, teacher=0))[1], streams(light)[1]) > 1e-3


def test_the_teacher_is_the_plain_model(run: Run, scene: Scene, pack: Pack) -> None:
    """Where the picture is cut off from the sound and the LoRA changes no early layer, a held picture gives the plain
    model's sound: the keys and values are then all that the sound has of it."""
    latent = held(scene, pack)
    bridged = run("MOVABridgeStrength", model=scene.model, audio_to_video=0.0, video_to_audio=1.0)[0]
    still = scene.but(model=bridged, latent=latent)
    model = patched(still)
    high = by_recipe(pack, still, model, bridged, teacher=0, text_steps=0)
    assert relative_error(streams(high)[1], streams(by_recipe(pack, still, text_steps=0))[1]) < 1e-4
    assert relative_error(streams(by_recipe(pack, still, model, text_steps=0))[1], streams(high)[1]) > 1e-3


def held(scene: Scene, pack: Pack) -> dict[str, Any]:
    video, audio = streams(scene.latent)
    joint = pack.module("nodes.host.joint_latents").joint
    picture = torch.randn(video.shape, generator=torch.Generator().manual_seed(2))
    masks = joint(torch.zeros_like(video[:, :1]), torch.ones_like(audio[:, :1]))
    return {**scene.latent, "samples": joint(picture, audio), "noise_mask": masks}


@pytest.fixture
def forwards(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every evaluation, by its kind."""
    module, seen = pack.module("nodes.host.model.base_model"), []
    for name in ("_denoise", "_audio_only", "_taught"):
        real = getattr(module.MovaDiffusion, name)

        def logged(self: Any, x: Any, *rest: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            seen.extend([name] * len(x[0]))
            return real(self, x, *rest, **more)

        monkeypatch.setattr(module.MovaDiffusion, name, logged)
    return seen


@pytest.mark.parametrize("quality", ["light", "standard", "high"])
def test_a_run_is_nine_forwards_for_eight_steps(run: Run, scene: Scene, forwards: list[str], quality: str) -> None:
    clip = made(run, scene, steps=8, quality=quality, teacher=scene.model)
    check_finite(clip, scene.latent)
    assert forwards.count("_denoise") == 9
    assert forwards.count("_audio_only") == 8 * 4
    assert forwards.count("_taught") == (0 if quality == "light" else 8)


def test_max_is_twenty_guided_steps_of_the_plain_model(run: Run, scene: Scene, forwards: list[str]) -> None:
    clip = made(run, scene.but(model=patched(scene)), quality="max", teacher=scene.model)
    assert forwards.count("_denoise") == 40
    assert equal(clip, plain(run, scene, steps=20, cfg=5.0))


def test_a_batch_is_its_clips(run: Run, scene: Scene, pack: Pack) -> None:
    video, audio = streams(scene.latent)
    two = {
        **scene.latent,
        "samples": pack.module("nodes.host.joint_latents").joint(video.repeat(2, 1, 1, 1, 1), audio.repeat(2, 1, 1)),
    }
    model = patched(scene)
    both = by_recipe(pack, scene.but(latent={**two, "batch_index": [0, 1]}), model, teacher=0)
    turned = by_recipe(pack, scene.but(latent={**two, "batch_index": [1, 0]}), model, teacher=0)
    for one, other in zip(streams(both), streams(turned)):
        torch.testing.assert_close(one, other.flip(0), atol=1e-4, rtol=1e-4)
    alone = by_recipe(pack, scene.but(latent={**scene.latent, "batch_index": [1]}), model, teacher=0)
    for one, other in zip(streams(both), streams(alone)):
        torch.testing.assert_close(one[1:], other, atol=1e-4, rtol=1e-4)


def test_guidance_of_the_sound_at_scale_1_is_no_guidance(scene: Scene, pack: Pack) -> None:
    """The second stream is then left out; at a scale just beside 1 it changes next to nothing."""
    none, nearly, some = (by_recipe(pack, scene, audio_scale=scale) for scale in (1.0, 1.00001, 2.0))
    assert 0 < relative_error(streams(nearly)[1], streams(none)[1]) < 1e-4
    assert relative_error(streams(some)[1], streams(none)[1]) > 1e-3


def test_it_works_with_bridge_strength_masks_windows_and_caches(run: Run, scene: Scene, pack: Pack) -> None:
    for node, widgets in {
        "MOVABridgeStrength": {"audio_to_video": 1.0, "video_to_audio": 0.5},
        "ContextWindowsManual": {"context_length": 2, "context_overlap": 1, "dim": 2},
        "EasyCache": {"reuse_threshold": 1.0, "start_percent": 0.0, "end_percent": 1.0},
        "MOVAMemory": {"mode": "low"},
    }.items():
        teacher = run(node, model=scene.model, **widgets)[0]
        clip = by_recipe(pack, scene, patched(scene.but(model=teacher)), teacher, teacher=1)
        check_finite(clip, scene.latent)
    deaf = run("MOVABridgeStrength", model=scene.model, audio_to_video=0.0, video_to_audio=0.0)[0]
    assert equal(by_recipe(pack, scene, deaf, deaf, teacher=0), by_recipe(pack, scene, deaf))
    latent = held(scene, pack)
    clip = by_recipe(pack, scene.but(latent=latent), patched(scene), teacher=0)
    torch.testing.assert_close(streams(clip)[0], streams(latent)[0], atol=1e-5, rtol=1e-5)


def test_what_cannot_be_is_refused_in_words(run: Run, scene: Scene, pack: Pack) -> None:
    errors = pack.module("mova_core.errors")
    with pytest.raises(errors.ConfigError, match="needs a teacher"):
        made(run, scene, quality="high")
    both = run("ConditioningCombine", conditioning_1=scene.negative, conditioning_2=scene.negative)[0]
    with pytest.raises(errors.ConfigError, match="one negative prompt"):
        made(run, scene.but(negative=both))
    low = run("MOVASplitExperts", model=scene.model)[1]
    with pytest.raises(errors.PatchError, match="different weights"):
        made(run, scene, quality="high", teacher=low)


def test_it_says_what_it_will_cost_and_what_runs(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: said.append(text))
    made(run, scene, quality="standard", teacher=scene.model)
    assert any(text.startswith("Step 2: sound 3 of 4") for text in said)
    assert any(text.startswith("Step 1: teacher") for text in said)
    assert all("4 forwards, 3 of the teacher from layer 10, 12 steps of the sound, about" in text for text in said)
