"""The recipe of few steps: what each quality costs at full size, and where the sound's own steps lie."""

from itertools import pairwise

import pytest
import torch

from mova_core.config import MOVA
from mova_core.errors import ConfigError
from mova_core.estimate import Workload, audio_only_work, kept_keys_values, recipe_work, teacher_work, work
from mova_core.sampling.fast import QUALITIES, Recipe, audio_steps_between, recipe_of
from mova_core.sampling.schedule import sigmas
from mova_core.shapes import VideoShape

GIB = 2**30


def load(height: int, width: int) -> Workload:
    return Workload.of(VideoShape(batch=1, frames=193, height=height, width=width))


@pytest.mark.parametrize("size", [(352, 640), (720, 1280)], ids=["360p", "720p"])
@pytest.mark.parametrize(("quality", "limit"), [("light", 0.095), ("standard", 0.135), ("high", 0.155), ("max", 0.4)])
def test_a_quality_takes_its_share_of_fifty_guided_steps(size, quality, limit):
    clip = load(*size)
    assert recipe_work(MOVA, clip, recipe_of(quality, 8)).total <= limit * 100 * work(MOVA, clip).total


def test_the_sounds_second_stream_and_its_own_steps_are_next_to_nothing():
    clip = load(352, 640)
    assert audio_only_work(MOVA, clip).total < 2e-3 * work(MOVA, clip).total  # three quarters of it asks the video


@pytest.mark.parametrize(("size", "small"), [((352, 640), 3.8), ((720, 1280), 15.2)])
def test_what_is_kept_in_eight_bits(size, small):
    assert kept_keys_values(MOVA, load(*size), 1) <= small * GIB
    assert kept_keys_values(MOVA, load(*size)) == 2 * kept_keys_values(MOVA, load(*size), 1)


def test_sparse_attention_leaves_out_of_the_run_and_of_its_teacher_what_it_leaves_out_of_a_forward():
    clip, recipe = load(720, 1280), recipe_of("high", 8)
    own = 4 * MOVA.video.width * clip.video**2  # of a layer
    layers = recipe.evaluations * MOVA.video.layers + recipe.steps * (MOVA.bridge.layers - 1)
    dense, sparse = (recipe_work(MOVA, clip, recipe, share) for share in (1.0, 0.25))
    assert dense == recipe_work(MOVA, clip, recipe)
    assert dense.attention - sparse.attention == pytest.approx(0.75 * own * layers, rel=1e-9)
    assert dense.matrix == sparse.matrix


def test_a_teacher_costs_less_the_later_it_starts_and_nothing_after_the_bridge():
    costs = [teacher_work(MOVA, load(352, 640), start).total for start in range(31)]
    assert all(later < before for before, later in pairwise(costs))
    assert costs[30] == 0
    assert costs[0] < 0.75 * work(MOVA, load(352, 640)).total


def test_the_sounds_steps_are_evenly_spaced_within_those_of_the_picture():
    coarse = sigmas(8, 7.0)
    fine = audio_steps_between(coarse, 4)
    assert torch.equal(fine[::4], coarse)
    assert torch.allclose(fine.diff().view(8, 4), (coarse.diff() / 4)[:, None].expand(8, 4), atol=1e-6)
    assert torch.equal(audio_steps_between(coarse, 1), coarse)


def test_the_first_step_alone_is_guided():
    recipe = recipe_of("high", 8)
    assert [recipe.text_scale_at(step) for step in range(8)] == [2.0] + 7 * [1.0]
    assert recipe.evaluations == 9
    assert recipe_of("max", 8).evaluations == 40
    assert {quality: recipe_of(quality, 8).teacher for quality in QUALITIES} == {
        "light": None,
        "standard": 10,
        "high": 0,
        "max": None,
        "full": None,
    }


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"substeps": -1}, {"teacher": 0, "substeps": 0}, {"teacher": -1}])
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(ConfigError):
        Recipe(**wrong)
    with pytest.raises(ConfigError, match="no quality"):
        recipe_of("fastest", 8)
