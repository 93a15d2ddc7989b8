"""From recordings to what is learned: by time, by content, nothing skipped in silence, equal to the official code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from tests.comfy import needs_comfy
from tests.fixtures.clips import silence, tone, write_clip, write_folder
from tests.golden import TRAINED, needs_trained, relative_error
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene
from tests.nodes.training.conftest import SIZE

pytestmark = needs_comfy

Build = Callable[..., tuple[Any, ...]]


@pytest.fixture
def build(run: Run, coders: dict[str, Any]) -> Build:
    """build(folder, ...): outputs of the data set node."""

    def go(folder: Path | str = "", **more: Any) -> tuple[Any, ...]:
        return run("MOVATrainingClips", **coders, folder=str(folder), **{**SIZE, "preview_clips": 0, **more})

    return go


def captioned(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / f"{name}.txt").write_text(f"A ball rolls ({name}).")
    return folder


def media(pack: Pack, clip: Any) -> dict[str, torch.Tensor]:
    return pack.module("nodes.host.training.data_set").media(clip)


# What is fed


def test_what_is_learned_can_be_seen_and_heard(build: Build, clips_folder: Path, scene: Scene) -> None:
    data, sheet, sound, report = build(clips_folder, preview_clips=2)
    assert len(data.clips) == 3
    assert sheet.shape == (1, 2 * 160, 6 * 160, 3)
    assert sheet.std() > 0.05
    rate = scene.audio_vae.audio_sample_rate
    assert sound["waveform"].shape == (1, 1, 2 * int(9 * rate / 24))
    assert sound["sample_rate"] == rate
    assert "3 clips, 1.1 s in all" in report
    assert "without sound, the picture alone is learned: mute.mp4" in report
    assert [clip.audible for clip in data.clips] == [True, True, False]


def test_what_is_shown_is_spread_over_the_data_set_and_plays_with_its_sound(
    pack: Pack, coders: dict[str, Any], build: Build, tmp_path: Path
) -> None:
    """Of clips of two sizes, windows of the first recording are not all there is to see."""
    write_clip(tmp_path / "a.mp4", frames=40)
    write_clip(tmp_path / "b.mp4", frames=12, size=(96, 48))
    data = build(captioned(tmp_path, "a", "b"), cut="windows", sizes="buckets")[0]
    assert [clip.name for clip in data.clips] == ["a.mp4 #1", "a.mp4 #2", "a.mp4 #3", "a.mp4 #4", "b.mp4"]
    views, given = pack.module("nodes.host.training.views"), pack.module("nodes.host.training.data_set").Coders
    used = given(coders["vae"], coders["audio_vae"], coders["clip"])
    sheet, sound, film = views.preview(data, used, 2)
    last, _ = views.decoded(data.clips[-1], used)
    assert torch.equal(sheet[0, 160:], views.contact_sheet([last])[0])
    with av.open(str(film)) as file:
        shown = [picture.to_ndarray(format="rgb24") for picture in file.decode(video=0)]
    (wide, tall) = (data.clips[number] for number in (0, -1))
    assert len(shown) == wide.frames + tall.frames
    assert shown[0].shape[:2] == (max(wide.height, tall.height), max(wide.width, tall.width))
    assert abs(shown[-1][:, -8:].mean() - 127) < 3  # what a narrower clip leaves is grey
    with av.open(str(film)) as file:
        heard = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    assert heard == pytest.approx(sound["waveform"].shape[-1] / sound["sample_rate"], abs=0.05)
    assert views.preview(data, used, 0)[2] is None


@pytest.mark.parametrize("fps", [12.0, 23.976, 30.0, 60.0])
def test_a_recording_of_another_rate_keeps_its_speed(pack: Pack, tmp_path: Path, fps: float) -> None:
    """The ball of the fixture is where it was at that moment, within the picture that was shown."""
    recordings, clips = pack.module("nodes.host.media.recordings"), pack.module("mova_core.training.clips")
    grid = pack.module("mova_core.shapes").PUBLISHED_GRID
    path = write_clip(tmp_path / "x.mp4", frames=round(1.5 * fps), fps=fps)
    source = recordings.RecordingSource("x", path)
    found = recordings.probe(source)
    assert found.seconds == pytest.approx(1.5, abs=0.05)
    (piece,) = recordings.pieces(source, found, [clips.Window(0.25, 25)], (48, 80), grid)
    ball = piece.pictures[:, 24, :, 0] > 220
    for number, row in enumerate(ball):
        place = float(row.nonzero().float().mean()) / 79
        moment = 0.25 + number / 24
        shown = int((moment + 2e-3) * float(Fraction(fps).limit_denominator(1001))) / fps
        if 0.15 < shown % 1.0 < 0.75:
            assert abs(place - (0.1 + 0.8 * (shown % 1.0))) < 0.02, number


def test_sound_begins_where_the_picture_does(pack: Pack, tmp_path: Path) -> None:
    recordings, clips = pack.module("nodes.host.media.recordings"), pack.module("mova_core.training.clips")
    grid = pack.module("mova_core.shapes").PUBLISHED_GRID
    source = recordings.RecordingSource("x", write_clip(tmp_path / "x.mp4", frames=25, late=0.4))
    (piece,) = recordings.pieces(source, recordings.probe(source), [clips.Window(0.0, 25)], (48, 80), grid)
    assert piece.sound.shape == (1, 50000)
    assert piece.sound[0, : int(0.35 * 48000)].abs().max() < 1e-3
    assert piece.sound[0, int(0.45 * 48000) : 40000].abs().max() > 0.05


def test_a_trimmed_video_is_its_part(build: Build, pack: Pack, tmp_path: Path) -> None:
    from comfy_api.latest import InputImpl

    path = write_clip(tmp_path / "x.mp4", frames=40)
    whole = InputImpl.VideoFromFile(str(path))
    part = InputImpl.VideoFromFile(str(path), start_time=0.5, duration=1.0)
    memory = InputImpl.VideoFromFile(BytesIO(path.read_bytes()))
    data = build(videos=[whole, part, memory], captions=["a", "b", "c"])[0]
    assert [clip.name for clip in data.clips] == ["x.mp4", "x.mp4", "video 3"]
    one, other, same = (media(pack, clip)["video"] for clip in data.clips)
    assert not torch.equal(one, other)
    assert torch.equal(one, same)
    source = pack.module("nodes.host.media.recordings").RecordingSource("x", path, 0.5, 1.0)
    found = pack.module("nodes.host.media.recordings").probe(source)
    assert len([time for time in found.times if time >= -1e-3]) == 24
    with pytest.raises(Exception, match="3 videos and 2 captions"):
        build(videos=[whole, part, memory], captions=["a", "b"])


def test_pictures_made_in_the_graph_are_learned_from_as_they_are(pack: Pack) -> None:
    """'Create Video' holds them in memory; ComfyUI's own stream of them is compressed for looking at."""
    from comfy_api.latest import InputImpl, Types

    make = torch.Generator().manual_seed(1)
    rough = torch.nn.functional.interpolate(torch.rand(9, 1, 24, 40, generator=make), (48, 80), mode="bilinear")
    images = rough.movedim(1, -1).expand(-1, -1, -1, 3)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(24)))
    recordings, clips = pack.module("nodes.host.media.recordings"), pack.module("mova_core.training.clips")
    ((source, _),) = pack.module("nodes.host.training.data_set").from_lists([video], ["noise"], "")
    window, grid = clips.Window(0.0, 9), pack.module("mova_core.shapes").PUBLISHED_GRID
    (piece,) = recordings.pieces(source, recordings.probe(source), [window], (48, 80), grid)
    brightness = [shown.float().mean(-1) / 255 for shown in (piece.pictures, images * 255)]
    assert (brightness[0] - brightness[1]).abs().mean() < 0.012  # 0.023 as ComfyUI hands it on


