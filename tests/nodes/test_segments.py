"""A long clip made part by part through disk."""

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import FPS
from tools.routes.media import describe_mp4

pytestmark = needs_comfy


def part(run, index, frames=9, name="film"):
    images = torch.rand(frames, 48, 80, 3)
    audio = {"waveform": 0.1 * torch.randn(1, 1, int(48000 * frames / FPS)), "sample_rate": 48000}
    run("MOVASaveSegment", images=images, audio=audio, fps=FPS, name=name, index=index)
    return images, audio


def test_the_tail_of_a_part_is_its_last_pictures_and_their_sound(run):
    images, audio = part(run, 0)
    tail, sound, fps = run("MOVASegmentTail", name="film", index=0, overlap=5)
    assert torch.allclose(tail, images[-5:], atol=0.5 / 255 + 1e-6)
    assert torch.equal(sound["waveform"], audio["waveform"][..., -int(48000 * 5 / FPS) :])
    assert fps == FPS


def test_the_tail_continues_into_the_next_part(run, scene):
    part(run, 0)
    tail, sound, fps = run("MOVASegmentTail", name="film", index=0, overlap=5)
    both = {"positive": scene.positive, "negative": scene.negative, "vae": scene.vae, "audio_vae": scene.audio_vae}
    *_, latent = run("MOVAExtend", **both, images=tail, audio=sound, fps=fps, frames=9, overlap=5)
    assert latent["noise_mask"].unbind()[0].mean() == pytest.approx(1 / 3)


def test_parts_are_joined_into_one_file_whose_picture_and_sound_end_together(run, comfy_base):
    for index in range(3):
        part(run, index, frames=13, name="long")
    (name,) = run("MOVAJoinSegments", name="long", overlap=5, filename_prefix="video/long")
    facts = describe_mp4(comfy_base / "output" / name)
    assert facts["frames"] == 13 + 8 + 8
    assert facts["audio_seconds"] == pytest.approx(int(48000 * 29 / FPS) / 48000, abs=1e-4)
    assert (facts["width"], facts["height"]) == (80, 48)


def test_parts_are_joined_up_to_the_last_that_is_named(run, comfy_base):
    for index in range(3):
        part(run, index, frames=13, name="some")
    (name,) = run("MOVAJoinSegments", name="some", overlap=5, filename_prefix="video/some", last=1)
    assert describe_mp4(comfy_base / "output" / name)["frames"] == 13 + 8
    with pytest.raises(ValueError, match=r"part 003 is not there.* holds 3"):
        run("MOVAJoinSegments", name="some", overlap=5, filename_prefix="video/some", last=3)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b"])
def test_a_name_that_leaves_the_folder_is_refused(run, name):
    with pytest.raises(ValueError, match="letters, digits"):
        run("MOVASegmentTail", name=name, index=0, overlap=5)


def test_a_missing_part_is_named(run):
    with pytest.raises(ValueError, match="007"):
        run("MOVASegmentTail", name="film", index=7, overlap=5)
