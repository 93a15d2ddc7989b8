"""Single files in ComfyUI's ordinary folders: our loaders give what the folder gives, and what stock loaders give."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfy import needs_comfy
from tests.fixtures.key_shapes import UMT5Sizes, umt5_shapes
from tests.fixtures.prism import prism_weights, row_scaled, write_prism
from tests.fixtures.wan_sized import wide_text
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, equal, error, sampled

pytestmark = needs_comfy

SAME = "in the high-noise file"


def load(run: Run, high: str, low: str = SAME, shared: str = SAME, weight_dtype: str = "fp32") -> Any:
    return run("MOVAModelLoader", high_noise=high, low_noise=low, shared=shared, weight_dtype=weight_dtype)[0]


@pytest.fixture(scope="session")
def from_folder(run: Run, scene: Scene) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene, scene.model)


def test_three_files_or_one_give_what_the_folder_gives(run, scene, models, from_folder):
    split = load(run, models["video_dit"], models["video_dit_2"], models["shared"])
    assert equal(sampled(run, scene, split), from_folder)
    assert equal(sampled(run, scene, load(run, models["merged"])), from_folder)


def test_weights_of_one_file_are_mapped_once_for_both_experts(run, models, pack: Pack):
    high, low = pack.module("nodes.host.experts.pair").split(load(run, models["merged"], weight_dtype="default"))
    for part in ("audio_dit", "dual_tower_bridge"):
        one, other = (getattr(model.model.diffusion_model, part) for model in (high, low))
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)


def test_an_expert_that_nothing_vouches_for_is_said_to_be_unverified(run, models, comfy_base, caplog):
    folder = comfy_base / "models" / "diffusion_models"
    for part in ("video_dit", "video_dit_2", "shared"):
        save_file(load_file(folder / models[part]), folder / f"plain_{part}.safetensors")
    names = [f"plain_{part}.safetensors" for part in ("video_dit", "video_dit_2", "shared")]
    with caplog.at_level(logging.WARNING, logger="mova"):
        load(run, *names)
    assert sum("Wan 2.2's expert" in record.message for record in caplog.records) == 2
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="mova"):
        load(run, names[0], names[1], models["shared"])
    assert not [record for record in caplog.records if record.name == "mova"]


def refused(pack: Pack) -> type[Exception]:
    """The pack's own MovaError: it is loaded under the name ComfyUI gives it."""
    return pack.module("mova_core.errors").MovaError


def test_wrong_files_in_the_loader_are_refused_by_what_they_are(run, models, pack):
    with pytest.raises(refused(pack), match="holds MOVA: the audio tower, the bridge; wanted here is the high-noise"):
        load(run, models["shared"], models["video_dit_2"], models["shared"])


def test_a_missing_file_is_refused_with_the_place_where_it_belongs(run, models, pack):
    with pytest.raises(refused(pack), match="diffusion_models"):
        load(run, "absent.safetensors")


def test_the_audio_vae_of_one_file_decodes_as_the_folders(run, scene, models, comfy_base):
    (single,) = run("MOVAAudioVAELoader", vae_file=models["audio_vae"])
    latents = torch.randn(1, 8, 17, generator=torch.Generator().manual_seed(0))
    assert torch.equal(single.decode(latents), scene.audio_vae.decode(latents))


def test_the_audio_vae_loads_with_weight_norm_unfolded(run, scene, models, comfy_base):
    tensors = load_file(comfy_base / "models" / "vae" / models["audio_vae"])
    unfolded = {}
    for key, value in tensors.items():
        if key.endswith(".weight") and value.ndim == 3 and "quant" not in key:
            norm = torch.linalg.vector_norm(value.float(), dim=(1, 2), keepdim=True)
            unfolded |= {f"{key}_g": norm, f"{key}_v": value.float()}
        else:
            unfolded[key] = value.float()
    save_file(unfolded, comfy_base / "models" / "vae" / "normed.safetensors")
    (vae,) = run("MOVAAudioVAELoader", vae_file="normed.safetensors")
    latents = torch.randn(1, 8, 17, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(vae.decode(latents), scene.audio_vae.decode(latents), atol=1e-4)


# --- stock loaders -------------------------------------------------------------------------------------------------


def test_the_stock_vae_loader_reads_the_converted_video_vae(run, scene, models):
    (vae,) = run("VAELoader", vae_name=models["video_vae"])
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vae.decode(latents), scene.vae.decode(latents))


