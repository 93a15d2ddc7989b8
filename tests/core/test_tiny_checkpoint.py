"""The tiny checkpoint has the published layout, its weights behave, and it comes out the same every time."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from mova_core.audio_vae.codec import AudioVAE
from mova_core.config import MOVA, MOVA_AUDIO_VAE, MovaConfig
from mova_core.model.mova import Mova
from tests.golden import GOLDEN, key_table, needs_golden
from tools.key_shapes import (
    Shapes,
    UMT5Sizes,
    WanVAESizes,
    bridge_shapes,
    dac_shapes,
    tower_shapes,
    umt5_shapes,
    wan_vae_shapes,
)
from tools.published_configs import model_index, scheduler_config
from tools.tiny_checkpoint import TINY, TinySizes, components, tiny_sizes, write_tiny_checkpoint
from tools.tiny_tokenizer import CORPUS

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = {
    "video_dit (== video_dit_2)": tower_shapes(MOVA.video),
    "audio_dit": tower_shapes(MOVA.audio),
    "dual_tower_bridge": bridge_shapes(MOVA.bridge),
    "audio_vae": dac_shapes(MOVA_AUDIO_VAE),
    "video_vae (diffusers layout)": wan_vae_shapes(WanVAESizes(base_channels=96, latent_channels=16)),
}
UMT5_XXL = UMT5Sizes(vocabulary=256384, width=4096, layers=24, heads=64, head_width=64, ffn_width=10240)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "MOVA-tiny")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(folder: Path) -> Shapes:
    """Shapes of all keys in the safetensors files of a folder."""
    shapes: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return shapes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def golden_sizes() -> TinySizes:
    """The sizes of golden/tiny_hf: two layers a tower, the published frequency width, another VAE and vocabulary."""
    sizes = tiny_sizes(video_layers=2, audio_layers=2)
    towers = [replace(tower, frequency_width=256) for tower in (sizes.mova.video, sizes.mova.audio)]
    return replace(
        sizes,
        mova=MovaConfig(video=towers[0], audio=towers[1], bridge=sizes.mova.bridge),
        video_vae=replace(sizes.video_vae, base_channels=3),
        text=replace(sizes.text, vocabulary=65),
    )


# --- the layout ----------------------------------------------------------------------------------------------------


@needs_golden
@pytest.mark.parametrize("component", PUBLISHED)
def test_at_full_size_the_keys_and_shapes_are_the_published_ones(component):
    assert PUBLISHED[component] == key_table(component)


def test_at_full_size_the_text_encoder_has_the_published_number_of_weights():
    shapes = umt5_shapes(UMT5_XXL)
    assert (len(shapes), sum(torch.Size(shape).numel() for shape in shapes.values())) == (242, 5_680_910_336)


@needs_golden
@pytest.mark.parametrize("name", components(TINY))
def test_at_its_sizes_keys_shapes_and_configs_are_those_the_official_code_saved(name):
    component = components(golden_sizes())[name]
    assert component.shapes == stored(GOLDEN / "tiny_hf" / name)
    assert_same_config(component.config, GOLDEN / "tiny_hf" / name / "config.json")


@needs_golden
def test_model_index_and_scheduler_are_those_the_official_code_saved():
    assert_same_config(model_index(TINY.scheduler), GOLDEN / "tiny_hf" / "model_index.json")
    assert_same_config(scheduler_config(TINY.scheduler), GOLDEN / "tiny_hf" / "scheduler" / "scheduler_config.json")


def assert_same_config(ours: dict, path: Path) -> None:
    """Equal as JSON, but for the version that wrote it."""
    theirs = json.loads(path.read_text())
    assert json.loads(json.dumps(ours)) | {"_diffusers_version": ""} == theirs | {"_diffusers_version": ""}


@needs_golden
def test_the_folder_holds_the_files_the_official_code_saved(checkpoint):
    assert files(checkpoint).keys() == files(GOLDEN / "tiny_hf").keys()


def test_every_component_is_whole_finite_and_bfloat16(checkpoint):
    for name, component in components(TINY).items():
        found = weights(checkpoint / name)
        assert {key: tuple(value.shape) for key, value in found.items()} == component.shapes
        assert {value.dtype for value in found.values()} == {torch.bfloat16}
        assert all(value.isfinite().all() for value in found.values())


def test_the_index_says_where_every_key_of_an_expert_is(checkpoint):
    folder = checkpoint / "video_dit_2"
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    shards = {path.name: stored_in(path) for path in folder.glob("*.safetensors")}
    assert index["weight_map"] == {key: name for name, keys in shards.items() for key in keys}
    assert len(shards) == 3
    assert all(shards.values())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights(folder).values())


def stored_in(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


# --- the same every time, and small --------------------------------------------------------------------------------


def test_writing_twice_gives_the_same_bytes(checkpoint, tmp_path):
    assert files(write_tiny_checkpoint(tmp_path)) == files(checkpoint)


def test_another_seed_changes_every_weight_and_nothing_else(checkpoint, tmp_path):
    ours, other = files(checkpoint), files(write_tiny_checkpoint(tmp_path, seed=1))
    assert {name for name in ours if ours[name] != other[name]} == {
        name for name in ours if name.endswith(".safetensors")
    }


def test_the_two_experts_differ(checkpoint):
    high, low = weights(checkpoint / "video_dit"), weights(checkpoint / "video_dit_2")
    assert not any(torch.equal(high[key], low[key]) for key in high)


def test_the_whole_folder_is_under_twelve_megabytes(checkpoint):
    assert sum(len(content) for content in files(checkpoint).values()) < 12e6


def test_audio_latents_may_have_another_width():
    shapes = components(tiny_sizes(audio_latent_channels=128))
    assert shapes["audio_dit"].shapes["patch_embedding.weight"] == (128, 128, 1)
    assert shapes["audio_vae"].shapes["quant_conv.weight"] == (256, 128, 1)


def test_components_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="text width: 32 and 48"):
        replace(TINY, mova=wider_text(TINY.mova))
    with pytest.raises(ValueError, match="text encoder 100"):
        write_tiny_checkpoint(tmp_path, sizes=replace(TINY, text=replace(TINY.text, vocabulary=100)))


def wider_text(mova: MovaConfig) -> MovaConfig:
    return replace(mova, video=replace(mova.video, text_width=48), audio=replace(mova.audio, text_width=48))


def test_the_script_needs_neither_diffusers_nor_transformers(checkpoint, tmp_path):
    script = REPOSITORY / "tools" / "tiny_checkpoint.py"
    code = (
        "import runpy, sys; sys.modules |= {'diffusers': None, 'transformers': None}; "
        f"sys.argv = ['tiny_checkpoint.py', {str(tmp_path)!r}]; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "MB" in done.stdout
    assert files(tmp_path) == files(checkpoint)


# --- the tokenizer -------------------------------------------------------------------------------------------------


def prompts(count: int) -> list[str]:
    """Words run together and apart, then any characters at all."""
    draw = random.Random(0)
    words, anything = " ".join(CORPUS).split(), [*map(chr, range(1, 127)), *"éß猫雨🎹", *" " * 40]
    sentences = [
        "".join(draw.choice(words) + draw.choice(["", " ", "  ", ", "]) for _ in range(8)) for _ in range(count)
    ]
    return sentences + ["".join(draw.choices(anything, k=draw.randrange(40))) for _ in range(count)]


def test_both_tokenizer_files_give_the_same_identifiers_and_none_is_unknown(checkpoint):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer" / "spiece.model"))
    fast = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    for prompt in prompts(500):
        identifiers = fast.encode(prompt).ids
        assert identifiers == [*pieces.encode(prompt), 1], repr(prompt)
        assert 2 not in identifiers


def test_tokens_decode_to_the_prompt(checkpoint):
    fast = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    prompt = "A cat (grey), 2 dogs & rain: 猫, café."
    assert fast.decode(fast.encode(prompt).ids) == prompt


def test_special_tokens_have_the_published_identifiers(checkpoint):
    fast = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    assert [fast.token_to_id(token) for token in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]


# --- the weights behave --------------------------------------------------------------------------------------------


def float32(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: value.float() for key, value in weights(folder).items()}


def test_velocities_are_of_the_order_of_their_inputs(checkpoint):
    model = Mova(TINY.mova)
    state = {
        **float32(checkpoint / "video_dit"),
        **float32(checkpoint / "audio_dit", "audio_dit."),
        **float32(checkpoint / "dual_tower_bridge", "dual_tower_bridge."),
    }
    model.load_state_dict(state)
    noise = torch.Generator().manual_seed(0)
    video, audio = torch.randn(1, 16, 3, 8, 12, generator=noise), torch.randn(1, 8, 19, generator=noise)
    condition, context = torch.randn(1, 20, 3, 8, 12, generator=noise), torch.randn(1, 512, 32, generator=noise)
    time = torch.tensor([900.0])
    for velocity in model(video, audio, context, time, time, condition=condition, fps=24.0):
        assert 0.2 < velocity.std() < 3


def test_audio_latents_decode_to_sound_that_is_neither_silent_nor_clipped(checkpoint):
    vae = AudioVAE(TINY.audio_vae)
    vae.load_state_dict(float32(checkpoint / "audio_vae"))
    latents = torch.randn(1, 8, 50, generator=torch.Generator().manual_seed(0))
    waveform = vae.decode(latents)
    assert 0.05 < waveform.std() < 0.5
    assert waveform.abs().max() < 0.99
    assert 0.05 < vae.encode(waveform).std() < 5


def test_diffusers_decodes_latents_to_a_picture_with_contrast(checkpoint):
    diffusers = pytest.importorskip("diffusers")
    vae, report = diffusers.AutoencoderKLWan.from_pretrained(
        checkpoint / "video_vae", output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(report.values()), report
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    picture = vae.decode(latents).sample
    assert picture.shape == (1, 3, 9, 32, 48)
    assert 0.1 < picture.std() < 0.6
    assert (picture.abs() == 1).float().mean() < 0.05  # clipped
    assert 0.1 < vae.encode(picture).latent_dist.mode().std() < 5


def test_transformers_encodes_a_prompt(checkpoint):
    transformers = pytest.importorskip("transformers")
    encoder, report = transformers.UMT5EncoderModel.from_pretrained(
        checkpoint / "text_encoder", output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    fast = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    for load in (transformers.AutoTokenizer, transformers.T5TokenizerFast):
        tokenizer = load.from_pretrained(checkpoint / "tokenizer")
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (0, 1, 512)
        batch = tokenizer(["a cat plays", "A dog barks, 2 times!"], padding=True, return_tensors="pt")
        assert batch.input_ids[1].tolist() == fast.encode("A dog barks, 2 times!").ids
        rows = encoder(**batch).last_hidden_state
        assert rows.isfinite().all()
        assert 0.2 < rows.std() < 3
