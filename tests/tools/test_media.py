"""What is written as mp4 comes back: as many pictures, as long a sound, the colours and the pitch."""

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("av")
import av

from mova_core.errors import ShapeError
from tools.routes.media import describe_mp4, write_mp4

FORMS = [(24.0, 25, 48000, 1), (16.0, 9, 44100, 2), (24000 / 1001, 49, 48000, 1), (12.5, 1, 48000, 2)]


def tone(seconds: float, sample_rate: int, channels: int = 1, hertz: float = 440.0) -> Tensor:
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    return 0.5 * torch.sin(2 * math.pi * hertz * time).expand(channels, -1)


@pytest.mark.parametrize(("fps", "count", "sample_rate", "channels"), FORMS)
def test_pictures_and_sound_come_back_as_long_as_they_went_in(tmp_path, fps, count, sample_rate, channels):
    frames = torch.rand(count, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    facts = describe_mp4(
        write_mp4(tmp_path / "clip.mp4", frames, fps, tone(count / fps, sample_rate, channels), sample_rate)
    )
    assert (facts["frames"], facts["width"], facts["height"]) == (count, 96, 64)
    assert facts["fps"] == pytest.approx(fps, rel=1e-5)
    assert facts["seconds"] == pytest.approx(count / fps, abs=1e-4)
    assert facts["audio_seconds"] == pytest.approx(facts["seconds"], abs=1e-3)
    assert facts["audio_peak"] == pytest.approx(0.5, abs=0.05)
    assert facts["sample_rate"] == sample_rate


def test_sound_longer_than_the_pictures_is_reported_as_longer(tmp_path):
    facts = describe_mp4(write_mp4(tmp_path / "clip.mp4", torch.zeros(12, 32, 32, 3), 24.0, tone(2.0, 48000), 48000))
    assert (facts["seconds"], facts["audio_seconds"]) == (pytest.approx(0.5), pytest.approx(2.0, abs=1e-3))


def test_sound_starts_with_the_first_picture(tmp_path):
    click = torch.zeros(1, 24000)
    click[0, 9600:9700] = 0.9
    with av.open(str(write_mp4(tmp_path / "clip.mp4", torch.zeros(12, 32, 32, 3), 24.0, click, 48000))) as file:
        heard = torch.cat([torch.from_numpy(frame.to_ndarray()) for frame in file.decode(audio=0)], dim=1)
    assert abs(int(heard[0].abs().argmax()) - 9650) < 200


def test_bytes_and_floats_are_the_same_pictures(tmp_path):
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    one = write_mp4(tmp_path / "bytes.mp4", frames, 8.0, tone(0.375, 48000), 48000)
    other = write_mp4(tmp_path / "floats.mp4", frames / 255, 8.0, tone(0.375, 48000), 48000)
    assert one.read_bytes() == other.read_bytes()


def test_colours_survive(tmp_path):
    frames = torch.tensor([0.8, 0.2, 0.4]).expand(3, 32, 32, 3)
    with av.open(str(write_mp4(tmp_path / "clip.mp4", frames, 8.0, tone(0.375, 48000), 48000))) as file:
        picture = torch.from_numpy(next(file.decode(video=0)).to_ndarray(format="rgb24")) / 255
    assert (picture - frames[0]).abs().max() < 0.03


def test_silence_has_no_peak(tmp_path):
    path = write_mp4(tmp_path / "clip.mp4", torch.zeros(3, 32, 32, 3), 8.0, torch.zeros(1, 18000), 48000)
    assert describe_mp4(path)["audio_peak"] < 1e-4


def test_a_file_without_sound_says_so(tmp_path):
    with av.open(str(tmp_path / "mute.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode(None))
    facts = describe_mp4(tmp_path / "mute.mp4")
    assert (facts["frames"], facts["audio_seconds"], facts["sample_rate"]) == (1, 0.0, 0)


@pytest.mark.parametrize("shape", [(3, 33, 32, 3), (3, 32, 33, 3), (3, 0, 32, 3)])
def test_pictures_that_h264_has_not_are_refused(tmp_path, shape):
    with pytest.raises(ShapeError, match="both sides must be even"):
        write_mp4(tmp_path / "clip.mp4", torch.zeros(shape), 8.0, tone(1.0, 48000), 48000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(48000,), (1, 1, 48000), (3, 48000), (1, 0)])
def test_a_waveform_of_another_form_is_refused(tmp_path, shape):
    with pytest.raises(ShapeError, match="mono, stereo"):
        write_mp4(tmp_path / "clip.mp4", torch.zeros(3, 32, 32, 3), 8.0, torch.zeros(shape), 48000)