def test_the_text_encoder_file_is_what_the_stock_loader_wants():
    """Names and detection at full size, on the meta device; the tiny checkpoint's own encoder has another width."""
    import comfy.sd
    import comfy.text_encoders.t5
    import comfy.text_encoders.wan

    published = umt5_shapes(
        UMT5Sizes(vocabulary=256384, width=4096, layers=24, heads=64, head_width=64, ffn_width=10240)
    )
    weights = {key: torch.empty(shape, device="meta", dtype=torch.bfloat16) for key, shape in published.items()}
    assert comfy.sd.detect_te_model(weights) == comfy.sd.TEModel.T5_XXL
    config = Path(comfy.text_encoders.wan.__file__).with_name("umt5_config_xxl.json")
    import json

    model = comfy.text_encoders.t5.T5(json.loads(config.read_text()), torch.bfloat16, "meta", comfy_operations())
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == {k: tuple(v) for k, v in published.items()}


def comfy_operations() -> Any:
    import comfy.ops

    return comfy.ops.disable_weight_init


def test_the_stock_tokenizer_is_made_from_the_file(models, comfy_base, diffusers):
    from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

    stored = load_file(comfy_base / "models" / "text_encoders" / models["text_encoder"])["spiece_model"]
    ours = SPieceTokenizer.from_pretrained(str(diffusers / "tiny" / "tokenizer" / "spiece.model"))
    assert SPieceTokenizer.from_pretrained(stored)("a cat")["input_ids"] == ours("a cat")["input_ids"]


# --- Prism ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prism(comfy_base: Path, diffusers: Path) -> tuple[str, str]:
    folder = comfy_base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    weights = prism_weights(diffusers / "tiny", 2)
    write_prism(folder / "prism.safetensors", weights)
    write_prism(folder / "prism_fp8.safetensors", row_scaled(weights))
    return "prism.safetensors", "prism_fp8.safetensors"


def test_prism_loads_into_the_same_model_with_its_own_shifts(run, scene, prism, from_folder):
    model = load(run, prism[0])
    assert model.model.shifts() == (9.0, 7.0)
    assert equal(sampled(run, scene, model, shift=5.0, audio_shift=5.0), from_folder)  # the same weights
    inputs = {"positive": scene.positive, "negative": scene.negative, "latent_image": scene.latent}
    (stock,) = run(
        "KSampler", model=model, seed=5, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple", **inputs
    )
    assert error(stock, from_folder) > 0.01  # 9 and 7, not 5 and 5


@pytest.mark.parametrize("name", ["MOVA", "Prism"])
def test_shift_0_of_the_sampler_is_the_models_own(run, scene, prism, models, caplog, name):
    model = load(run, models["merged"] if name == "MOVA" else prism[0])
    trained = {"MOVA": {"shift": 5.0, "audio_shift": 5.0}, "Prism": {"shift": 9.0, "audio_shift": 7.0}}[name]
    with caplog.at_level(logging.INFO, logger="mova"):
        own = sampled(run, scene, model, shift=0.0, audio_shift=0.0)
    assert "is run at" not in caplog.text
    assert equal(own, sampled(run, scene, model, **trained))
    assert equal(own, sampled(run, scene, model))  # what the widgets are at
    assert equal(own, sampled(run, scene, model, shift=5.0, audio_shift=5.0)) == (name == "MOVA")
    (moved,) = run("ModelSamplingSD3", model=model, shift=3.0)
    assert equal(
        sampled(run, scene, moved, shift=0.0, audio_shift=0.0),
        sampled(run, scene, model, shift=3.0, audio_shift=3.0),
    )


def test_shifts_that_a_model_was_not_trained_at_are_logged(run, scene, prism, caplog):
    with caplog.at_level(logging.INFO, logger="mova"):
        sampled(run, scene, load(run, prism[0]), shift=5.0, audio_shift=5.0)
    assert "shift 5 for the picture, 5 for the sound; this model is run at 9 and 7" in caplog.text


@pytest.mark.parametrize(("width", "height", "shift"), [(848, 480, 9.0), (1280, 720, 7.0), (2560, 1440, 13.0)])
def test_prisms_own_shift_is_that_of_the_clips_size_unless_a_node_sets_another(run, prism, pack, width, height, shift):
    model = load(run, prism[0])
    shifts_of = pack.module("nodes.host.sampling.samplers").shifts_of
    shape = pack.module("mova_core.shapes").VideoShape(batch=1, frames=205, height=height, width=width)
    assert shifts_of(model, 0, 0, shape) == (shift, 7.0)
    assert shifts_of(model, 8.0, 6.0, shape) == (8.0, 6.0)
    (moved,) = run("ModelSamplingSD3", model=model, shift=3.0)
    assert shifts_of(moved, 0, 0, shape)[0] == 3.0
    fast, recipes = pack.module("nodes.host.sampling.fast"), pack.module("mova_core.sampling.fast")
    assert fast.shifts_of(model, recipes.recipe_of("full", 8), shape) == (shift, 7.0)
    assert fast.shifts_of(model, recipes.recipe_of("light", 8), shape) == (5.0, 7.0)  # that of the distillation


