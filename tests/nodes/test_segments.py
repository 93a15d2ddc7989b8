"""A long clip made part by part through disk."""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import FPS
from tests.nodes.processes import ended, forked, needs_fork
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


# --- the file that is written ----------------------------------------------------------------------------------------


def waveform(channels: int, frames: int = 9, rate: int = 48000) -> dict[str, Any]:
    wave = 0.2 * torch.sin(torch.arange(int(rate * frames / FPS)) * 0.05).expand(1, channels, -1)
    return {"waveform": wave, "sample_rate": rate}


def save(run, name, index=0, audio=None, images=None, frames=9, fps=FPS):
    images = torch.rand(frames, 48, 80, 3) if images is None else images
    return run("MOVASaveSegment", images=images, audio=audio, fps=fps, name=name, index=index)


def joined(run, comfy_base, name, overlap=5, prefix=None):
    (file,) = run("MOVAJoinSegments", name=name, overlap=overlap, filename_prefix=prefix or name)
    return comfy_base / "output" / file


@pytest.mark.parametrize(
    ("channels", "rate", "layout", "written"),
    [
        (1, 48000, "mono", 48000),
        (2, 44100, "stereo", 44100),
        (6, 48000, "5.1", 48000),
        (8, 48000, "5.1", 48000),
        (2, 8000, "stereo", 8000),
        (1, 192000, "mono", 96000),
        (1, 47999, "mono", 48000),
    ],
)
def test_sound_of_any_layout_and_rate_is_written(run, comfy_base, channels, rate, layout, written):
    save(run, f"layout{channels}_{rate}", audio=waveform(channels, rate=rate))
    with av.open(str(joined(run, comfy_base, f"layout{channels}_{rate}"))) as file:
        stream = file.streams.audio[0]
        assert (stream.layout.name.split("(")[0], stream.rate) == (layout, written)
        seconds = sum(frame.samples for frame in file.decode(audio=0)) / written
    assert seconds == pytest.approx(9 / FPS, abs=2048 / written)


def test_parts_of_different_layouts_and_rates_are_one_sound_with_silence_where_there_is_none(run, comfy_base):
    for index, audio in enumerate((waveform(1, rate=44100), waveform(2), None, waveform(6, rate=32000))):
        save(run, "mixed", index, audio=audio)
    with av.open(str(joined(run, comfy_base, "mixed"))) as file:
        assert (file.streams.audio[0].layout.name.split("(")[0], file.streams.audio[0].rate) == ("5.1", 48000)
        assert sum(1 for _ in file.decode(video=0)) == 4 * 9 - 3 * 5


def test_a_clip_without_any_sound_has_no_sound_track(run, comfy_base):
    save(run, "mute")
    with av.open(str(joined(run, comfy_base, "mute"))) as file:
        assert not file.streams.audio
        assert len(list(file.decode(video=0))) == 9
    tail = run("MOVASegmentTail", name="mute", index=0, overlap=5)
    assert tail[1] is None


@pytest.mark.parametrize("rate", [48000, 44100, 22050])
def test_the_last_joined_sample_is_sound(run, pack, monkeypatch, rate):
    """At rates where a part's length is no whole number of samples."""
    for index in range(3):
        audio = {"waveform": torch.full((1, 1, int(rate * 13 / FPS)), 0.5), "sample_rate": rate}
        save(run, f"last{rate}", index, audio=audio, frames=13)
    seen = []
    monkeypatch.setattr(pack.module("nodes.segments").video, "write", lambda *args, **_: seen.append(args[3]))
    run("MOVAJoinSegments", name=f"last{rate}", overlap=5, filename_prefix="last")
    assert seen[0].shape == (1, int(rate * 29 / FPS))
    assert torch.allclose(seen[0], torch.tensor(0.5), atol=1e-5)


@pytest.mark.parametrize("colour", [(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.2, 0.4, 0.9)])
def test_colours_are_written_in_bt709_and_tagged_so(run, comfy_base, colour):
    save(run, "colour", images=torch.tensor(colour).expand(9, 720, 1280, 3)[:5], audio=None)
    with av.open(str(joined(run, comfy_base, "colour", overlap=1))) as file:
        context = file.streams.video[0].codec_context
        assert (context.color_primaries, context.colorspace, context.color_range) == (1, 1, 1)
        frame = next(file.decode(video=0))
        shown = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()[300:400, 300:400]
    assert torch.allclose(torch.tensor(shown).float().mean((0, 1)) / 255, torch.tensor(colour), atol=0.02)


