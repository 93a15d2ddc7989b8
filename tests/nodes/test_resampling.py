"""Sound of any rate is brought to another cleanly, by ComfyUI's own resampler or by torchaudio, whichever is there.

Figures are of a full-scale sine, its best fit taken out where a residue is meant; the middle half of a second is read.
"""

from __future__ import annotations

import asyncio
import builtins
import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import PACK, needs_comfy
from tests.in_process import Pack, enter, load_pack
from tests.nodes.graph import FPS
from tests.nodes.no_torchaudio import core_audio, denying

pytestmark = needs_comfy


@pytest.fixture
def without_torchaudio(comfy_nodes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """As on a newer ComfyUI: `comfy.audio` is there, and torchaudio is not."""
    audio = core_audio()
    monkeypatch.setattr(builtins, "__import__", denying(builtins.__import__))
    monkeypatch.setitem(sys.modules, "comfy.audio", audio)
    return audio


@pytest.fixture(params=["comfy.audio", "torchaudio"])
def resampled(request: pytest.FixtureRequest, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "comfy.audio":
        request.getfixturevalue("without_torchaudio")
    else:
        pytest.importorskip("torchaudio")
        if request.config.pluginmanager.hasplugin("tests.nodes.no_torchaudio"):
            pytest.skip("torchaudio is denied")
        monkeypatch.setitem(sys.modules, "comfy.audio", None)
    return pack.module("nodes.host.media.resampling").resampled


def sine(hertz: float, rate: int) -> Tensor:
    """(1, 1, S), one second."""
    return torch.sin(2 * math.pi * hertz * torch.arange(rate, dtype=torch.float64) / rate).float().view(1, 1, -1)


def level_and_residue(sound: Tensor, hertz: float, rate: int) -> tuple[float, float]:
    """Amplitude of a sine of `hertz` in the sound, and root mean square of the rest."""
    heard = sound.flatten().double()[rate // 4 : -rate // 4]
    phase = 2 * math.pi * hertz * torch.arange(len(heard), dtype=torch.float64) / rate
    waves = torch.stack((phase.sin(), phase.cos()), dim=1)
    found = torch.linalg.lstsq(waves, heard[:, None]).solution
    return float(found.norm()), float((heard - (waves @ found)[:, 0]).square().mean().sqrt())


def decibels(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-12))


def test_the_top_of_44100_hz_is_kept(resampled: Any) -> None:
    level, _ = level_and_residue(resampled(sine(20000, 44100), 44100, 48000), 20000, 48000)
    assert abs(decibels(level)) < 0.2


@pytest.mark.parametrize(("rate", "hertz"), [(16000, 7000), (44100, 7000), (47952, 7000), (47999, 7000), (44056, 2000)])
def test_nothing_is_added_to_speech(resampled: Any, rate: int, hertz: int) -> None:
    sound = resampled(sine(hertz, rate), rate, 48000)
    level, residue = level_and_residue(sound, hertz, 48000)
    assert sound.shape[-1] == 48000
    assert decibels(level / math.sqrt(2) / residue) >= 100


@pytest.mark.parametrize("hertz", [25000, 26000, 28000])
def test_what_the_new_rate_cannot_hold_is_not_heard_as_another_tone(resampled: Any, hertz: int) -> None:
    middle = resampled(sine(hertz, 96000), 96000, 48000)[..., 12000:36000]
    assert decibels(float(middle.abs().max())) <= -100


def test_it_agrees_with_an_exact_resampling(resampled: Any) -> None:
    """scipy's is exact for a sound that repeats: here one second of tones of whole frequencies."""
    scipy_signal = pytest.importorskip("scipy.signal")
    sound = sum(sine(hertz, 44100) * 0.1 for hertz in (50, 440, 3001, 9973, 17000))
    exact = torch.from_numpy(scipy_signal.resample(sound.double().numpy(), 48000, axis=-1))
    apart = (resampled(sound, 44100, 48000) - exact)[..., 2000:-2000]
    assert decibels(float(apart.abs().max())) <= -100


def test_channels_dtype_and_a_sound_of_the_right_rate_stay_as_they_are(resampled: Any) -> None:
    sound = torch.rand(2, 2, 4411).half()
    assert resampled(sound, 44100, 44100) is sound
    other = resampled(sound, 44100, 48000)
    assert other.shape == (2, 2, 4802)
    assert other.dtype == torch.float16
    assert resampled(sound, 44100.0, 48000).equal(other)


@pytest.mark.parametrize("rate", [0, -48000, 7999, 384001, 44100.5, float("nan"), float("inf"), None, "44100"])
def test_no_rate_of_sound_is_refused(pack: Pack, rate: Any) -> None:
    with pytest.raises(ValueError, match=r"has a sample rate of .* Hz; it must be a whole number from 8000 to 384000"):
        pack.module("nodes.host.media.resampling").resampled(torch.zeros(1, 1, 10), rate, 48000)


def test_cores_resampler_is_preferred_and_asked_for_a_long_filter(
    pack: Pack, without_torchaudio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = without_torchaudio.resample

    def noted(*arguments: Any, **settings: Any) -> Any:
        asked.append((*arguments[1:], settings))
        return real(*arguments, **settings)

    monkeypatch.setattr(without_torchaudio, "resample", noted)
    host = pack.module("nodes.host.media.resampling")
    host.resampled(sine(100, 44100), 44100, 48000)
    assert asked == [(147, 160, host.SHARP)]


def test_without_any_resampler_the_message_says_what_to_install(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy.audio", None)
    monkeypatch.setattr(builtins, "__import__", denying(builtins.__import__))
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="update ComfyUI, or install the torchaudio"):
        pack.module("nodes.host.media.resampling").resampled(sine(100, 44100), 44100, 48000)


@pytest.fixture
def loaded_anew(pack: Pack, comfy_nodes: ModuleType, without_torchaudio: ModuleType) -> Iterator[Pack]:
    """The pack imported afresh, all of its modules, where there is no torchaudio; then as it was."""
    name, old = pack.package.__name__, dict(comfy_nodes.NODE_CLASS_MAPPINGS)
    modules = {key: sys.modules.pop(key) for key in list(sys.modules) if key == name or key.startswith(f"{name}.")}
    yield load_pack(comfy_nodes, PACK)
    comfy_nodes.NODE_CLASS_MAPPINGS.clear()
    comfy_nodes.NODE_CLASS_MAPPINGS.update(old)
    sys.modules.update(modules)


def test_every_node_loads_without_torchaudio(pack: Pack, loaded_anew: Pack) -> None:
    assert loaded_anew.package is not pack.package
    assert list(loaded_anew.nodes) == list(pack.nodes)
    assert asyncio.run(enter(loaded_anew.package))[1]


def test_every_node_that_takes_sound_runs_without_torchaudio(run: Any, scene: Any, without_torchaudio: Any) -> None:
    sound = {"waveform": 0.1 * torch.randn(1, 1, 44100 // 2), "sample_rate": 44100}
    images = torch.rand(9, 48, 80, 3)
    latent, _ = run("MOVASoundToPicture", latent=scene.latent, audio=sound, audio_vae=scene.audio_vae)
    assert "noise_mask" in latent
    extended = run(
        "MOVAExtend",
        positive=scene.positive,
        negative=scene.negative,
        vae=scene.vae,
        audio_vae=scene.audio_vae,
        images=images,
        audio=sound,
        fps=FPS,
        frames=9,
        overlap=5,
    )
    assert "noise_mask" in extended[2]
    other = sound | {"sample_rate": 48000}
    joined = run("MOVAJoinClips", images=images, audio=sound, next_images=images, next_audio=other, fps=FPS, overlap=5)
    assert joined[1]["sample_rate"] == 44100