def test_stock_data_set_nodes_feed_it(run: Run, build: Build, comfy_base: Path) -> None:
    write_folder(comfy_base / "input" / "stock_clips", 2)
    videos, captions = run("LoadVideoTextDataSetFromFolder", folder="stock_clips")
    data, *_ = build(videos=videos, captions=captions)
    assert [clip.caption for clip in data.clips] == captions
    assert build("stock_clips")[0].clips[0].media == data.clips[0].media


def test_windows_and_buckets(build: Build, tmp_path: Path) -> None:
    write_clip(tmp_path / "wide.mp4", frames=30, size=(48, 96))
    write_clip(tmp_path / "tall.mp4", frames=12, size=(96, 48))
    data, *_, report = build(captioned(tmp_path, "wide", "tall"), cut="windows", sizes="buckets")
    assert [(c.name, c.frames, c.width > c.height) for c in data.clips] == [
        ("tall.mp4", 9, False),
        ("wide.mp4 #1", 9, True),
        ("wide.mp4 #2", 9, True),
        ("wide.mp4 #3", 9, True),
    ]
    assert "3 of" in report


# What is kept


def test_each_clip_is_encoded_once_whatever_it_is_called(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "once"
    folder.mkdir()
    write_clip(folder / "a.mp4", frames=12, sound=tone(333.0))
    first = build(captioned(folder, "a"))
    assert "1 encoded now" in first[3]
    (folder / "a.mp4").rename(folder / "b.mp4")
    (folder / "a.txt").unlink()
    second = build(captioned(folder, "b"))
    assert "0 encoded now" in second[3]
    assert second[0].clips[0].media == first[0].clips[0].media
    assert second[0].clips[0].prompt != first[0].clips[0].prompt
    for change in ({"frames": 5}, {"width": 64}, {"even_loudness": True}):
        assert "1 encoded now" in build(folder, **change)[3]
    write_clip(folder / "b.mp4", frames=12, sound=tone(334.0))
    assert "1 encoded now" in build(folder)[3]


def test_what_was_encoded_before_it_was_cancelled_is_kept(
    pack: Pack, build: Build, clips_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management

    for number, pitch in enumerate((401.0, 402.0, 403.0)):
        write_clip(tmp_path / f"{number}.mp4", frames=12, sound=tone(pitch))
    captioned(tmp_path, "0", "1", "2")
    data_set = pack.module("nodes.host.training.data_set")
    kept = data_set.folder() / "clips"
    build(clips_folder)
    before = set(kept.iterdir())

    def cancelled() -> None:
        if set(kept.iterdir()) != before:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancelled)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            build(tmp_path)
    assert len(set(kept.iterdir()) - before) == 1
    assert "2 encoded now" in build(tmp_path)[3]


def test_a_prefix_is_part_of_the_prompt(build: Build, clips_folder: Path) -> None:
    plain, prefixed = build(clips_folder)[0], build(clips_folder, caption_prefix="ohwx")[0]
    assert [c.media for c in plain.clips] == [c.media for c in prefixed.clips]
    assert not {c.prompt for c in plain.clips} & {c.prompt for c in prefixed.clips}


# What is wrong


def test_clips_that_teach_less_are_named(build: Build, tmp_path: Path) -> None:
    write_clip(tmp_path / "good.mp4", frames=12)
    write_clip(tmp_path / "quiet.mp4", frames=12, sound=silence)
    write_clip(tmp_path / "short.mp4", frames=3)
    data, *_, report = build(captioned(tmp_path, "good", "quiet", "short"))
    assert [(c.name, c.audible) for c in data.clips] == [("good.mp4", True), ("quiet.mp4", False)]
    assert "too short, left out (under 5 pictures): short.mp4 (0.1" in report
    assert "silent (below -60 dB), the picture alone is learned: quiet.mp4" in report


def test_what_is_learned_worse_than_it_looks_is_named(build: Build, tmp_path: Path) -> None:
    write_clip(tmp_path / "good.mp4", frames=12)
    shutil.copy(tmp_path / "good.mp4", tmp_path / "again.mp4")
    write_clip(tmp_path / "upright.mp4", frames=12, size=(160, 96))
    write_clip(tmp_path / "tiny.mp4", frames=12, size=(24, 40))
    write_clip(tmp_path / "jerky.mp4", frames=12, fps=12.0)
    write_clip(tmp_path / "dull.mp4", frames=12, rate=8000)
    (tmp_path / "more").mkdir()
    write_clip(tmp_path / "more" / "deep.mp4", frames=12)
    (tmp_path / "notes.txt").write_text("of no clip")
    report = build(tmp_path, default_caption="a ball")[3]
    for words in (
        "is cut away: sizes 'buckets' keeps it: upright.mp4 (96x160)\n",
        "smaller than what is trained, and blurred by that: tiny.mp4 (40x24)\n",
        "shown more than once: jerky.mp4 (12)\n",
        "duller than what the model makes: dull.mp4 (8)\n",
        "learned twice as often: good.mp4 (again.mp4)\n",
        "not trained on: more/, notes.txt",
    ):
        assert words in report
    assert "cut away" not in build(tmp_path, default_caption="a ball", sizes="buckets")[3]
    write_clip(tmp_path / "mute.mp4", frames=30, sound=None)
    shutil.copy(tmp_path / "mute.mp4", tmp_path / "mute too.mp4")
    report = build(tmp_path, default_caption="a ball", cut="windows")[3]
    assert "the picture alone is learned: mute too.mp4, mute.mp4\n" in report  # once, not a window
    assert "learned twice as often: good.mp4 (again.mp4), mute.mp4 (mute too.mp4)\n" in report


def test_clips_that_cannot_be_read_are_all_named_at_once(build: Build, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    write_clip(tmp_path / "good.mp4", frames=12)
    with pytest.raises(Exception, match=r"a.mp4 cannot be read .Invalid data[^']*damaged\nb.mp4 cannot be read"):
        build(tmp_path, default_caption="a ball")


def test_of_a_long_recording_one_window_is_decoded_at_a_time(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour cut into windows would not fit into memory. At 10 pictures a second, one is seen in two windows."""
    recordings, clips = pack.module("nodes.host.media.recordings"), pack.module("mova_core.training.clips")
    source = recordings.RecordingSource("x", write_clip(tmp_path / "x.mp4", frames=50, fps=10.0))
    found = recordings.probe(source)
    windows, grid = clips.windows(found.seconds, 9, "windows"), pack.module("mova_core.shapes").PUBLISHED_GRID
    alone = [next(recordings.pieces(source, found, [window], (48, 80), grid)) for window in windows]
    made, real = [], recordings._as_shown
    monkeypatch.setattr(recordings, "_as_shown", lambda *given: made.append(1) or real(*given))
    through = recordings.pieces(source, found, windows, (48, 80), grid)
    for number, (window, one) in enumerate(zip(windows, alone, strict=True)):
        piece = next(through)
        assert torch.equal(piece.pictures, one.pictures)
        assert torch.equal(piece.sound, one.sound)
        assert len(made) == clips.shown(found.times, window)[-1] + 1, number
    assert len(made) > 45


def broken(folder: Path) -> Path:
    path = write_clip(folder / "broken.mp4", frames=60)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    return captioned(folder, "broken")


def cut_off(folder: Path) -> Path:
    path = write_clip(folder / "cut.mp4", frames=60)
    path.write_bytes(path.read_bytes()[:2000])
    return captioned(folder, "cut")


def no_video(folder: Path) -> Path:
    (folder / "text.mp4").write_text("this is no video")
    return captioned(folder, "text")


def short(folder: Path) -> Path:
    write_clip(folder / "short.mp4", frames=2)
    return captioned(folder, "short")


BAD = {
    "no folder": (lambda folder: folder / "none", "there is no folder"),
    "no name": (lambda folder: " ", "no folder of clips"),
    "empty": (lambda folder: folder, "holds no video"),
    "no captions": (lambda folder: write_clip(folder / "a.mp4").parent, "1 of 1 clips have no caption .a.mp4"),
    "broken": (broken, "broken.mp4"),
    "cut off": (cut_off, "cut.mp4 cannot be read"),
    "no video": (no_video, "text.mp4 cannot be read"),
    "short": (short, "shorter than 5 pictures"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_clips_are_named_before_anything_is_trained(build: Build, tmp_path: Path, case: str) -> None:
    make, says = BAD[case]
    with pytest.raises(Exception, match=says):
        build(make(tmp_path), frames=57)


def test_other_encoders_are_refused(run: Run, coders: dict[str, Any], clips_folder: Path) -> None:
    swapped = {**coders, "vae": coders["audio_vae"]}
    with pytest.raises(Exception, match="audio VAE"):
        run("MOVATrainingClips", **swapped, folder=str(clips_folder), **SIZE)


# The official code


@needs_trained
def test_pictures_and_waveform_become_the_official_latents(
    run: Run, pack: Pack, diffusers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with safe_open(TRAINED / "end_to_end.safetensors", framework="pt") as file:
        given, told = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    model, clip, vae, audio_vae = run("MOVALoader", folder="larger", weight_dtype="fp32")
    host, recordings = pack.module("nodes.host.training.data_set"), pack.module("nodes.host.media.recordings")
    clips = pack.module("mova_core.training.clips")
    frames = int(told["num_frames"])
    pictures = clips.fitted(given["src.frames"].movedim(1, -1)[:frames], 32, 48)
    assert relative_error(pictures.movedim(-1, 1).float()[None] / 127.5 - 1, given["data.video"]) < 1e-5
    window = clips.Window(0.0, frames)
    sound = recordings._part(given["src.waveform"][None], window, audio_vae.audio_grid)
    assert torch.equal(sound[None], given["data.audio"])
    paths = [tmp_path / "clip.safetensors"]
    wishes = host.Wishes(frames=frames, height=32, width=48, cut="start", sizes="crop", level=None)
    coders = host.Coders(vae, audio_vae, clip)
    host._encode([recordings.Piece(pictures, sound)], paths, wishes, coders)
    kept = host._cached(paths[0], host.CLIP_AXES)
    mask = pack.module("mova_core.image").condition_mask(frames, 4, 6)
    plain_ids = pack.module("nodes.host.loaders.text").prompt_ids
    monkeypatch.setattr(pack.module("nodes.host.loaders.text"), "prompt_ids", lambda *given: begun(*plain_ids(*given)))
    prompt = host._prompt(told["caption"], clip, "golden", host.Told())
    for ours, name in (
        (kept["video"], "video_latents"),
        (kept["audio"], "audio_latents"),
        (torch.cat((mask, kept["image"]), dim=1), "condition"),
        (host.context(prompt), "context"),
    ):
        assert relative_error(ours, given[f"enc.{name}"]) < 1e-5, name
    step = pack.module("mova_core.training.step")
    with pack.module("nodes.host.training.loop").learning_mode():
        plain = pack.module("mova_core.model.mova").Mova(model.model.sizes)
        plain.load_state_dict({k: v.clone() for k, v in _weights(model).items()})
        nothing = type("Nothing", (), {"beside": lambda self: torch.no_grad()})()
        video, audio = step.validation_step(
            plain,
            nothing,
            (kept["video"], kept["audio"]),
            (given["in.video_noise"], given["in.audio_noise"]),
            (given["in.video_timestep"], given["in.audio_timestep"]),
            context=host.context(prompt),
            condition=torch.cat((mask, kept["image"]), dim=1),
            fps=float(told["fps"]),
        )
    assert video == pytest.approx(float(given["out.video_loss"]), rel=1e-4)
    assert audio == pytest.approx(float(given["out.audio_loss"]), rel=1e-4)


def begun(ids: list[int], cut: int) -> tuple[list[int], int]:
    """This set was made with transformers 5, which puts a mark before the first word of this tiny tokenizer; its
    tokenizer.json, by which the other sets were made, does not. The published tokenizer has it in its own file."""
    return [63, *ids], cut


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.model.diffusion_model.named_parameters())


def test_the_cache_can_be_thrown_away(build: Build, clips_folder: Path, comfy_base: Path) -> None:
    data = build(clips_folder)[0]
    shutil.rmtree(comfy_base / "output" / "mova_training" / "prompts")
    data.clips[0].media.unlink()
    again, *_, report = build(clips_folder)
    assert "1 encoded now" in report
    assert again == data or again.clips == data.clips


def test_what_is_damaged_in_the_cache_is_encoded_again(build: Build, clips_folder: Path, comfy_base: Path) -> None:
    """Each file in its own way; else the remedy that the message names would not help."""
    first = build(clips_folder)[0]
    files = sorted({path for clip in first.clips for path in (clip.media, clip.prompt)} | {first.blank})
    whole = {path: path.read_bytes() for path in files}
    for number, path in enumerate(files):
        path.write_bytes(spoiled(whole[path], number))
    assert build(clips_folder)[0].clips == first.clips
    for path in files:
        assert load(path.read_bytes()).keys() == load(whole[path]).keys()


def spoiled(content: bytes, way: int) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    return (
        content[:-5],
        content[:start] + b"\x00\x00\xc0\x7f" * ((len(content) - start) // 4),  # NaN
        content.replace(b"video", b"radio").replace(b"context", b"contest"),
        content.replace(b"loudness", b"weakness").replace(b"context", b"contest"),
        b"",
    )[way % 5]
