"""Listening while a clip is made: files every k steps, links under the node, and the same clip."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import Run, Scene, equal

pytestmark = needs_comfy


sampled = partial(graph.sampled, steps=4)


@pytest.fixture
def shown(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: texts.append(text))
    return texts


def sounds(shown: list[str]) -> list[str]:
    """The lines about sound, once each."""
    return list(dict.fromkeys(line for text in shown for line in text.splitlines() if line.startswith("Sound")))


@pytest.mark.parametrize("audio_shift", [5.0, 9.0])
def test_the_last_estimate_heard_is_the_sound_of_that_step(
    run: Run, scene: Scene, pack: Pack, shown: list[str], monkeypatch: pytest.MonkeyPatch, audio_shift: float
) -> None:
    """With three steps of four done, one Euler step to 0 from there is the estimate."""
    import av
    import folder_paths

    saved = []
    helper = pack.module("nodes.host.sampling.audio_preview").ui.AudioSaveHelper
    real = helper.save_audio
    monkeypatch.setattr(helper, "save_audio", lambda sound, *rest: saved.append(sound) or real(sound, *rest))
    widgets = {"audio_vae": scene.audio_vae, "audio_shift": audio_shift}
    made = sampled(run, scene, listen_every=3, **widgets)
    assert equal(made, sampled(run, scene, audio_shift=audio_shift))
    (text,) = sounds(shown)
    found = re.fullmatch(
        r"Sound after step 3 of 4: \[\[listen\|http://[^|\]]+/view\?type=temp&filename=(\S+\.flac)&\S*\]\]", text
    )
    assert found, text
    with av.open(str(Path(folder_paths.get_temp_directory()) / found[1])) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) == saved[0]["waveform"].shape[-1]

    heard: list[torch.Tensor] = []

    def after(args: Any) -> torch.Tensor:
        heard.append(args["denoised"])
        return args["denoised"]

    model = scene.model.clone()
    model.set_model_sampler_post_cfg_function(after)
    sampled(run, scene.but(model=model), audio_shift=audio_shift)
    steps = scene.latent["samples"].unbind()[1].shape
    audio = heard[2][0, 0, -steps.numel() :].view(steps) * (audio_shift / 5.0)
    wanted = scene.audio_vae.decode(audio).movedim(-1, 1)[..., :18000]  # 9 frames at 24 a second
    torch.testing.assert_close(saved[0]["waveform"], wanted.cpu(), atol=1e-6, rtol=0)


def test_previews_come_every_k_steps_and_not_after_the_last(run: Run, scene: Scene, shown: list[str]) -> None:
    sampled(run, scene, audio_vae=scene.audio_vae, listen_every=2)
    assert [text.split(":")[0] for text in sounds(shown)] == ["Sound after step 2 of 4"]
    assert "Sound" in shown[-1]  # and stays until the end
    shown.clear()
    sampled(run, scene, audio_vae=scene.audio_vae, listen_every=0)
    assert sounds(shown) == []


def test_listening_without_a_codec_is_refused(run: Run, scene: Scene, pack: Pack) -> None:
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="connect the AUDIO VAE"):
        sampled(run, scene, listen_every=1)


@pytest.mark.parametrize(
    ("listens", "link"),
    [("0.0.0.0", "http://127.0.0.1:8188"), ("192.168.0.7", "http://192.168.0.7:8188"), ("::", "http://127.0.0.1:8188")],
)
def test_the_link_leads_to_the_server(pack: Pack, monkeypatch: pytest.MonkeyPatch, listens: str, link: str) -> None:
    module = pack.module("nodes.host.sampling.audio_preview")
    monkeypatch.setattr(module.PromptServer.instance, "address", listens, raising=False)
    monkeypatch.setattr(module.PromptServer.instance, "port", 8188, raising=False)
    assert module.address() == link
