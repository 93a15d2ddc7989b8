"""Parts of a long clip on disk."""

import re

import pytest
import torch

from mova_core.errors import CheckpointError, ShapeError
from mova_core.inputs.sounds import Sound
from mova_core.segments import check_alike, joined_sound, open_segment, segment_path, segments, write_segment
from mova_core.shapes import audio_samples
from tests.fixtures.vanishing import at_every_look

FPS, RATE, FRAMES = 24.0, 48000, 9


def write(folder, index, frames=9, fps=FPS):
    pictures = torch.rand(frames, 16, 32, 3, generator=torch.Generator().manual_seed(index))
    sound = torch.randn(1, audio_samples(frames, fps), generator=torch.Generator().manual_seed(index)) * 0.1
    return write_segment(segment_path(folder, index), pictures, heard(sound), fps), pictures, sound


def heard(sound, rate=RATE):
    return Sound(waveform=sound[None], rate=rate)


def same(sound, rate, to):
    """No part is of another rate here."""
    assert rate == to
    return sound


def test_what_was_written_is_read_again_in_slices(tmp_path):
    segment, pictures, sound = write(tmp_path, 0)
    assert open_segment(segment.path) == segment
    assert (segment.pictures(4, 7) / 255 - pictures[4:7]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(segment.sound()[0], sound)
    assert [path.name for path in tmp_path.iterdir()] == ["000.safetensors"]


def test_segments_come_in_order_and_a_gap_is_named(tmp_path):
    for index in (1, 0, 2):
        write(tmp_path, index)
    assert [part.path.stem for part in segments(tmp_path)] == ["000", "001", "002"]
    (tmp_path / "001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks segment 001"):
        segments(tmp_path)


def test_no_segment_at_all_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="lacks segment 000"):
        segments(tmp_path)


def test_sound_of_ten_parts_is_as_long_as_their_pictures(tmp_path):
    parts = [write(tmp_path, index, frames=13)[0] for index in range(10)]
    assert joined_sound(parts, 5, RATE, same).shape == (1, 1, audio_samples(13 + 9 * 8, FPS))


def test_sound_of_another_length_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="18000 samples, the sound has 8000"):
        write_segment(tmp_path / "000.safetensors", torch.rand(9, 8, 8, 3), heard(torch.zeros(1, 8000)), FPS)


@pytest.mark.parametrize("samples", [17999, 18001, 17000, 20000])
def test_a_sound_that_ends_a_little_early_or_late_is_fitted(tmp_path, samples):
    part = write_segment(tmp_path / "000.safetensors", torch.rand(9, 8, 8, 3), heard(torch.ones(1, samples)), FPS)
    assert part.sound().shape == (1, 1, 18000)


def test_a_part_without_sound_is_silent_among_others_and_none_alone(tmp_path):
    silent = write_segment(segment_path(tmp_path, 0), torch.rand(9, 16, 32, 3), None, FPS)
    assert (silent.sample_rate, silent.sound()) == (0, None)
    assert open_segment(silent.path) == silent
    assert joined_sound([silent, silent], 5, RATE, same) is None
    sound = joined_sound([silent, write(tmp_path, 1)[0]], 5, RATE, same)
    assert sound.shape == (1, 1, audio_samples(13, FPS))
    assert not sound[..., : audio_samples(4, FPS)].any()
    assert sound.any()


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path):
    one, other = write(tmp_path, 0)[0], write(tmp_path, 1, fps=30.0)[0]
    with pytest.raises(ShapeError, match=r"001.safetensors has 32 x 16 at 30 .* 000.safetensors has 32 x 16 at 24"):
        check_alike([one, other], 1)
    with pytest.raises(ShapeError, match="no more than the overlap of 9"):
        check_alike([one, one], 9)


def test_another_safetensors_file_is_no_segment(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "000.safetensors")
    with pytest.raises(CheckpointError, match="no segment"):
        open_segment(tmp_path / "000.safetensors")


@pytest.mark.parametrize("gone", ["clip", "clip/001.safetensors"])
def test_a_part_that_vanishes_while_it_is_read_is_named_as_missing(tmp_path, gone):
    folder = tmp_path / "clip"

    def make():
        for index in range(2):
            write(folder, index)

    def read():
        try:
            parts = segments(folder)
            return sum(len(part.pictures()) + part.sound().shape[-1] for part in parts)
        except CheckpointError as refused:
            return str(refused)

    told = [made for _, made in at_every_look(tmp_path / gone, make, read)]
    assert len(told) > 4
    alone = {made for made in told if isinstance(made, int)}  # the folder was listed without it: a shorter clip
    assert len(alone) <= 1
    for said in set(told) - alone:
        assert re.search(r"part 00[01] is not there|00[01]\.safetensors is gone. Make this part again", said)


def test_a_part_is_saved_though_its_folder_vanishes_meanwhile(tmp_path):
    folder = tmp_path / "clip"

    def save():
        try:
            return write(folder, 1, FRAMES)[0].frames
        except CheckpointError as refused:
            return str(refused)

    told = [made for _, made in at_every_look(folder, lambda: write(folder, 0), save)]
    assert len(told) > 4
    assert all(made == FRAMES or "is gone. Make this part again" in made for made in told)
