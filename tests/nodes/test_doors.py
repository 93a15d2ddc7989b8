"""What lies behind a node's check: a VAE that makes something else, memory that ends, prompts that say nothing."""

from __future__ import annotations

import pathlib
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.conftest import condition
from tests.nodes.graph import Run, Scene, error, ksampled

pytestmark = needs_comfy


def test_every_type_that_a_node_takes_is_checked(pack: Pack) -> None:
    known = pack.module("nodes.inputs").CHECKS
    for node_id, node in pack.nodes.items():
        for given in node.define_schema().inputs:  # type: ignore[attr-defined]
            assert given.rawLink or hasattr(given, "checked") or given.get_io_type() in known, (node_id, given.id)


# --- VAEs


def vae(**does: Any) -> Any:
    return SimpleNamespace(latent_channels=16, latent_dim=3, **{"encode": print, "decode": print} | does)


def failing(*_: Any, **__: Any) -> Any:
    raise KeyError("tile_t")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ({}, r"made nothing \(None\) where it should encode a clip"),
        ({"encode": lambda _: torch.zeros(3, 4)}, r"made \(3, 4\) where it should encode"),
        ({"encode": failing}, r"another pack gives as a VAE, cannot encode a clip \(KeyError: 'tile_t'\)"),
        ({"encode": lambda _: torch.full((1, 16, 3, 6, 10), float("nan"))}, "gave NaN or infinite numbers"),
        ({"encode": None}, "cannot encode"),
    ],
)
def test_a_vae_that_makes_no_latents_is_named(run: Run, scene: Scene, pack: Pack, does: Any, said: str) -> None:
    texts = scene.positive, scene.negative
    with pytest.raises(pack.module("mova_core.errors").MovaError, match=f"(?s){said}.*'MOVA Loader'"):
        condition(run, texts, vae(**does), first_frame=torch.rand(1, 48, 80, 3))


def decoding(broken: list[int], clips: int = 2) -> Any:
    made = torch.rand(clips, 9, 48, 80, 3)
    made[broken] = float("nan")
    return vae(decode=lambda _: made.clone())


def decoded(run: Run, scene: Scene, broken: list[int]) -> tuple[Any, ...]:
    text = scene.positive, scene.negative
    latent = condition(run, text, scene.vae, batch_size=2)[2]
    return run("MOVADecode", latent=latent, vae=decoding(broken), audio_vae=scene.audio_vae)


def test_pictures_of_nan_are_never_given_to_be_saved(run: Run, scene: Scene, pack: Pack) -> None:
    with pytest.raises(pack.module("mova_core.errors").NotFiniteError, match=r"the video VAE gave NaN.*--fp32-vae"):
        decoded(run, scene, [0, 1])


def test_one_broken_draft_of_a_batch_is_told_of_and_ranked_last(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, _: texts.append(text))
    images, audio, _ = decoded(run, scene, [0])
    assert "NaN for clip 0" in texts[0]
    latent = condition(run, (scene.positive, scene.negative), scene.vae, batch_size=2)[2]
    assert run("MOVAPickDraft", latent=latent, images=images, audio=audio)[1] == 1


# --- memory


