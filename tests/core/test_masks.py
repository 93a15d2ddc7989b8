"""Masks of a joint latent, and guide frames, by time and by frame."""

import pytest
import torch

from mova_core.errors import ShapeError
from mova_core.image import condition_clip, condition_mask, guide_clip, guide_mask
from mova_core.masks import joint_masks, lead_masks

VIDEO, AUDIO = (1, 16, 13, 4, 6), (1, 8, 103)  # 49 frames at 24 a second


@pytest.mark.parametrize("part", ["nothing", "all"])
def test_a_whole_stream_is_made_or_kept(part):
    video, audio = joint_masks(VIDEO, AUDIO, part, "all", 0, 0, 24.0)
    assert video.unique().tolist() == [float(part == "all")]
    assert audio.unique().tolist() == [1.0]


def test_a_span_makes_what_shows_and_sounds_in_it_and_keeps_the_rest():
    video, audio = joint_masks(VIDEO, AUDIO, "span", "span", 1.0, 1.5, 24.0)
    shown, heard = video[0, 0, :, 0, 0].nonzero().flatten().tolist(), audio[0, 0].nonzero().flatten().tolist()
    assert heard == list(range(50, 75))
    assert shown == [6, 7, 8, 9]  # frames 24 to 35 lie in groups 21-24, 25-28, 29-32, 33-36


def test_a_span_of_one_stream_keeps_the_other_whole():
    video, audio = joint_masks(VIDEO, AUDIO, "nothing", "span", 0.5, 1.0, 24.0)
    assert not video.any()
    assert audio.any()


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (5.0, 6.0)])
def test_a_span_outside_the_clip_is_refused_with_its_length(start, end):
    with pytest.raises(ShapeError, match=r"2\.042 s"):
        joint_masks(VIDEO, AUDIO, "span", "nothing", start, end, 24.0)


def test_a_lead_is_kept_and_the_rest_made():
    video, audio = lead_masks(VIDEO, AUDIO, 3, 20)
    assert video[0, 0, :, 0, 0].tolist() == [0.0] * 3 + [1.0] * 10
    assert audio[0, 0].tolist() == [0.0] * 20 + [1.0] * 83


def test_guides_at_the_ends_are_first_and_last_frame():
    first, last = torch.rand(1, 3, 16, 32), torch.rand(1, 3, 16, 32)
    guides = {0: first, 16: last}
    assert torch.equal(guide_clip(guides, 17), condition_clip(first, 17, last))
    assert torch.equal(guide_mask(guides, 17, 2, 4), condition_mask(17, 2, 4, last=True))
    assert torch.equal(guide_mask({0: first}, 17, 2, 4), condition_mask(17, 2, 4))


def test_a_guide_inside_the_clip_marks_its_own_frame_of_its_latent_frame():
    mask = guide_mask([6], 17, 1, 1)[0, :, :, 0, 0]
    assert mask.nonzero().tolist() == [[1, 2]]  # frames 5 to 8 make latent frame 2
    assert guide_clip({6: torch.ones(1, 3, 2, 2)}, 17)[0, 0, :, 0, 0].nonzero().flatten().tolist() == [6]


@pytest.mark.parametrize("frames", [[], [17], [-1, 3]])
def test_a_guide_outside_the_clip_is_refused(frames):
    with pytest.raises(ShapeError, match="from 0 to 16"):
        guide_mask(frames, 17, 1, 1)
