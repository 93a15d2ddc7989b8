"""Sizes agree with the official code and with each other; impossible ones are refused with the nearest possible."""

import math

import pytest

from mova_core import shapes
from mova_core.errors import ShapeError
from tests.golden import tensors


def test_a_clip_is_one_frame_and_then_four_a_latent_frame():
    assert [shapes.latent_frames(frames) for frames in (1, 5, 121, 193)] == [1, 2, 31, 49]


def test_latent_frames_decode_to_the_frames_they_came_from():
    assert all(shapes.latent_frames(shapes.frames_of(n)) == n for n in range(1, 100))


@pytest.mark.parametrize(("frames", "nearest"), [(2, "1 and 5"), (192, "189 and 193"), (0, "1, the next 5")])
def test_other_frame_counts_are_refused_naming_the_nearest(frames, nearest):
    with pytest.raises(ShapeError, match=f"{frames} frames.*{nearest}"):
        shapes.latent_frames(frames)


@pytest.mark.parametrize("size", [(640, 352), (1280, 720), (720, 1280), (16, 16)])
def test_sizes_of_whole_tokens_are_accepted(size):
    shapes.check_size(*size)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((640, 360), "are 640x352 and 640x368"), ((650, 361), "are 640x352 and 656x368"), ((3, -5), "is 16x16")],
)
def test_other_sizes_are_refused_naming_the_nearest(size, nearest):
    with pytest.raises(ShapeError, match=nearest):
        shapes.check_size(*size)


@pytest.mark.parametrize("fps", [0, -24, math.nan, math.inf])
def test_frame_rates_without_a_duration_are_refused(fps):
    with pytest.raises(ShapeError, match="positive rate"):
        shapes.audio_steps(193, fps)


def test_no_frame_or_less_than_a_sample_makes_no_sound():
    with pytest.raises(ShapeError, match="at least 1"):
        shapes.audio_samples(0, 24)
    with pytest.raises(ShapeError, match="lower the frame rate"):
        shapes.audio_samples(1, 50_000)


def test_impossible_shapes_cannot_be_constructed():
    for frames, height, batch in ((192, 352, 1), (193, 360, 1), (193, 352, 0)):
        with pytest.raises(ShapeError):
            shapes.VideoShape(batch=batch, frames=frames, height=height, width=640)
    with pytest.raises(ShapeError):
        shapes.AudioShape(batch=1, steps=0)


@pytest.mark.parametrize(
    ("height", "width", "latents", "tokens"),
    [(352, 640, (1, 16, 49, 44, 80), 43_120), (720, 1280, (1, 16, 49, 90, 160), 176_400)],
)
def test_trained_sizes_have_the_published_latents_and_tokens(height, width, latents, tokens):
    shape = shapes.VideoShape(batch=1, frames=193, height=height, width=width)
    assert shapes.video_latent_shape(shape) == latents
    assert shapes.video_tokens(shape) == tokens


def test_eight_seconds_of_sound_are_403_steps():
    sound = shapes.AudioShape(batch=2, steps=shapes.audio_steps(193, 24))
    assert shapes.audio_latent_shape(sound) == (2, 128, 403)


def test_sound_is_as_long_as_the_official_code_makes_it():
    table = tensors("e_dac_cases")[0]["audio_length_table"].tolist()
    for frames, fps, samples, steps, decoded in table:
        assert shapes.audio_samples(int(frames), fps) == samples
        assert shapes.audio_steps(int(frames), fps) == steps
        assert steps * shapes.PUBLISHED_GRID.hop_length == decoded


def test_no_sample_is_lost_to_rounding():
    for frames, fps in ((29, 25), (69, 30), (153, 60)):  # frames / fps first would give one sample less
        assert shapes.audio_samples(frames, fps) == shapes.PUBLISHED_GRID.sample_rate // fps * frames


def test_decoded_video_and_sound_differ_by_less_than_one_step():
    for fps in (1, 7.5, 12, 15, 16, 23.976, 24, 25, 29.97, 30, 48, 50, 60, 120):
        for n in range(1, 120):
            frames = shapes.frames_of(n)
            sound = shapes.audio_steps(frames, fps) / shapes.PUBLISHED_GRID.steps_per_second
            assert -1 / shapes.PUBLISHED_GRID.sample_rate < sound - shapes.clip_seconds(frames, fps) < 1 / 50


@pytest.mark.parametrize("fps", [16, 23.976, 24, 30])
def test_a_frame_is_found_again_by_its_time(fps):
    for frame in range(193):
        found = shapes.latent_frame_range(frame / fps, (frame + 1) / fps, 193, fps)
        assert found == range(-(-frame // 4), -(-frame // 4) + 1)  # frame 0 alone, then four each


def test_an_audio_step_is_found_again_by_its_time():
    assert all(shapes.audio_step_range(step / 50, (step + 1) / 50, 403) == range(step, step + 1) for step in range(403))


def test_time_spans_are_cut_to_the_clip_and_may_be_empty():
    assert shapes.latent_frame_range(-1, math.inf, 193, 24) == range(49)
    assert shapes.audio_step_range(8, 99, 403) == range(400, 403)
    assert not shapes.latent_frame_range(9, 10, 193, 24)
    assert not shapes.audio_step_range(2, 2, 403)


SLOW = shapes.AudioGrid(sample_rate=16000, hop_length=30)


def test_a_codec_of_another_rate_and_hop_counts_its_own_samples_and_steps():
    assert shapes.audio_samples(9, 24.0, SLOW) == 6000
    assert shapes.audio_steps(9, 24.0, SLOW) == 200
    assert shapes.audio_steps(193, 24.0, SLOW) == -(-int(16000 * 193 / 24) // 30)
    assert shapes.audio_step_range(0.1, 0.2, 200, SLOW.steps_per_second) == range(53, 107)


def test_the_rate_of_steps_is_what_is_stated_else_what_fits():
    assert shapes.audio_step_rate(19, 9, 24.0) == 50.0  # the last step reaches past the end
    assert shapes.audio_step_rate(200, 9, 24.0) == pytest.approx(SLOW.steps_per_second)
    assert shapes.audio_step_rate(19, 9, 24.0, 53.0) == 53.0


def test_sound_of_another_codec_is_refused_and_a_few_steps_more_or_less_are_not():
    for steps in (150, 200, 201, 290):
        shapes.check_audio_steps(steps, 9, 24.0, SLOW)
    shapes.check_audio_steps(1, 1, 24.0, shapes.PUBLISHED_GRID)
    for steps in (19, 130, 320):
        with pytest.raises(shapes.ShapeError, match="16000 Hz"):
            shapes.check_audio_steps(steps, 9, 24.0, SLOW)
    with pytest.raises(shapes.ShapeError):
        shapes.AudioGrid(sample_rate=48000, hop_length=0)