def test_pictures_and_length_follow_the_model(run, scene, prism, models, pack):
    """Both are in the conditioning: a picture of other proportions, and a clip as long as the model is run."""
    prism_model, mova = load(run, prism[0]), load(run, models["merged"])
    picture = torch.rand(1, 57, 70, 3, generator=torch.Generator().manual_seed(1))
    given = {"positive": scene.positive, "negative": scene.negative, "vae": scene.vae}
    clip = {"width": 80, "height": 48, "frames": 5, "fps": 24.0, "batch_size": 1, "first_frame": picture}

    def conditioned(**more):
        return run("MOVAImageToVideoAudio", **given, **(clip | more))

    plain, of_mova, of_prism = (conditioned(**more)[0][0][1] for more in ({}, {"model": mova}, {"model": prism_model}))
    key = "concat_latent_image"
    assert torch.equal(plain[key], of_mova[key])
    assert not torch.equal(plain[key], of_prism[key])
    image = pack.module("mova_core.image")
    fitted = (image.crop_and_resize(picture, 48, 80, image.PRISM_FIT).movedim(1, -1) + 1) / 2
    assert torch.equal(conditioned(first_frame=fitted)[0][0][1][key], of_prism[key])
    guided = run(
        "MOVAGuideFrames",
        positive=scene.positive,
        negative=scene.negative,
        vae=scene.vae,
        latent=conditioned()[2],
        images=picture,
        positions="0",
        model=prism_model,
    )
    assert torch.equal(guided[0][0][1][key], of_prism[key])
    small = {"width": 32, "height": 32, "first_frame": None, "own_length": True}
    lengths = [conditioned(**small, model=model)[2]["samples"].unbind()[0].shape[2] for model in (mova, prism_model)]
    assert lengths == [49, 52]
    with pytest.raises(pack.module("mova_core.errors").MovaError, match="own_length"):
        conditioned(own_length=True)


def test_the_loader_shows_what_a_relative_was_trained_with(run, pack, prism, monkeypatch):
    shown = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node: shown.append(text))
    load(run, prism[0])
    (told,) = shown
    assert told.startswith(
        "Prism, run with shift 9, audio_shift 7, on 205 frames (trained with 9 and 5 on 49 to 289 frames;"
    )


def test_prism_hears_a_prompt_of_its_own(run, scene, prism, pack):
    model = load(run, prism[0])
    sound = torch.randn(1, 512, 32, generator=torch.Generator().manual_seed(1))
    changed = pack.module("nodes.host.joint_latents").conditioned(scene.positive, {"mova_audio_context": sound})
    assert not equal(sampled(run, scene.but(positive=changed), model), sampled(run, scene, model))


def test_row_scaled_prism_computes_with_comfyuis_float8(run, scene, prism, from_folder):
    model = load(run, prism[1], weight_dtype="default")
    weight = model.model.diffusion_model.blocks[0].self_attn.q.weight
    assert type(weight).__name__ == "QuantizedTensor"
    assert weight._params.scale.shape == (256, 1)
    assert 0.001 < error(sampled(run, scene, model, shift=5.0, audio_shift=5.0), from_folder) < 0.05


# --- experts that other loaders have loaded ------------------------------------------------------------------------


def test_experts_of_the_stock_loader_with_sound_attached_are_the_model(run, scene, wan_sized):
    ours = load(run, wan_sized["video_dit"], wan_sized["video_dit_2"], wan_sized["shared"], "default")
    attached = []
    for part in ("video_dit", "video_dit_2"):
        (wan,) = run("UNETLoader", unet_name=wan_sized[part], weight_dtype="default")
        before = {key: value.clone() for key, value in wan.model.diffusion_model.state_dict().items()}
        attached.append(run("MOVAAttachSound", model=wan, shared=wan_sized["shared"])[0])
        after = wan.model.diffusion_model.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items())
    (joined,) = run("MOVAJoinExperts", high_noise=attached[0], low_noise=attached[1], boundary=0.9)
    assert equal(sampled(run, wide_text(scene), joined), sampled(run, wide_text(scene), ours))


def test_attaching_refuses_other_models_and_patched_ones(run, scene, models, wan_sized, pack):
    with pytest.raises(refused(pack), match="not a video expert"):
        run("MOVAAttachSound", model=scene.model, shared=models["shared"])
    (wan,) = run("UNETLoader", unet_name=wan_sized["video_dit"], weight_dtype="default")
    with pytest.raises(refused(pack), match="audio tower and bridge of MOVA"):
        run("MOVAAttachSound", model=wan, shared=wan_sized["video_dit_2"])
    wan.patches["diffusion_model.head.head.weight"] = [(1.0, ("diff", (torch.zeros(1),)), 1.0, None, None)]
    with pytest.raises(refused(pack), match="patched already"):
        run("MOVAAttachSound", model=wan, shared=wan_sized["shared"])