def test_too_little_ram_is_said_in_words_and_a_devices_memory_is_left_to_comfyui(
    run: Run, scene: Scene, pack: Pack
) -> None:
    def short(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    ours = pack.module("mova_core.errors").MovaError
    given = {"latent": scene.latent, "audio_vae": scene.audio_vae}
    for short_of in (short, lambda *_, **__: [0] * 2**60):
        with pytest.raises(ours, match=r"more memory \(RAM\) than there is"):
            run("MOVADecode", vae=real_vae(scene, short_of), **given)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run("MOVADecode", vae=real_vae(scene, full), **given)


def real_vae(scene: Scene, decode: Any) -> Any:
    import copy

    other = copy.copy(scene.vae)
    other.decode = decode
    return other


# --- prompts


def test_a_conditioning_without_a_prompt_is_refused_by_every_sampler(run: Run, scene: Scene, pack: Pack) -> None:
    for kind in ("positive", "negative"):
        with pytest.raises(pack.module("mova_core.errors").MovaError, match=f"the {kind} CONDITIONING is empty"):
            ksampled(run, scene.but(**{kind: []}), steps=1)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"strength": float("nan")}, "'strength' in this conditioning: nan is out of range"),
        ({"start_percent": "0"}, "'start_percent' in this conditioning: '0' is no number"),
        ({"concat_mask": "x"}, "the mask of the first frames in this conditioning is 'x'"),
        ({"pooled_output": torch.tensor([float("nan")])}, "'pooled_output' in this conditioning runs from nan"),
    ],
)
def test_what_lies_beside_a_prompt_is_named(
    run: Run, scene: Scene, pack: Pack, beside: dict[str, Any], said: str
) -> None:
    text, values = scene.positive[0]
    given = scene.but(positive=[[text, values | beside]])
    with pytest.raises(pack.module("mova_core.errors").MovaError, match=said):
        ksampled(run, given, steps=1)
    with pytest.raises(pack.module("mova_core.errors").MovaError, match=f"positive: {said}"):
        run("MOVAGuider", model=scene.model, positive=given.positive, negative=scene.negative)


def ranged(run: Run, prompt: Any, *ranges: tuple[float, float]) -> Any:
    """A prompt in force in some parts of the run."""
    parts = [run("ConditioningSetTimestepRange", conditioning=prompt, start=a, end=b)[0] for a, b in ranges]
    return [entry for part in parts for entry in part]


@pytest.mark.parametrize("ranges", [((0.0, 0.5),), ((0.5, 1.0),), ((0.0, 0.3), (0.8, 1.0))])
def test_a_step_without_a_prompt_is_refused(run: Run, scene: Scene, pack: Pack, ranges: Any) -> None:
    """ComfyUI takes zeros for it, and the clip turns grey."""
    said = r"no positive prompt is in force at step \d \(sigma 0|no positive prompt is in force at step 1 \(sigma 1"
    with pytest.raises(pack.module("mova_core.errors").MovaError, match=said):
        ksampled(run, scene.but(positive=ranged(run, scene.positive, *ranges)), steps=4, cfg=1.0)


def test_ranges_that_meet_and_steps_that_are_not_taken_need_no_other_prompt(run: Run, scene: Scene) -> None:
    whole = ksampled(run, scene, steps=4, cfg=1.0)
    met = ranged(run, scene.positive, (0.0, 0.4), (0.4, 1.0))
    gone = ranged(run, scene.negative, (0.0, 0.1))  # never asked at cfg 1
    assert error(ksampled(run, scene.but(positive=met, negative=gone), steps=4, cfg=1.0), whole) == 0
    late = ranged(run, scene.positive, (0.2, 1.0))
    ksampled(run, scene.but(positive=late), steps=4, cfg=1.0, denoise=0.3)


def test_a_controlnets_prompt_has_no_effect_and_is_told_of(
    run: Run, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    text, values = scene.positive[0]
    given = scene.but(positive=[[text, values | {"cross_attn_controlnet": torch.rand(1, 7, 32)}]])
    with caplog.at_level("WARNING", "mova"):
        ksampled(run, given, steps=1)
    assert "a ControlNet's prompt ('cross_attn_controlnet')" in caplog.text


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (2 * torch.rand(1, 48, 80, 3) - 1, "pictures that run from -.* to .* are cut to 0..1"),
        (torch.rand(1, 48, 80, 4), "pictures with alpha are laid over white"),
    ],
)
def test_what_is_changed_of_a_picture_is_said_in_the_page_too(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch, pictures: torch.Tensor, said: str
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, _: texts.append(text))
    condition(run, (scene.positive, scene.negative), scene.vae, first_frame=pictures)
    assert len(texts) == 1
    assert re.fullmatch(said, texts[0])


def test_a_name_of_any_length_is_refused_in_a_line(run: Run, scene: Scene, pack: Pack) -> None:
    clips = pack.module("nodes.host.training.data_set").DataSet((), pathlib.Path(), "")
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="cannot name a LoRA") as refusal:
        run("MOVATrainLora", model=scene.model, clips=clips, name=20000 * "x")
    assert len(str(refusal.value)) < 200
