"""Holding one stream while the other is made, and clips made of clips."""

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import FPS, equal, streams

pytestmark = needs_comfy


@pytest.fixture(scope="module")
def finished(run, scene):
    """A finished clip: latent, pictures, sound."""
    with torch.inference_mode():
        latent, *_ = run("MOVASampler", model=scene.model, **given(scene, scene.latent))
        images, audio, _ = run("MOVADecode", latent=latent, vae=scene.vae, audio_vae=scene.audio_vae)
        return latent, images, audio


def given(scene, latent, **changes):
    made = {"positive": scene.positive, "negative": scene.negative, "latent": latent, "seed": 5, "steps": 4}
    return made | {"cfg": 1.0} | changes


def sampled(run, scene, latent, **changes):
    return streams(run("MOVASampler", model=scene.model, **given(scene, latent, **changes))[0])


@pytest.mark.parametrize("audio_shift", [5.0, 9.0])
@pytest.mark.parametrize(("rate", "channels", "samples"), [(44100, 2, 40000), (48000, 1, 5000), (16000, 1, 6000)])
def test_a_given_sound_comes_out_unchanged_and_the_original_goes_into_the_clip(
    run, scene, rate, channels, samples, audio_shift
):
    sound = {"waveform": 0.3 * torch.randn(1, channels, samples), "sample_rate": rate}
    latent, original = run("MOVASoundToPicture", latent=scene.latent, audio=sound, audio_vae=scene.audio_vae)
    length = int(rate * 9 / FPS)
    assert original["waveform"].shape == (1, channels, length)
    kept = min(length, samples)
    assert torch.equal(original["waveform"][..., :kept], sound["waveform"][..., :kept])
    _, audio = sampled(run, scene, latent, audio_shift=audio_shift)
    assert torch.allclose(audio, streams(latent)[1], atol=1e-6)


def test_another_sound_makes_another_picture(run, scene):
    made = []
    for seed in (1, 2):
        sound = {
            "waveform": torch.rand(1, 1, 20000, generator=torch.Generator().manual_seed(seed)),
            "sample_rate": 48000,
        }
        latent, _ = run("MOVASoundToPicture", latent=scene.latent, audio=sound, audio_vae=scene.audio_vae)
        made.append(sampled(run, scene, latent)[0])
    assert not torch.allclose(*made, atol=1e-3)


def test_given_pictures_come_out_unchanged_and_get_a_sound(run, scene, finished):
    images = torch.cat((finished[1], finished[1][:2]))
    positive, negative, latent, kept = run(
        "MOVAPictureToSound", positive=scene.positive, negative=scene.negative, vae=scene.vae, images=images, fps=FPS
    )
    assert torch.equal(kept, finished[1])  # 11 pictures are not 4n + 1
    video, audio = sampled(run, scene.but(positive=positive, negative=negative), latent)
    assert torch.allclose(video, streams(latent)[0], atol=1e-5)
    assert audio.std() > 0.01


def test_a_held_picture_is_shown_clean_to_the_low_noise_expert(run, scene, pack, finished, monkeypatch):
    seen = []
    model = pack.module("nodes.host.model.diffusion").MovaDiffusion
    plain = model._denoise

    def spy(self, x, timestep, *args, **kwargs):
        seen.append((id(self), kwargs["clean_streams"]))
        return plain(self, x, timestep, *args, **kwargs)

    monkeypatch.setattr(model, "_denoise", spy)
    (latent,) = run("MOVAMask", latent=finished[0], picture="nothing", sound="all")
    sampled(run, scene, latent)
    low = scene.model.get_additional_models_with_key("mova_low_noise")[0]
    assert set(seen) == {(id(low.model.diffusion_model), (True, False))}


def test_a_span_of_the_sound_is_made_anew_and_the_rest_kept(run, scene, finished):
    (latent,) = run("MOVAMask", latent=finished[0], picture="nothing", sound="span", start=0.1, end=0.2)
    video, audio = sampled(run, scene, latent, seed=6)
    before = streams(finished[0])
    assert torch.allclose(video, before[0], atol=1e-5)
    changed = (audio - before[1]).abs().amax((0, 1)) > 1e-5
    assert changed.nonzero().flatten().tolist() == list(range(5, 10))


