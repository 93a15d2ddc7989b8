"""'MOVA Save Latent' and 'MOVA Load Latent': a clip decoded later is the clip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes.graph import equal, streams

pytestmark = needs_comfy


def saved(run, latent, prefix="latents/MOVA"):
    return run("MOVASaveLatent", latent=latent, filename_prefix=prefix)[1]


def test_a_latent_comes_back_with_its_rates_and_masks(run, scene):
    masked = run("MOVAMask", latent=scene.latent, picture="span", sound="all", start=0.0, end=0.2)[0]
    masked = {**masked, "frame_rate": 12.5, "batch_index": [3]}
    back = run("MOVALoadLatent", file=saved(run, masked) + " [output]")[0]
    assert equal(back, masked)
    assert back["frame_rate"] == 12.5
    assert back["batch_index"] == [3]
    assert back["audio_steps_per_second"] == masked["audio_steps_per_second"]
    for one, other in zip(back["noise_mask"].unbind(), masked["noise_mask"].unbind(), strict=True):
        assert torch.equal(one, other)


def test_decoded_later_and_in_tiles_it_is_the_same_clip(run, scene):
    latent = {
        **scene.latent,
        "samples": type(scene.latent["samples"])([torch.randn_like(s) for s in streams(scene.latent)]),
    }
    back = run("MOVALoadLatent", file=saved(run, latent) + " [output]")[0]
    vaes = {"vae": scene.vae, "audio_vae": scene.audio_vae}
    one, other = (run("MOVADecode", latent=each, **vaes) for each in (latent, back))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1]["waveform"], other[1]["waveform"])
    assert one[2] == other[2]
    assert run("MOVADecode", latent=back, tile_size=64, **vaes)[0].shape == one[0].shape


def test_each_save_is_a_file_of_its_own_and_the_list_has_them(run, scene, pack):
    names = [saved(run, scene.latent, "latents/again") for _ in range(2)]
    assert len(set(names)) == 2
    listed = pack.module("nodes.host.kept.latent_store").files()
    assert {f"{name} [output]" for name in names} <= set(listed)


def test_a_stock_latent_is_read_with_an_empty_sound(run, scene, comfy_base: Path):
    video = torch.randn(1, 16, 3, 6, 10)
    run("SaveLatent", samples={"samples": video}, filename_prefix="latents/stock")
    file = next((comfy_base / "output" / "latents").glob("stock*.latent"))
    back = run("MOVALoadLatent", file=f"latents/{file.name} [output]", audio_vae=scene.audio_vae)[0]
    shown, heard = streams(back)
    assert torch.equal(shown, video)
    assert heard.shape == streams(scene.latent)[1].shape
    assert not heard.any()


@pytest.mark.parametrize(
    "name", ["../secret.latent", "/etc/passwd", "a\0.latent", "x.txt", "", " [output]", "../x.latent [output]"]
)
def test_names_that_lead_elsewhere_are_refused(run, name):
    with pytest.raises(ValueError, match="no latent in the input or output folder"):
        run("MOVALoadLatent", file=name)


@pytest.mark.parametrize("prefix", ["../x", "", "a\0b", "con", "x" * 300])
def test_prefixes_that_name_no_file_are_refused(run, scene, prefix):
    with pytest.raises(ValueError, match=r"cannot name a file|names no file|control character|device|too long"):
        saved(run, scene.latent, prefix)


def test_a_file_that_is_gone_is_said(run):
    with pytest.raises(ValueError, match=r"gone\.latent"):
        run("MOVALoadLatent", file="gone.latent")
