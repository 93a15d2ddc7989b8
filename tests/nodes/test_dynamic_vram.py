"""Under dynamic VRAM, ComfyUI's default on NVIDIA cards, a clip is the one without it, wherever its weights lie."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.dynamic_vram import ROOMS, STREAMS, Card, hold, on_card
from tests.nodes.graph import Run, Scene, error, ksampled

pytestmark = needs_comfy

STEPS = 3  # two with the high-noise expert
LORA = "dynamic.safetensors"


@pytest.fixture(scope="module")
def lora(comfy_base: Path, scene: Scene) -> str:
    """On a weight of each part."""
    weights = scene.model.model.diffusion_model.state_dict()
    make = torch.Generator().manual_seed(1)
    tensors = {}
    for key in ("blocks.1.ffn.0", "blocks.0.self_attn.q", "audio_dit.blocks.0.cross_attn.v"):
        rows, columns = weights[f"{key}.weight"].shape
        tensors[f"diffusion_model.{key}.lora_A.weight"] = torch.randn(4, columns, generator=make) * 0.3
        tensors[f"diffusion_model.{key}.lora_B.weight"] = torch.randn(rows, 4, generator=make) * 0.3
    (comfy_base / "models" / "loras").mkdir(exist_ok=True)
    save_file(tensors, comfy_base / "models" / "loras" / LORA)
    return LORA


@pytest.fixture(scope="module")
def forms(comfy_base: Path, lora: str) -> str:
    """The same layers as DoRA, and one as LoKr."""
    folder, make = comfy_base / "models" / "loras", torch.Generator().manual_seed(2)
    tensors = load_file(folder / lora)
    for key in [key for key in tensors if key.endswith("lora_B.weight")]:
        lengths = torch.rand(len(tensors[key]), generator=make) + 0.5
        tensors[key.replace("lora_B.weight", "lora_magnitude_vector")] = lengths
    rows, columns = (
        tensors[f"diffusion_model.blocks.0.self_attn.q.lora_{x}.weight"].shape[n] for n, x in enumerate("BA")
    )
    for factor, size in (("w1", (2, 2)), ("w2", (rows // 2, columns // 2))):
        tensors[f"diffusion_model.blocks.1.self_attn.q.lokr_{factor}"] = torch.randn(size, generator=make) * 0.3
    save_file(tensors, folder / "forms.safetensors")
    return "forms.safetensors"


sampled = partial(ksampled, seed=3, steps=STEPS)


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_dora_and_lokr_are_those_without_it(
    run: Run, pack: Pack, scene: Scene, diffusers: Path, forms: str, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sampled(run, scene, scene.model)
    wanted = sampled(run, scene, run("MOVALoraLoader", model=scene.model, lora_name=forms)[0])
    assert error(wanted, plain) > 1e-2
    model = on_card(pack, diffusers, Card(room, 2), monkeypatch)
    assert error(sampled(run, scene, run("MOVALoraLoader", model=model, lora_name=forms)[0]), wanted) < 1e-5
    assert error(sampled(run, scene, model), plain) < 1e-5


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_the_clip_and_its_lora_are_those_without_it(
    run: Run,
    pack: Pack,
    scene: Scene,
    diffusers: Path,
    lora: str,
    room: float,
    streams: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch = {"lora_name": lora, "strength_model": 1.0}
    plain = sampled(run, scene, scene.model)
    wanted = sampled(run, scene, run("LoraLoaderModelOnly", model=scene.model, **patch)[0])
    assert error(wanted, plain) > 1e-2
    card = Card(room, streams)
    model = on_card(pack, diffusers, card, monkeypatch)
    assert error(sampled(run, scene, model), plain) < 1e-5
    assert error(sampled(run, scene, run("LoraLoaderModelOnly", model=model, **patch)[0]), wanted) < 1e-5
    assert error(sampled(run, scene, model), plain) < 1e-5  # and off again
    assert bool(card.brought) == bool(room)
    assert not any(+places.pinned for places in card.models)
    modules = [m for each in (model, model.low) for m in each.model.diffusion_model.modules()]
    staying = {id(m) for m in modules if getattr(m, "_v_signature", None) is not None}
    assert not [m for m in modules if getattr(m, "_v_weight", None) is not None and id(m) not in staying]


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_a_weight_that_does_not_stay_is_brought_once_a_forward(
    run: Run,
    pack: Pack,
    scene: Scene,
    diffusers: Path,
    streams: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import comfy.ops

    card, brought = Card(0, streams), Counter[int]()
    model = on_card(pack, diffusers, card, monkeypatch)
    bring = comfy.ops.cast_modules_with_vbar

    def counted(modules: list[Any], *more: Any, **named: Any) -> Any:
        brought.update(map(id, modules))
        return bring(modules, *more, **named)

    monkeypatch.setattr("comfy.ops.cast_modules_with_vbar", counted)
    sampled(run, scene, model)
    for each, forwards in ((model, STEPS - 1), (model.low, 1)):
        layers = each.model.diffusion_model.layer_modules()
        weights = [m for layer in layers for root in layer for m in root.modules() if hasattr(m, "_v")]
        assert {brought[id(module)] for module in weights} == {forwards}


def test_sound_is_decoded_from_host_weights(
    run: Run, pack: Pack, scene: Scene, diffusers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(4))
    wanted = scene.audio_vae.decode(latent)
    Card(0).install(monkeypatch)
    vae = pack.module("nodes.host.loaders.audio_vae").load_audio_vae(diffusers / "tiny")
    assert vae.patcher.is_dynamic()
    hold(vae.first_stage_model)
    assert torch.equal(vae.decode(latent), wanted)
