"""Recordings as people have them: off phones, cameras, discs and editors."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.fixtures.clips import frame, write_clip
from tests.in_process import Pack

pytestmark = needs_comfy

SIZE = (48, 80)
Made = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def read(pack: Pack) -> Made:
    """read(path, size): what is known of a recording, and its first window."""
    recordings, clips = pack.module("nodes.host.media.recordings"), pack.module("mova_core.training.clips")
    grid = pack.module("mova_core.shapes").PUBLISHED_GRID

    def go(path: Path, size: tuple[int, int] = SIZE, frames: int = 25, **part: float) -> tuple[Any, Any]:
        source = recordings.RecordingSource(path.name, path, **part)
        found = recordings.probe(source)
        window = clips.windows(found.seconds, frames)[0]
        return found, next(recordings.pieces(source, found, [window], size, grid))

    return go


def written(path: Path, codec: str = "libx264", seconds: list[float] | None = None, **more: Any) -> Path:
    """A recording without sound; `more` is set on its encoder."""
    moments = [number / 24 for number in range(30)] if seconds is None else seconds
    width, height = more.pop("width", SIZE[1]), SIZE[0]
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec, rate=24, options=more.pop("options", {}))
        video.width, video.height, video.pix_fmt = width, height, more.pop("pix_fmt", "yuv420p")
        if seconds is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        for name, value in more.items():
            setattr(video.codec_context, name, value)
        for moment in moments:
            picture = av.VideoFrame.from_ndarray(
                frame(round(moment * 1000), height, width, 1000).numpy(), format="rgb24"
            )
            if seconds is not None:
                picture.pts, picture.time_base = round(moment * 1000), Fraction(1, 1000)
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
    return path


def ball(pictures: Tensor) -> list[float]:
    """Where the ball of the fixture is in each picture, as a share of the width; it moves by 0.8 a second."""
    bright = pictures[:, pictures.shape[1] // 2, :, 0] > 200
    return [float(row.nonzero().float().mean()) / (pictures.shape[2] - 1) for row in bright]


def turned(path: Path, degrees: int) -> Path:
    """The matrix that a phone writes when it is held upright."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    data[at : at + 36] = matrix
    path.write_bytes(data)
    return path