def test_a_join_that_is_cancelled_leaves_nothing(run, comfy_base):
    import comfy.model_management as management

    for index in range(2):
        save(run, "cancelled", index, audio=waveform(1))
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        joined(run, comfy_base, "cancelled", prefix="cancelled/clip")
    assert not list((comfy_base / "output" / "cancelled").iterdir())


def test_the_file_has_its_name_only_when_it_is_whole(run, comfy_base, monkeypatch):
    save(run, "atomic", audio=waveform(1))
    folder, seen, replace = comfy_base / "output" / "atomic", [], os.replace
    monkeypatch.setattr(os, "replace", lambda *names: seen.extend(p.name for p in folder.iterdir()) or replace(*names))
    file = joined(run, comfy_base, "atomic", prefix="atomic/clip")
    assert len(seen) == 1
    assert seen[0].startswith(f".{file.name}.")
    assert [path.name for path in folder.iterdir()] == [file.name]


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(run, comfy_base):
    folder = comfy_base / "output" / "mova_segments" / "swept"
    folder.mkdir(parents=True)
    long_ago = time.time() - 10000
    for name in (".000.safetensors.1.part", ".007.safetensors.1.part", "004.part", ".tmpAbCdEf", "mine.part", ".mine"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (long_ago, long_ago))
    (folder / ".009.safetensors.1.part").write_bytes(b"somebody writes it now")
    save(run, "swept")
    left = {path.name for path in folder.iterdir()}
    assert left == {"000.safetensors", "mine.part", ".mine", ".009.safetensors.1.part"}


def test_a_killed_save_leaves_the_part_as_it_was(run, pack, comfy_base, monkeypatch):
    save(run, "killed", audio=waveform(1))
    path = comfy_base / "output" / "mova_segments" / "killed" / "000.safetensors"
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match="No space left"):
        save(run, "killed", audio=waveform(1))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_part_beyond_the_thousandth_joins(run, pack, tmp_path):
    core = pack.module("mova_core.segments")
    save(run, "many", index=1000, audio=waveform(1))
    part = core.segment_path(pack.module("nodes.host.media.video").segment_folder("many"), 1000)
    for index in range(1002):
        os.link(part, core.segment_path(tmp_path, index))
    assert [segment.path.stem for segment in core.segments(tmp_path)][-3:] == ["999", "1000", "1001"]


@pytest.mark.parametrize(
    "prefix",
    [
        "clip\0",
        "a\0/b",
        "CON",
        "video/nul",
        "video/NUL.mp4",
        "com1",
        "LPT9.x",
        "aux /clip",
        "a\nb",
        "..",
        ".",
        "",
        "/",
        "../up",
    ],
)
def test_a_prefix_that_names_no_file_everywhere_is_refused(run, comfy_base, prefix):
    save(run, "prefix", audio=None)
    with pytest.raises(ValueError, match=r"cannot name a file|names no file"):
        run("MOVAJoinSegments", name="prefix", overlap=5, filename_prefix=prefix)


@pytest.mark.parametrize(
    "prefix", ["console", "video/nullable", "com", "auxiliary.x", "\u7535\u5f71/\u7247\u6bb5", "a b", "%year%/clip"]
)
def test_a_prefix_that_only_looks_like_one_is_taken(run, comfy_base, prefix):
    save(run, "prefix", audio=None)
    assert joined(run, comfy_base, "prefix", prefix=prefix).is_file()


@pytest.mark.parametrize("name", ["CON", "nul", "Com3"])
def test_a_clip_is_not_called_as_a_device(run, name):
    with pytest.raises(ValueError, match="device on Windows"):
        save(run, name)


def test_odd_sides_are_refused_before_they_are_kept(run, comfy_base):
    with pytest.raises(ValueError, match=r"79 x 48 .* even"):
        save(run, "odd", images=torch.rand(9, 48, 79, 3))
    assert not (comfy_base / "output" / "mova_segments" / "odd").exists()


def test_a_rate_of_48000_0_does_not_replace_a_part_by_one_that_cannot_be_opened(run):
    for rate in (48000, 48000.0):
        save(run, "float", audio={**waveform(2), "sample_rate": rate})
        assert run("MOVASegmentTail", name="float", index=0, overlap=5)[1]["sample_rate"] == 48000


