"""Pictures and sound of a joint LATENT: to the sample, tile by tile, clip after clip, and by stock nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.conftest import condition
from tests.nodes.graph import FPS, Run, Scene, streams

pytestmark = needs_comfy


def noisy(latent: dict[str, Any]) -> dict[str, Any]:
    """The joint LATENT with something to see and hear in it."""
    random = torch.Generator().manual_seed(4)
    samples = latent["samples"]
    parts = [torch.randn(part.shape, generator=random) for part in samples.unbind()]
    return {**latent, "samples": type(samples)(parts)}


def made(run: Run, scene: Scene, **size: Any) -> dict[str, Any]:
    return noisy(condition(run, (scene.positive, scene.negative), scene.vae, **size)[2])


def decoded(run: Run, scene: Scene, latent: dict[str, Any], **widgets: Any) -> tuple[Any, ...]:
    return run("MOVADecode", latent=latent, vae=scene.vae, audio_vae=scene.audio_vae, **widgets)


@pytest.mark.parametrize(("frames", "fps"), [(9, 24.0), (5, 25.0), (1, 24.0), (9, 23.98), (13, 30.0), (5, 7.0)])
def test_sound_is_as_long_as_the_picture_to_the_sample(run: Run, scene: Scene, frames: int, fps: float) -> None:
    images, audio, rate = decoded(run, scene, made(run, scene, frames=frames, fps=fps))[:3]
    assert images.shape == (frames, 48, 80, 3)
    assert 0 <= images.min() < images.max() <= 1
    assert audio["waveform"].shape == (1, 1, int(48000 * frames / fps))
    assert (audio["sample_rate"], rate) == (48000, fps)


def test_tiles_show_nearly_the_whole_picture(run: Run, scene: Scene) -> None:
    latent = made(run, scene, width=160, height=160, frames=5)
    whole, audio = decoded(run, scene, latent)[:2]
    tiled, same = decoded(run, scene, latent, tile_size=128, overlap=64)[:2]
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.05
    assert torch.equal(audio["waveform"], same["waveform"])


def test_a_batch_is_decoded_clip_after_clip(run: Run, scene: Scene) -> None:
    latent = made(run, scene, frames=5, batch_size=2)
    images, audio = decoded(run, scene, latent)[:2]
    assert images.shape == (10, 48, 80, 3)
    assert audio["waveform"].shape == (2, 1, 10000)
    for index in range(2):
        parts = [stream[index : index + 1] for stream in streams(latent)]
        alone = decoded(run, scene, {**latent, "samples": type(latent["samples"])(parts)})
        torch.testing.assert_close(images[5 * index : 5 * index + 5], alone[0])
        torch.testing.assert_close(audio["waveform"][index : index + 1], alone[1]["waveform"])


def test_stock_nodes_decode_the_separated_streams(run: Run, scene: Scene) -> None:
    latent = made(run, scene)
    images, audio = decoded(run, scene, latent)[:2]
    video, sound = run("LTXVSeparateAVLatent", av_latent=latent)
    torch.testing.assert_close(run("VAEDecode", samples=video, vae=scene.vae)[0], images)
    stock = run("VAEDecodeAudio", samples=sound, vae=scene.audio_vae)[0]
    assert stock["sample_rate"] == 48000
    assert stock["waveform"].shape == (1, 1, 960 * 19)
    assert torch.isfinite(stock["waveform"]).all()
    assert 9 / FPS * 48000 == audio["waveform"].shape[-1] == 18000


def test_stock_tiled_nodes_decode_the_separated_streams(run: Run, scene: Scene) -> None:
    video, sound = run("LTXVSeparateAVLatent", av_latent=made(run, scene, frames=41))
    images = run("VAEDecodeTiled", samples=video, vae=scene.vae, tile_size=64, overlap=16)[0]
    assert images.shape == (41, 48, 80, 3)
    waveform = run("VAEDecodeAudioTiled", samples=sound, vae=scene.audio_vae, tile_size=64, overlap=16)[0]["waveform"]
    assert waveform.shape == (1, 1, 960 * streams(sound)[0].shape[-1])
    assert torch.isfinite(waveform).all()


def test_stereo_sound_of_another_rate_is_encoded_as_48_khz_mono(run: Run, scene: Scene) -> None:
    stereo = torch.rand(1, 2, 44100, generator=torch.Generator().manual_seed(1)) - 0.5
    sound = run("VAEEncodeAudio", audio={"waveform": stereo, "sample_rate": 44100}, vae=scene.audio_vae)[0]["samples"]
    assert sound.shape == (1, 8, 50)
    mono = {"waveform": stereo.mean(dim=1, keepdim=True), "sample_rate": 44100}
    torch.testing.assert_close(
        run("VAEEncodeAudio", audio=mono, vae=scene.audio_vae)[0]["samples"], sound, atol=1e-4, rtol=1e-4
    )


def test_sound_that_is_no_whole_number_of_steps_is_padded(run: Run, scene: Scene) -> None:
    audio = {"waveform": torch.rand(2, 1, 961) - 0.5, "sample_rate": 48000}
    assert run("VAEEncodeAudio", audio=audio, vae=scene.audio_vae)[0]["samples"].shape == (2, 8, 2)


def test_a_batch_is_decoded_clip_by_clip_for_create_video(run: Run, scene: Scene, pack: Any, monkeypatch: Any) -> None:
    """All at once it says what 'Create Video' would make of them: one clip whose second half is mute."""
    told: list[str] = []
    monkeypatch.setattr(pack.module("nodes.decode").messages, "show", lambda text, node: told.append(text))
    text = scene.positive, scene.negative
    latent = condition(run, text, scene.vae, batch_size=2)[2]
    video, audio = (torch.randn(part.shape, generator=torch.Generator().manual_seed(0)) for part in streams(latent))
    latent = {**latent, "samples": type(latent["samples"])([video, audio])}
    inputs = {"latent": latent, "vae": scene.vae, "audio_vae": scene.audio_vae}
    pictures, sound, _ = run("MOVADecode", **inputs)
    assert len(told) == 1
    assert "2 clips of 9 pictures" in told[0]
    assert "'clip'" in told[0]
    for clip in range(2):
        alone, heard, fps = run("MOVADecode", **inputs, clip=clip)
        assert torch.allclose(alone, pictures[9 * clip :][:9], atol=1e-4)
        assert torch.allclose(heard["waveform"], sound["waveform"][clip : clip + 1], atol=1e-4)
        (made,) = run("CreateVideo", images=alone, audio=heard, fps=fps)
        parts = made.get_components()
        assert len(parts.images) / fps == pytest.approx(parts.audio["waveform"].shape[-1] / 48000, abs=1e-4)
    assert len(told) == 1
    with pytest.raises(ValueError, match="clip 2 is not in this latent of 2"):
        run("MOVADecode", **inputs, clip=2)


@pytest.mark.parametrize("tile", [1, 3, 31])
def test_a_tile_too_small_is_refused(run: Run, scene: Scene, tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile_size {tile} is too small"):
        run("MOVADecode", latent=scene.latent, vae=scene.vae, audio_vae=scene.audio_vae, tile_size=tile)