def test_a_title_that_is_not_utf8_is_no_damage(read: Made, tmp_path: Path) -> None:
    """As cameras and old editors write them."""
    plain, path = written(tmp_path / "plain.mp4"), tmp_path / "titled.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        file.metadata["title"] = "Caf#"
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"Caf#", b"Caf\xe9"))
    assert torch.equal(read(path)[1].pictures, read(plain)[1].pictures)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phone_held_otherwise_is_seen_upright(read: Made, tmp_path: Path, degrees: int) -> None:
    size = SIZE if degrees == 180 else SIZE[::-1]
    _, plain = read(write_clip(tmp_path / "plain.mp4", frames=30))
    found, piece = read(turned(write_clip(tmp_path / "phone video.MP4", frames=30), degrees), size)
    assert (found.height, found.width) == size
    assert torch.equal(piece.pictures, torch.rot90(plain.pictures, -degrees // 90, dims=(1, 2)))
    assert torch.equal(piece.sound, plain.sound)


def test_a_phone_that_skips_pictures_keeps_its_speed(read: Made, tmp_path: Path) -> None:
    moments = [number / 30 for number in range(8)] + [0.5 + number / 60 for number in range(60)]
    _, piece = read(written(tmp_path / "vfr.mkv", seconds=moments))
    for number, place in enumerate(ball(piece.pictures)):
        seen = max(moment for moment in moments if moment <= number / 24 + 2e-3)
        if 0.15 < seen < 0.75:
            assert abs(place - (0.1 + 0.8 * seen)) < 0.02, number


def test_a_part_cut_off_without_encoding_anew_is_not_seen(read: Made, tmp_path: Path) -> None:
    """As phones and editors trim: what is cut off stays in the file, before its beginning."""
    whole, part = write_clip(tmp_path / "whole.mp4", frames=60), tmp_path / "trimmed.mp4"
    with av.open(str(whole)) as given, av.open(str(part), "w", options={"avoid_negative_ts": "disabled"}) as made:
        tracks = {stream: made.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            earlier = int(0.5 / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < earlier:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - earlier, packet.dts - earlier, tracks[packet.stream]
            made.mux(packet)
    found, piece = read(part, frames=45)
    assert (len(found.times), found.seconds) == (48, pytest.approx(2.0, abs=0.01))
    assert len(piece.pictures) == 45
    assert abs(ball(piece.pictures)[0] - 0.5) < 0.02


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "2"}), ("mpeg4", {"bf": "2"}), ("mjpeg", {})])
def test_an_avi_does_not_say_when_its_pictures_are_shown(
    read: Made, tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    for part in ({}, {"start": 0.25}):
        _, piece = read(written(tmp_path / "old.avi", codec, options=options, pix_fmt=pixels), frames=17, **part)
        places = ball(piece.pictures)[:10]
        assert places == sorted(places)
        assert abs(places[6] - places[0] - 0.2) < 0.04


def test_pixels_that_are_no_squares(read: Made, tmp_path: Path) -> None:
    found, piece = read(written(tmp_path / "tape.mp4", width=60, sample_aspect_ratio=Fraction(4, 3)))
    assert (found.height, found.width) == SIZE
    _, square = read(written(tmp_path / "square.mp4"))
    assert (piece.pictures.float() - square.pictures.float()).abs().mean() < 6


def test_a_cover_is_not_the_recording(read: Made, tmp_path: Path) -> None:
    plain, made = write_clip(tmp_path / "plain.mp4", frames=30), tmp_path / "cover.mp4"
    with av.open(str(plain)) as given, av.open(str(made), "w") as file:
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 160, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tracks = {stream: file.add_stream_from_template(stream) for stream in given.streams}
        still = av.VideoFrame.from_ndarray(torch.zeros(160, 160, 3, dtype=torch.uint8).numpy(), format="rgb24")
        for packet in [*cover.encode(still), *cover.encode(None)]:
            file.mux(packet)
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream]
                file.mux(packet)
    assert torch.equal(read(made)[1].pictures, read(plain)[1].pictures)


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "4.0", "5.0", "5.1", "7.1"])
def test_sound_of_any_layout(read: Made, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("libx264", rate=24), file.add_stream("pcm_s16le", rate=48000, layout=layout)
        video.width, video.height, video.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for number in range(30):
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame(number, *SIZE, 24).numpy(), format="rgb24")))
        file.mux(video.encode(None))
        wave = 8000 * torch.sin(torch.arange(60000) / 48000 * 2 * torch.pi * 220)
        samples = wave.to(torch.int16)[:, None].expand(-1, audio.layout.nb_channels).reshape(1, -1).contiguous()
        block = av.AudioFrame.from_ndarray(samples.numpy(), format="s16", layout=layout)
        block.sample_rate, block.pts = 48000, 0
        file.mux([*audio.encode(block), *audio.encode(None)])
    _, piece = read(path)
    assert piece.sound.shape == (1, 50000)
    assert 0.2 < piece.sound.abs().max() < 1.0


def test_of_an_hour_only_the_sound_that_is_used_is_decoded(
    read: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Pack
) -> None:
    lengths: list[int] = []
    recordings = pack.module("nodes.host.media.recordings")
    real = recordings.mono
    monkeypatch.setattr(recordings, "mono", lambda sound: lengths.append(sound.shape[-1]) or real(sound))
    read(write_clip(tmp_path / "long.mp4", frames=24 * 8))
    assert 44100 < sum(lengths) < 3 * 44100


def test_what_is_hdr_is_known(read: Made, tmp_path: Path) -> None:
    wide = written(tmp_path / "hdr.mp4", pix_fmt="yuv420p10le", color_trc=18, color_primaries=9, colorspace=9)
    assert read(wide)[0].hdr
    assert not read(written(tmp_path / "sdr.mp4"))[0].hdr
