"""The meter's and the draft picker's doors: landmarks, words, loudness, what is broken."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.comfy import needs_comfy
from tests.fixtures.talking import RATE, landmarks, talking, voice
from tests.nodes.graph import FPS, streams

pytestmark = needs_comfy


def clip(seed=0):
    opened, sound = voice(seed)
    return talking(opened), {"waveform": sound[None], "sample_rate": RATE}


def test_lips_are_judged_where_landmarks_are_connected(run):
    pictures, audio = clip()
    report, score = run("MOVAMeter", images=pictures, audio=audio, fps=FPS, face_landmarks=landmarks(pictures))
    assert "lips: in step" in report
    assert score > 2
    nobody = landmarks(pictures, shown=False)
    assert "no face judged" in run("MOVAMeter", images=pictures, audio=audio, fps=FPS, face_landmarks=nobody)[0]


@pytest.mark.parametrize("other", ["text", {"frames": []}, "fewer"])
def test_landmarks_of_something_else_are_refused(run, other):
    pictures, audio = clip()
    given = landmarks(pictures[:5]) if other == "fewer" else other
    with pytest.raises(ValueError, match=r"landmarks|LANDMARKS"):
        run("MOVAMeter", images=pictures, audio=audio, fps=FPS, face_landmarks=given)


def test_words_recognised_are_held_against_the_prompt(run):
    pictures, audio = clip()
    given = {"images": pictures, "audio": audio, "fps": FPS}
    report, _ = run("MOVAMeter", **given, recognised="dinner was ready", prompt='Anna: "Dinner is ready."')
    assert "words: 33% wrong (1 of 3)" in report
    assert "words: 100% wrong" in run("MOVAMeter", **given, recognised="", prompt='A: "Yes"')[0]
    with pytest.raises(ValueError, match="need the prompt"):
        run("MOVAMeter", **given, recognised="dinner")


def test_of_a_batch_each_clip_has_its_own_landmarks_and_row_of_words(run):
    (first, sound), (second, _) = clip(0), clip(3)
    both, audio = torch.cat((second, first)), {"waveform": sound["waveform"].repeat(2, 1, 1), "sample_rate": RATE}
    given = {"images": both, "audio": audio, "fps": FPS, "face_landmarks": landmarks(both)}
    report, _ = run("MOVAMeter", **given, recognised="no\nyes", prompt='"Yes"')
    rows = report.splitlines()
    assert "in step" in rows[1]
    assert "in step" not in rows[0]
    assert "100% wrong" in rows[0]
    assert "0% wrong" in rows[1]
    with pytest.raises(ValueError, match="1 rows for 2 clips"):
        run("MOVAMeter", **given, recognised="no", prompt='"Yes"')


def test_a_broken_draft_is_not_picked_and_stops_nothing(run, scene):
    video, audio = (stream.repeat(2, *(1 for _ in stream.shape[1:])) for stream in streams(scene.latent))
    latent = {**scene.latent, "samples": scene.latent["samples"].__class__((video, audio))}
    images, sounds = torch.rand(18, 48, 80, 3), 0.2 * torch.randn(2, 1, 18000)
    images[4, 5, 6], sounds[1, 0, 9] = float("nan"), 0.0
    _, index, report = run(
        "MOVAPickDraft", latent=latent, images=images, audio={"waveform": sounds, "sample_rate": 48000}
    )
    assert index == 1
    assert "draft 0 comes last: picture not finite" in report
    assert "sync was not judged" in report
    sounds[1, 0, 9] = float("inf")
    report, score = run("MOVAMeter", images=images, audio={"waveform": sounds, "sample_rate": 48000}, fps=FPS)
    assert "SOUND NOT FINITE" in report
    assert score < 0


class Cascade:
    """In place of OpenCV's, which no ComfyUI installs: finds one face, or none."""

    def __init__(self, faces):
        self.faces = faces

    def __call__(self, _):
        return self

    def empty(self):
        return False

    def detectMultiScale(self, grey, *_, **__):  # noqa: N802
        assert grey.dtype.name == "uint8"
        return [[side * grey.shape[0] / 48 for side in face] for face in self.faces]


@pytest.mark.parametrize(("faces", "said"), [([(-3, -10, 52, 52)], "in step"), ([], "no face judged")])
def test_without_landmarks_opencvs_cascade_looks_for_the_face(run, monkeypatch, faces, said):
    cv2 = SimpleNamespace(CascadeClassifier=Cascade(faces), data=SimpleNamespace(haarcascades="/"))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    pictures, audio = clip()
    assert said in run("MOVAMeter", images=pictures, audio=audio, fps=FPS)[0]


@pytest.mark.parametrize("cv2", [None, SimpleNamespace()])
def test_without_opencv_or_with_one_that_has_no_cascade_no_face_is_judged(run, monkeypatch, cv2):
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    pictures, audio = clip()
    assert "no face judged" in run("MOVAMeter", images=pictures, audio=audio, fps=FPS)[0]


LOUD = {  # channels of `mix`: LUFS and dBTP by ffmpeg 5.1.9, `-af ebur128=peak=true`
    1: (-28.1, -16.7),
    2: (-22.2, -14.9),
    6: (-6.9, -8.2),
    8: (-2.2, -6.3),
}


def mix(channels):
    """Six seconds that differ by channel: tones, noise, a pause that the gate leaves out."""
    made = torch.Generator().manual_seed(channels)
    t = torch.arange(6 * 48000) / 48000
    rows = [0.05 * (n + 1) * torch.sin(2 * math.pi * (110 * 2**n) * t) for n in range(channels)]
    sound = torch.stack(rows) + 0.02 * torch.randn(channels, len(t), generator=made)
    sound[:, 2 * 48000 : 4 * 48000] *= 0.001
    return sound


@pytest.mark.parametrize("channels", LOUD)
def test_loudness_is_what_ffmpeg_measures(pack, channels):
    found = pack.module("nodes.host.meters.loudness").measure(mix(channels), 48000)
    assert found.lufs == pytest.approx(LOUD[channels][0], abs=0.2)
    assert found.true_peak == pytest.approx(LOUD[channels][1], abs=0.2)


@pytest.mark.parametrize("sound", [torch.zeros(2, 48000), torch.rand(1, 9000), torch.rand(1, 1)])
def test_silence_and_snippets_have_no_loudness(pack, sound):
    assert pack.module("nodes.host.meters.loudness").measure(sound, 48000).lufs is None


def test_a_missing_pyloudnorm_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    pictures, audio = clip()
    with pytest.raises(ValueError, match="pip install"):
        run("MOVAMeter", images=pictures, audio=audio, fps=FPS)
