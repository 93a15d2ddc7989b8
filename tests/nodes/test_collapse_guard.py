"""The guard of MOVA Sampler, on a run whose estimate is made to collapse."""

import logging

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import equal

pytestmark = needs_comfy


@pytest.fixture
def flat_seeds(pack, monkeypatch):
    """Seeds whose denoised picture is replaced, for the guard's eyes, by one colour."""
    seeds: set[int] = set()
    module = pack.module("nodes.host.sampling.collapse_guard")
    plain = module.guard

    def guard(values, seed, stop, first=None):
        watch = plain(values, seed, stop, first)

        def blind(step, denoised, steps):
            if seed in seeds:
                flat = [stream.mean((-2, -1), keepdim=True).expand_as(stream) for stream in denoised.tensors[:1]]
                denoised = denoised.__class__([*flat, *denoised.tensors[1:]])
            watch(step, denoised, steps)

        return blind

    monkeypatch.setattr(module, "guard", guard)
    return seeds


def sample(run, scene, action, seed=5):
    return run(
        "MOVASampler",
        model=scene.model,
        positive=scene.positive,
        negative=scene.negative,
        latent=scene.latent,
        seed=seed,
        steps=6,
        cfg=1.0,
        collapse_guard=action,
    )


@pytest.mark.parametrize("action", ["warn", "stop", "reseed"])
def test_a_sound_run_is_left_alone_bit_for_bit(run, scene, action):
    plain, _ = sample(run, scene, "off")
    guarded, seed = sample(run, scene, action)
    assert equal(plain, guarded)
    assert seed == 5


def test_off_looks_at_nothing(run, scene, flat_seeds):
    flat_seeds.add(5)
    assert sample(run, scene, "off")[1] == 5


def test_warn_says_so_once_and_finishes(run, scene, flat_seeds, caplog):
    flat_seeds.add(5)
    with caplog.at_level(logging.WARNING, logger="mova"):
        made, seed = sample(run, scene, "warn")
    assert equal(made, sample(run, scene, "off")[0])
    assert seed == 5
    assert sum("flat colour" in record.message for record in caplog.records) == 1


def test_stop_names_the_seed_the_step_and_what_to_do(run, scene, flat_seeds):
    flat_seeds.add(5)
    with pytest.raises(ValueError, match=r"seed 5 .*step 4 of 6.*another seed or a first frame"):
        sample(run, scene, "stop")


def test_reseed_goes_on_to_the_seed_that_works_and_gives_its_clip(run, scene, flat_seeds):
    flat_seeds.update({5, 6})
    made, seed = sample(run, scene, "reseed")
    assert seed == 7
    assert equal(made, sample(run, scene, "off", seed=7)[0])


def test_reseed_gives_up_after_eight(run, scene, flat_seeds):
    flat_seeds.update(range(5, 20))
    with pytest.raises(ValueError, match="seed 12 "):
        sample(run, scene, "reseed")


def test_a_run_after_a_stopped_one_is_whole(run, scene, flat_seeds):
    before, _ = sample(run, scene, "off")
    flat_seeds.add(5)
    with pytest.raises(ValueError, match="flat colour"):
        sample(run, scene, "stop")
    assert equal(sample(run, scene, "off")[0], before)
    assert all(torch.isfinite(stream).all() for stream in before["samples"].unbind())


def test_a_clip_that_begins_with_a_picture_is_held_against_it(run, scene, pack):
    guard, given = (
        pack.module("nodes.host.sampling.collapse_guard"),
        {"vae": scene.vae, "width": 32, "height": 32, "frames": 5},
    )
    begun = {"positive": scene.positive, "negative": scene.negative, **given}
    dark = torch.zeros(1, 32, 32, 3)
    dark[:, 8:12, 20:24] = 1
    white, _, _ = run("MOVAImageToVideoAudio", **begun)
    pictured, _, _ = run("MOVAImageToVideoAudio", **begun, first_frame=dark)
    assert guard.first_spread(scene.model, white) is None
    found = guard.first_spread(scene.model, pictured)
    assert found.shape == (1,)
    assert found > 0
