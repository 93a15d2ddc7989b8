"""What a user gets wrong is refused before anything runs: the message names the value or file, and the remedy."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.nodes import graph
from tests.nodes.conftest import condition
from tests.nodes.graph import Run, Scene, streams

pytestmark = needs_comfy


def says(*parts: str) -> str:
    """A pattern that finds all parts, in any order."""
    return "(?s)" + "".join(f"(?=.*{part})" for part in parts)


sampled = partial(graph.sampled, steps=1, cfg=5.0)
ksampled = partial(graph.ksampled, steps=1)


# --- sizes and prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        ({"width": 650}, ["650x48", "640x48", "656x48"]),
        ({"width": 850, "height": 481}, ["850x481", "848x480", "864x496"]),
        ({"frames": 10}, ["10 frames", "9", "13"]),
        ({"frames": 0}, ["frames: 0 is out of range", "from 1 to 2001"]),
        ({"fps": 0.0}, ["fps: 0.0 is out of range", "from 1.0 to 120.0"]),
        ({"fps": float("nan")}, ["fps: nan is out of range"]),
        ({"batch_size": 0}, ["batch_size: 0 is out of range", "from 1 to 64"]),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_the_nearest(
    run: Run, scene: Scene, size: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=says(*parts)):
        condition(run, (scene.positive, scene.negative), scene.vae, **size)


@pytest.mark.parametrize("prompt", ["", "  \n ", "&nbsp;", "\ufeff", "&amp;nbsp;\u200b"])
def test_an_empty_prompt_is_refused(run: Run, scene: Scene, prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        run("MOVATextEncode", clip=scene.clip, prompt=prompt, negative_prompt="")


def test_an_empty_negative_prompt_is_not(run: Run, scene: Scene) -> None:
    assert run("MOVATextEncode", clip=scene.clip, prompt="a cat", negative_prompt="")[1][0][0].shape == (1, 512, 32)


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(
    run: Run, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = getattr(scene.clip.tokenizer, scene.clip.tokenizer.clip).tokenizer
    words = "cat " * 600
    length = len(tokenizer(words.strip())["input_ids"])
    assert length > 512
    with caplog.at_level(logging.WARNING, "mova"):
        rows = run("MOVATextEncode", clip=scene.clip, prompt=words, negative_prompt="")[0][0][0]
    assert rows.shape == (1, 512, 32)
    assert f"{length - 512} tokens" in caplog.text


# --- a wrong thing on an input ---------------------------------------------------------------------------------------


def test_a_plain_video_latent_is_refused_by_our_sampler(run: Run, scene: Scene) -> None:
    plain = {"samples": streams(scene.latent)[0]}
    with pytest.raises(ValueError, match=says(r"\(1, 16, 3, 6, 10\)", "MOVA Image to Video")):
        sampled(run, scene, latent=plain)


def test_an_image_latent_is_refused_by_ksampler(run: Run, scene: Scene) -> None:
    """A plain video latent is given its sound instead, see test_stock_nodes.py."""
    inputs = {**scene.conditioned, "latent_image": {"samples": torch.randn(1, 16, 6, 10)}}
    with pytest.raises(ValueError, match="MOVA Image to Video"):
        run("KSampler", model=scene.model, **inputs, steps=1)


def test_a_finished_video_without_sound_is_refused_by_ksampler(run: Run, scene: Scene) -> None:
    inputs = {**scene.conditioned, "latent_image": {"samples": torch.randn(1, 16, 3, 6, 10)}}
    with pytest.raises(ValueError, match=says("one stream", "Concat AV Latent")):
        run("KSampler", model=scene.model, **inputs, steps=1)


@pytest.mark.parametrize("shape", [(1, 8, 19), (1, 64, 22), (1, 16)])
def test_an_empty_latent_that_is_no_video_is_refused_by_stock_samplers_too(
    run: Run, scene: Scene, shape: tuple[int, ...]
) -> None:
    """'Empty Latent Audio' and its like: ComfyUI has each model complete what is empty."""
    with pytest.raises(ValueError, match=says("one stream", "Concat AV Latent")):
        ksampled(run, scene, latent_image={"samples": torch.zeros(shape)}, steps=1)


def joint(scene: Scene, video: tuple[int, ...], audio: tuple[int, ...]) -> dict[str, Any]:
    return {"samples": type(scene.latent["samples"])([torch.zeros(video), torch.zeros(audio)])}


@pytest.mark.parametrize(
    ("video", "audio", "parts"), [(16, 128, ["128", "8", "MOVA Loader"]), (48, 8, ["48", "16", "MOVA Loader"])]
)
def test_a_joint_latent_of_another_model_is_refused(
    run: Run, scene: Scene, video: int, audio: int, parts: list[str]
) -> None:
    latent = joint(scene, (1, video, 3, 6, 10), (1, audio, 19))
    with pytest.raises(ValueError, match=says(*parts)):
        sampled(run, scene, latent=latent)
    with pytest.raises(ValueError, match=says(*parts)):
        run("KSampler", model=scene.model, **{**scene.conditioned, "latent_image": latent}, steps=1)


def test_streams_of_unequal_batches_are_refused(run: Run, scene: Scene) -> None:
    with pytest.raises(ValueError, match=says(r"\(2, 16, 3, 6, 10\), \(1, 8, 19\)", "batch")):
        sampled(run, scene, latent=joint(scene, (2, 16, 3, 6, 10), (1, 8, 19)))


def test_a_conditioning_of_another_batch_is_refused(run: Run, scene: Scene) -> None:
    three = condition(run, (scene.positive, scene.negative), scene.vae, batch_size=3)[2]
    image = scene.positive[0][1]["concat_latent_image"].repeat(2, 1, 1, 1, 1)
    two = [[scene.positive[0][0], {**scene.positive[0][1], "concat_latent_image": image}]]
    with pytest.raises(ValueError, match=says("2", "3", "batch")):
        sampled(run, scene, positive=two, latent=three)


@pytest.mark.parametrize(
    ("node_id", "names"),
    [
        ("MOVASampler", ["model", "positive", "negative", "latent"]),
        ("MOVASplitExperts", ["model"]),
        ("MOVAJoinExperts", ["high_noise", "low_noise"]),
    ],
)
def test_another_model_is_refused(run: Run, scene: Scene, node_id: str, names: list[str]) -> None:
    other = SimpleNamespace(model=SimpleNamespace(), get_additional_models_with_key=lambda key: [])
    inputs = {name: getattr(scene, name, other) for name in names} | {names[0]: other}
    with pytest.raises(ValueError, match="MOVA Loader"):
        run(node_id, **inputs)


def test_another_text_encoder_is_refused(run: Run) -> None:
    clip = SimpleNamespace(tokenizer=SimpleNamespace(clip_name="l"))
    with pytest.raises(ValueError, match=says("'l'", "UMT5", "MOVA Loader")):
        run("MOVATextEncode", clip=clip, prompt="a cat", negative_prompt="")


def test_swapped_vaes_are_refused(run: Run, scene: Scene) -> None:
    with pytest.raises(ValueError, match="this VAE is MOVA's audio VAE"):
        run("MOVADecode", latent=scene.latent, vae=scene.audio_vae, audio_vae=scene.vae)
    with pytest.raises(ValueError, match="AUDIO VAE"):
        run("MOVADecode", latent=scene.latent, vae=scene.vae, audio_vae=scene.vae)
    with pytest.raises(ValueError, match="this VAE is MOVA's audio VAE"):
        condition(run, (scene.positive, scene.negative), scene.audio_vae)


def test_the_page_shows_no_path_before_the_sentence(pack: Any) -> None:
    import execution

    base = pack.module("mova_core.errors").MovaError
    for error in (base, *base.__subclasses__()):
        assert execution.full_type_name(error) == f"MOVA.{error.__name__}"


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(diffusers: Path) -> Any:
    """A copy of the tiny folder that the test may break; 'MOVA Loader' calls it damaged."""
    folder = shutil.copytree(diffusers / "tiny", diffusers / "damaged")
    yield folder
    shutil.rmtree(folder)


def load(run: Run, folder: str = "damaged") -> Any:
    return run("MOVALoader", folder=folder, weight_dtype="default")


def test_a_folder_that_is_not_there_is_named(run: Run, diffusers: Path) -> None:
    with pytest.raises(ValueError, match=says("absent", str(diffusers), "(?i:download)")):
        load(run, "absent")


def test_a_path_out_of_the_models_folder_is_refused(run: Run, diffusers: Path) -> None:
    with pytest.raises(ValueError, match="no MOVA folder"):
        load(run, "../diffusers/tiny")


def test_a_missing_shard_is_named(run: Run, damaged: Path) -> None:
    shard = sorted((damaged / "video_dit_2").glob("*-00002-*"))[0]
    shard.unlink()
    with pytest.raises(ValueError, match=says("video_dit_2", shard.name, "Resume")):
        load(run)


@pytest.mark.parametrize("part", ["video_dit", "audio_dit", "text_encoder", "video_vae", "audio_vae"])
def test_a_truncated_file_is_named(run: Run, damaged: Path, part: str) -> None:
    file = sorted((damaged / part).glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=says(str(file), "download it again")):
        load(run)


PARTS = ["video_dit_2", "dual_tower_bridge", "audio_dit", "video_vae", "audio_vae", "text_encoder", "tokenizer"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_and_no_other(run: Run, damaged: Path, part: str) -> None:
    shutil.rmtree(damaged / part)
    with pytest.raises(ValueError, match=says(rf"\b{part}\b", "(?:missing|lacks)", "Download")) as refusal:
        load(run)
    assert not [other for other in PARTS if other != part and f"/{other}" in str(refusal.value)]
    assert "No such file" not in str(refusal.value)


@pytest.mark.parametrize("part", ["audio_dit", "video_vae", "text_encoder"])
def test_a_part_without_its_weights_is_said_to_hold_none_once(run: Run, damaged: Path, part: str) -> None:
    for weights in (damaged / part).glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ValueError, match=says(part, "config.json. Download it again$")):
        load(run)


def test_a_folder_is_listed_only_with_its_index(pack: Any, damaged: Path) -> None:
    listed = pack.module("nodes.host.loaders.loading").folders
    assert {"tiny", "damaged"} <= set(listed())
    (damaged / "model_index.json").unlink()
    assert "damaged" not in listed()


@pytest.mark.parametrize(
    ("frames", "size", "parts"), [(13, (80, 48), ["13 frames", "for 9"]), (9, (64, 48), ["80x48", "64x48"])]
)
def test_a_latent_of_another_size_or_length_than_its_conditioning_is_refused(
    run: Run, scene: Scene, frames: int, size: tuple[int, int], parts: list[str]
) -> None:
    sizes = {"frames": frames, "width": size[0], "height": size[1]}
    other = condition(run, (scene.positive, scene.negative), scene.vae, **sizes)[2]
    with pytest.raises(ValueError, match=says(*parts, "same 'MOVA Image")):
        sampled(run, scene, latent=other)
    with pytest.raises(ValueError, match=says(*parts)):
        run("KSampler", model=scene.model, **{**scene.conditioned, "latent_image": other}, steps=1)


@pytest.mark.parametrize("steps", [10, 40])
def test_a_sound_of_another_length_than_its_conditioning_is_refused(run: Run, scene: Scene, steps: int) -> None:
    other = joint(scene, (1, 16, 3, 6, 10), (1, 8, steps))
    with pytest.raises(ValueError, match=says(f"{steps} steps", "19", "cut or fill")):
        sampled(run, scene, latent=other)


@pytest.mark.parametrize("sampler", [sampled, ksampled])
@pytest.mark.parametrize("batch", [1, 2])
def test_noise_of_one_stream_is_refused_with_the_name_of_who_made_it(
    run: Run, scene: Scene, monkeypatch: pytest.MonkeyPatch, sampler: Any, batch: int
) -> None:
    import comfy.sample

    def prepare_noise(latent_image: Any, seed: int, noise_inds: Any = None) -> torch.Tensor:
        return torch.randn(batch, 16, 3, 6, 10)

    given = condition(run, (scene.positive, scene.negative), scene.vae, batch_size=batch)
    many = scene.but(**dict(zip(("positive", "negative", "latent"), given, strict=True)))
    monkeypatch.setattr(comfy.sample, "prepare_noise", prepare_noise)
    with pytest.raises(ValueError, match=says(__name__, "one stream", "other pack")):
        sampler(run, many)


def test_a_latent_of_three_streams_is_refused(run: Run, scene: Scene) -> None:
    from comfy.nested_tensor import NestedTensor

    video, audio = streams(scene.latent)
    for sampler in (sampled, ksampled):
        latent = {**scene.latent, "samples": NestedTensor([video, audio, audio])}
        with pytest.raises(ValueError, match=says("picture and sound|audio \\(batch", "MOVA Image to Video")):
            sampler(run, scene.but(latent=latent))


@pytest.mark.parametrize("sampler", [sampled, ksampled])
@pytest.mark.parametrize("value", [255.0, -1.0])
def test_a_mask_beyond_0_to_1_is_refused(run: Run, scene: Scene, sampler: Any, value: float) -> None:
    latent = {**scene.latent, "noise_mask": torch.full((1, 48, 80), value)}
    with pytest.raises(ValueError, match=says("noise mask", f"{value:g}", "MOVA Mask")):
        sampler(run, scene.but(latent=latent))


def test_a_batch_index_of_another_batch_is_refused_before_noise_is_drawn(run: Run, scene: Scene) -> None:
    for index in ([-1], [0, 1, 2], [10**9], ["a"]):
        with pytest.raises(ValueError, match=says("batch_index", "1 clips")):
            sampled(run, scene.but(latent={**scene.latent, "batch_index": index}))


@pytest.mark.parametrize("node_id", ["MOVASampler", "MOVAPreflight", "MOVALoraLoader"])
def test_no_model_is_no_model_and_not_another_one(run: Run, scene: Scene, node_id: str) -> None:
    given = {
        "latent": scene.latent,
        "positive": scene.positive,
        "negative": scene.negative,
        "lora_name": "x.safetensors",
    }
    taken = {
        "MOVASampler": ("latent", "positive", "negative"),
        "MOVAPreflight": ("latent",),
        "MOVALoraLoader": ("lora_name",),
    }
    for model, said in ((None, "nothing"), ("x", "'x'"), (scene.vae, "a VAE|an? \\w*VAE")):
        with pytest.raises(ValueError, match=says(said, "is no MODEL")):
            run(node_id, model=model, **{name: given[name] for name in taken[node_id]})


def test_a_noise_node_of_one_stream_is_named(run: Run, scene: Scene) -> None:
    class Noise:
        seed = 1

        def generate_noise(self, latent: Any) -> torch.Tensor:
            return torch.randn(streams(latent)[0].shape)

    guider = run("CFGGuider", model=scene.model, positive=scene.positive, negative=scene.negative, cfg=1.0)[0]
    sigmas = run("BasicScheduler", model=scene.model, scheduler="simple", steps=2)[0]
    euler = run("KSamplerSelect", sampler_name="euler")[0]
    with pytest.raises(ValueError, match=says("a NOISE node", "RandomNoise")):
        run(
            "SamplerCustomAdvanced",
            noise=Noise(),
            guider=guider,
            sampler=euler,
            sigmas=sigmas,
            latent_image=scene.latent,
        )


AREAS: dict[str, dict[str, Any]] = {
    "ConditioningSetMask": {"mask": torch.ones(1, 48, 80)},
    "ConditioningSetArea": {"width": 64, "height": 48, "x": 0, "y": 0},
    "ConditioningSetAreaPercentage": {"width": 0.5, "height": 1.0, "x": 0.0, "y": 0.0},
    "ConditioningSetAreaPercentageVideo": {"width": 0.5, "height": 1.0, "temporal": 1.0, "x": 0.0, "y": 0.0, "z": 0.0},
}


@pytest.mark.parametrize("node_id", AREAS)
@pytest.mark.parametrize("sampler", [sampled, ksampled])
def test_a_prompt_for_a_part_of_the_picture_is_refused_before_the_run(
    run: Run, scene: Scene, node_id: str, sampler: Any
) -> None:
    part = run(node_id, conditioning=scene.positive, **AREAS[node_id])[0]
    both = run("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=part)[0]
    for positive in (part, both):
        with pytest.raises(ValueError, match=says("picture and sound together", "MOVA Mask")):
            sampler(run, scene, positive=positive)


def test_first_frames_of_a_batch_are_one_each_or_refused(run: Run, scene: Scene) -> None:
    pictures = torch.stack((torch.zeros(48, 80, 3), torch.ones(48, 80, 3)))
    text = scene.positive, scene.negative
    both = condition(run, text, scene.vae, batch_size=2, first_frame=pictures)[0][0][1]["concat_latent_image"]
    for n in range(2):
        alone = condition(run, text, scene.vae, first_frame=pictures[n : n + 1])[0][0][1]["concat_latent_image"]
        assert torch.equal(both[n : n + 1], alone)
    for batch in (1, 3):
        with pytest.raises(ValueError, match=says("2 pictures", f"{batch} clip", "ImageFromBatch")):
            condition(run, text, scene.vae, batch_size=batch, first_frame=pictures)


def test_a_batch_with_a_first_frame_each_begins_each_clip_with_its_own(run: Run, scene: Scene) -> None:
    pictures = torch.rand(2, 48, 80, 3, generator=torch.Generator().manual_seed(5))

    def made(first: torch.Tensor) -> torch.Tensor:
        text = scene.positive, scene.negative
        positive, negative, latent = condition(run, text, scene.vae, batch_size=2, first_frame=first)
        return streams(sampled(run, scene, positive=positive, negative=negative, latent=latent, cfg=1.0))[0]

    both, first, second = made(pictures), made(pictures[:1]), made(pictures[1:])
    assert torch.equal(both[0], first[0])
    assert torch.equal(both[1], second[1])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("positions", ["0,8", "0, 8,", "0\uff0c8", "0\u30018", "0; 8", "0\uff1b8\n"])
def test_positions_are_divided_by_any_comma(run: Run, scene: Scene, positions: str) -> None:
    pictures = torch.rand(2, 48, 80, 3, generator=torch.Generator().manual_seed(5))
    given = {"positive": scene.positive, "negative": scene.negative, "vae": scene.vae, "latent": scene.latent}
    made = run("MOVAGuideFrames", images=pictures, positions=positions, **given)[0]
    plain = run("MOVAGuideFrames", images=pictures, positions="0, 8", **given)[0]
    assert torch.equal(made[0][1]["concat_latent_image"], plain[0][1]["concat_latent_image"])


def test_drafts_and_pictures_of_another_length_are_refused(run: Run, scene: Scene) -> None:
    sound = {"waveform": torch.zeros(1, 1, 18000), "sample_rate": 48000}
    with pytest.raises(ValueError, match=says("1 drafts of 9 pictures each but 5 pictures", "decode the same latent")):
        run("MOVAPickDraft", latent=scene.latent, images=torch.rand(5, 48, 80, 3), audio=sound)