def test_stock_noise_masks_on_a_separated_stream_hold_it(run, scene, finished):
    video, audio = run("LTXVSeparateAVLatent", av_latent=finished[0])
    (held,) = run("SetLatentNoiseMask", samples=video, mask=torch.zeros(1, 48, 80))
    (joined,) = run("LTXVConcatAVLatent", video_latent=held, audio_latent=audio)
    made = sampled(run, scene, joined, seed=6)
    assert torch.allclose(made[0], streams(finished[0])[0], atol=1e-5)
    assert not torch.allclose(made[1], streams(finished[0])[1], atol=1e-3)


def test_an_extension_keeps_the_end_it_continues_and_equals_its_pictures_in_length(run, scene, finished):
    _, images, audio = finished
    extend = {"images": images, "audio": audio, "fps": FPS, "frames": 17, "overlap": 5}
    positive, negative, latent = run(
        "MOVAExtend",
        positive=scene.positive,
        negative=scene.negative,
        vae=scene.vae,
        audio_vae=scene.audio_vae,
        **extend,
    )
    made = sampled(run, scene.but(positive=positive, negative=negative), latent)
    start = streams(latent)
    assert torch.allclose(made[0][:, :, :2], start[0][:, :, :2], atol=1e-5)
    assert torch.allclose(made[1][..., :10], start[1][..., :10], atol=1e-5)  # 5 pictures last 10.4 audio steps
    joint = {**latent, "samples": finished[0]["samples"].__class__(made)}
    more, heard, _ = run("MOVADecode", latent=joint, vae=scene.vae, audio_vae=scene.audio_vae)
    pictures, sound = run(
        "MOVAJoinClips", images=images, audio=audio, next_images=more, next_audio=heard, fps=FPS, overlap=5
    )
    assert len(pictures) == 9 + 17 - 5
    assert torch.equal(pictures[:9], images)
    assert sound["waveform"].shape[-1] == int(48000 * 21 / FPS)


@pytest.mark.parametrize("overlap", [6, 9, 17])
def test_an_overlap_that_cannot_be_is_refused(run, scene, finished, overlap):
    both = {"images": finished[1], "audio": finished[2], "fps": FPS, "frames": 9, "overlap": overlap}
    with pytest.raises(ValueError, match=r"nearest|shorten"):
        run(
            "MOVAExtend",
            positive=scene.positive,
            negative=scene.negative,
            vae=scene.vae,
            audio_vae=scene.audio_vae,
            **both,
        )


def test_guides_at_first_and_last_equal_the_last_frame_input(run, scene):
    pictures = torch.rand(2, 48, 80, 3)
    size = {"width": 80, "height": 48, "frames": 9, "fps": FPS, "batch_size": 1}
    common = {"positive": scene.positive, "negative": scene.negative, "vae": scene.vae}
    ends, _, latent = run("MOVAImageToVideoAudio", **common, **size, first_frame=pictures[:1], last_frame=pictures[1:])
    guided, _ = run("MOVAGuideFrames", **common, latent=latent, images=pictures, positions="0, -1")
    for key in ("concat_latent_image", "concat_mask"):
        assert torch.equal(ends[0][1][key], guided[0][1][key])


@pytest.mark.parametrize("positions", ["0", "0, 9", "0, 0", "first, last"])
def test_positions_that_do_not_fit_are_refused(run, scene, positions):
    with pytest.raises(ValueError, match="give"):
        run(
            "MOVAGuideFrames",
            positive=scene.positive,
            negative=scene.negative,
            vae=scene.vae,
            latent=scene.latent,
            images=torch.rand(2, 48, 80, 3),
            positions=positions,
        )


def test_without_a_mask_nothing_is_held(run, scene, finished):
    (masked,) = run("MOVAMask", latent=finished[0], picture="all", sound="all")
    again = run("MOVASampler", model=scene.model, **given(scene, masked))[0]
    plain = run("MOVASampler", model=scene.model, **given(scene, finished[0]))[0]
    assert equal(again, plain) or all(torch.allclose(a, b, atol=1e-5) for a, b in zip(streams(again), streams(plain)))