@pytest.mark.parametrize(
    ("prefix", "written"),
    [
        ("same/", "same_00001_.mp4"),
        ("../output/x", "x_00001_.mp4"),
        ("a\\b", "a/b_00001_.mp4"),
        ("./x", "x_00001_.mp4"),
        ("x/../y", "y_00001_.mp4"),
        ("a//b/./c", "a/b/c_00001_.mp4"),
        ("..hidden", "..hidden_00001_.mp4"),
        ("a ./b", "a ./b_00001_.mp4"),
        ("\U0001f600" * 45, "\U0001f600" * 45 + "_00001_.mp4"),
    ],
)
def test_a_prefix_means_the_same_on_every_system(run, comfy_base, prefix, written):
    save(run, "prefix", audio=None)
    output = comfy_base / "output"
    path = joined(run, comfy_base, "prefix", prefix=prefix)
    assert path.relative_to(output).as_posix() == written
    path.unlink()


@pytest.mark.parametrize("prefix", ["..\\..\\y", "x/../../y", "/abs", "\\\\server\\share", "a\x85b", "x/.", "x/.."])
def test_a_prefix_that_leads_out_is_refused_however_it_is_written(run, comfy_base, prefix):
    save(run, "prefix", audio=None)
    with pytest.raises(ValueError, match=r"cannot name a file|names no file"):
        run("MOVAJoinSegments", name="prefix", overlap=5, filename_prefix=prefix)


@pytest.mark.parametrize("prefix", ["a:b", "a?", "x|y/z", 'a"b', "C:\\x"])
def test_what_windows_takes_for_no_name_is_refused_there(pack, monkeypatch, prefix):
    check, os_name = pack.module("nodes.host.media.video"), SimpleNamespace(**{**vars(os), "name": "nt"})
    monkeypatch.setattr(check, "os", os_name)
    with pytest.raises(ValueError, match="cannot name a file on Windows"):
        check.output_file(prefix, 8, 8)


def test_dates_are_filled_in_as_the_page_does_for_its_own_nodes(run, pack, comfy_base, monkeypatch):
    monkeypatch.setattr(
        pack.module("nodes.host.media.video").time,
        "localtime",
        lambda: time.struct_time((2031, 2, 3, 4, 5, 6, 0, 34, 0)),
    )
    path = joined(run, comfy_base, saved(run), prefix="%date:yyyy-MM-dd%/%date:yy.M.d_hhmmss%_%date:h-m-s%")
    assert path.relative_to(comfy_base / "output").as_posix() == "2031-02-03/31.2.3_040506_4-5-6_00001_.mp4"


def test_a_link_that_leads_out_of_the_output_folder_is_named(run, comfy_base, tmp_path):
    (comfy_base / "output" / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of the output folder by a link"):
        joined(run, comfy_base, saved(run), prefix="elsewhere/clip")
    assert not list(tmp_path.iterdir())


def saved(run):
    save(run, "prefix", audio=None)
    return "prefix"


def test_no_file_is_written_over_where_a_disk_takes_two_names_for_one(run, pack, comfy_base, monkeypatch):
    """As a Mac's does in letters and accents: ComfyUI counts by the letters, and would begin at 1 again."""
    first = joined(run, comfy_base, saved(run), prefix="case/clip")
    paths = pack.module("nodes.host.media.video").folder_paths
    monkeypatch.setattr(paths, "get_save_image_path", lambda *_: (str(first.parent), "clip", 1, "case", "clip"))
    before = first.read_bytes()
    assert joined(run, comfy_base, "prefix", prefix="case/Clip").name == "clip_00002_.mp4"
    assert first.read_bytes() == before


@needs_fork
def test_two_joins_at_one_time_take_two_names(run, pack, comfy_base):
    """The first is known by the file it grows in, as long as its process lives."""
    output_file = pack.module("nodes.host.media.video").output_file
    first, _ = output_file("both/clip", 8, 8)
    child = forked(lambda: time.sleep(30))
    first.with_name(f".{first.name}.{child}.part").write_bytes(b"")
    assert output_file("both/clip", 8, 8)[0].name == "clip_00002_.mp4"
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert output_file("both/clip", 8, 8)[0] == first


@pytest.mark.parametrize(
    ("fps", "rate"), [(24.0, 44100), (23.976, 48000), (29.97, 8000), (59.94, 48000), (12.5, 16000)]
)
def test_picture_and_sound_say_that_they_end_together_to_a_sample(run, comfy_base, fps, rate):
    """A file that counts in thousandths of a second is too short by up to 48 samples: players leave them out."""
    samples = round(9 * rate / fps)
    for index in range(2):
        save(run, "exact", index, fps=fps, audio={"waveform": torch.full((1, 1, samples), 0.25), "sample_rate": rate})
    with av.open(str(joined(run, comfy_base, "exact"))) as file:
        picture, sound = file.streams.video[0], file.streams.audio[0]
        assert abs(float(picture.duration * picture.time_base - sound.duration * sound.time_base)) <= 1 / rate
