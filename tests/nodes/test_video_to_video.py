"""'MOVA Video to Video': rate, size and length by time, and a run at denoise below 1 that keeps the clip in part."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import check_finite, equal, streams

pytestmark = needs_comfy

NOISE = torch.Generator().manual_seed(1)
CLIP = torch.rand(19, 60, 90, 3, generator=NOISE)
SOUND = {"waveform": torch.rand(1, 2, 30000, generator=NOISE) - 0.5, "sample_rate": 44100}


def made(run, scene, **inputs):
    given = {"positive": scene.positive, "negative": scene.negative, "vae": scene.vae, "audio_vae": scene.audio_vae}
    return run("MOVAVideoToVideo", **(given | {"width": 80, "height": 48} | inputs))


def test_the_clip_at_the_models_rate_is_encoded_as_it_is(run, scene):
    fitted = torch.rand(9, 48, 80, 3, generator=NOISE).mul(255).round() / 255
    wave = torch.rand(1, 1, 18000, generator=NOISE) - 0.5
    latent = made(run, scene, images=fitted, audio={"waveform": wave, "sample_rate": 48000})[2]
    shown, heard = streams(latent)
    assert torch.equal(shown, scene.vae.encode(fitted))
    assert torch.equal(heard, scene.audio_vae.encode(wave.movedim(1, -1)))
    assert latent["frame_rate"] == 24.0


def test_another_rate_shows_the_nearest_pictures(run, scene):
    latent = made(run, scene, images=CLIP, images_fps=48.0)[2]
    every_other = made(run, scene, images=CLIP[::2][:9])[2]
    assert equal(latent, every_other)


@pytest.mark.parametrize(("count", "fps", "frames"), [(19, 30.0, 13), (19, 12.0, 37), (1, 24.0, 1), (3, 24.0, 1)])
def test_lengths_are_by_time_and_sound_goes_with_the_picture(run, scene, count, fps, frames):
    latent = made(run, scene, images=CLIP[:count], images_fps=fps, audio=SOUND)[2]
    images, audio, rate = run("MOVADecode", latent=latent, vae=scene.vae, audio_vae=scene.audio_vae)
    assert len(images) == frames
    assert audio["waveform"].shape[-1] == int(48000 * frames / 24)
    assert rate == 24.0


def test_no_sound_is_silence_and_a_limit_cuts(run, scene):
    silent = {"waveform": torch.zeros(1, 1, 18000), "sample_rate": 48000}
    assert equal(made(run, scene, images=CLIP, frames=9)[2], made(run, scene, images=CLIP[:9], audio=silent)[2])


def test_a_video_is_its_pictures_rate_and_sound(run, scene):
    parts = SimpleNamespace(images=CLIP, frame_rate=Fraction(30000, 1001), audio=SOUND)
    video = SimpleNamespace(get_components=lambda: parts)
    other = {"waveform": SOUND["waveform"] * 0.5, "sample_rate": 44100}
    assert equal(made(run, scene, video=video)[2], made(run, scene, images=CLIP, images_fps=29.97003, audio=SOUND)[2])
    assert not equal(made(run, scene, video=video)[2], made(run, scene, video=video, audio=other)[2])


def test_the_first_frame_comes_from_the_clip_or_another_picture(run, scene):
    own = made(run, scene, images=CLIP)[0][0][1]["concat_latent_image"]
    same = made(run, scene, images=CLIP, first_frame=CLIP[:1])[0][0][1]["concat_latent_image"]
    other = made(run, scene, images=CLIP, first_frame=CLIP[7:8])[0][0][1]["concat_latent_image"]
    assert torch.equal(own, same)
    assert not torch.equal(own, other)


def test_the_less_is_denoised_the_more_of_the_clip_is_kept(run, scene):
    positive, negative, latent = made(run, scene, images=CLIP[:9], audio=SOUND)

    def kept(denoise: float) -> float:
        out = run(
            "MOVASampler",
            model=scene.model,
            positive=positive,
            negative=negative,
            latent=latent,
            steps=3,
            cfg=1.0,
            denoise=denoise,
        )[0]
        check_finite(out, latent)
        one, other = streams(latent)[0].flatten(), streams(out)[0].flatten()
        return float(torch.nn.functional.cosine_similarity(one, other, 0))

    near, half, far = kept(0.05), kept(0.5), kept(1.0)
    assert near > half > far


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "neither video nor images"),
        (
            {
                "images": CLIP,
                "video": SimpleNamespace(
                    get_components=lambda: SimpleNamespace(images=CLIP, frame_rate=24, audio=None)
                ),
            },
            "both",
        ),
        ({"video": 7}, "video: 7 is no VIDEO"),
        ({"images": CLIP, "frames": 8}, "nearest"),
        ({"images": CLIP, "width": 81}, "multiples of 16"),
        ({"images": CLIP, "images_fps": 0.0}, "out of range"),
        ({"images": CLIP[:0]}, "no picture"),
        ({"images": CLIP, "audio": {"waveform": torch.rand(2, 1, 99), "sample_rate": 48000}}, "2 sounds"),
    ],
    ids=["nothing", "both", "no video", "frames", "width", "rate", "empty", "sounds"],
)
def test_what_is_no_clip_is_refused(run, scene, inputs, says):
    with pytest.raises(ValueError, match=says):
        made(run, scene, **inputs)
