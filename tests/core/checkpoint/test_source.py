"""Single files are known by their headers: what fits a slot, what is refused, and what is called unverified."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mova_core.checkpoint import weight_file
from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.convert.plan import restored
from mova_core.checkpoint.files import Header, component_tensors, read_header, read_tensors
from mova_core.checkpoint.fingerprint import expert_fingerprint
from mova_core.checkpoint.load import load_audio_vae, load_joint
from mova_core.checkpoint.source import Source, audio_vae, from_files, from_folder, joint_names
from mova_core.checkpoint.variants import AUDIO, BRIDGE
from mova_core.checkpoint.weight_file import PartFile, open_file
from mova_core.errors import CheckpointError, MovaError
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint

BRIDGE_KEY = "dual_tower_bridge.audio_to_video_conditioners.0.inner.q.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("published") / "MOVA-tiny")


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory) -> dict[str, Path]:
    parts = ["video_dit", "video_dit_2", "shared", "merged", "video_vae", "audio_vae", "text_encoder"]
    return {f.metadata["mova"]: f.path for f in convert(tiny, tmp_path_factory.mktemp("models"), parts=parts)}


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory) -> dict[str, Path]:
    """The same weights as anyone would save them: no word in the header."""
    folder = tmp_path_factory.mktemp("plain")
    towers = {part: component_tensors(tiny / part) for part in ("video_dit", "video_dit_2")}
    shared = {
        f"{part}.{key}": value
        for part in ("audio_dit", "dual_tower_bridge")
        for key, value in component_tensors(tiny / part).items()
    }
    low = {f"video_dit_2.{key}": value for key, value in towers["video_dit_2"].items()}
    all_of_it = towers["video_dit"] | low | shared
    contents = {
        **towers,
        "shared": shared,
        "merged": all_of_it,
        "saved": {f"model.diffusion_model.{key}": value for key, value in all_of_it.items()},
        "lora": {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(4, 8)},
        "ltx": {"transformer_blocks.0.audio_attn1.to_q.weight": torch.zeros(4, 8)},
        "vace": towers["video_dit"] | {"vace_blocks.0.self_attn.q.weight": torch.zeros(4, 8)},
        "audio_dit": component_tensors(tiny / "audio_dit"),
        "bridge": component_tensors(tiny / "dual_tower_bridge"),
        "numbers": {"x": torch.zeros(3)},
    }
    for name, tensors in contents.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in contents}


def expert(source: Source, name="video_dit"):
    return joint_names(source.tensors(name, AUDIO, BRIDGE))


@pytest.mark.parametrize(
    "written",
    [
        "_orig_mod.{}",
        "module.{}",
        "net.{}",
        "model.{}",
        "_fsdp_wrapped_module._orig_mod.{}",
        "model.module.{}",
        "inside",
    ],
)
def test_what_trainers_put_into_names_is_passed_over(tiny, plain, tmp_path, written):
    def name(key: str) -> str:
        return key.replace("blocks.0.", "blocks.0._orig_mod.") if written == "inside" else written.format(key)

    merged = read_tensors(plain["merged"])
    save_file({name(key): value for key, value in merged.items()}, tmp_path / "x.safetensors")
    found, wanted = (expert(from_files(path)) for path in (tmp_path / "x.safetensors", plain["merged"]))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_files_converted_or_plain_are_the_published_model(tiny, files, plain):
    for ways in (
        (files["video_dit"], files["video_dit_2"], files["shared"]),
        (files["merged"],),
        (plain["video_dit"], plain["video_dit_2"], plain["shared"]),
        (plain["merged"],),
        (plain["saved"],),
        (plain["video_dit"], plain["merged"], plain["merged"]),
    ):
        source = from_files(*ways)
        assert source.model == from_folder(tiny).model
        assert source.scheduler == from_folder(tiny).scheduler
        assert source.variant.name == "MOVA"
        for name, which in (("video_dit", "high"), ("video_dit_2", "low")):
            wanted = load_joint(tiny, which, torch.bfloat16).state_dict()
            found = expert(source, name)
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_names_of_files_mean_nothing(files, tmp_path):
    misleading = tmp_path / "wan2.2_ltx_lora_low_noise_vae.safetensors"
    misleading.write_bytes(files["video_dit"].read_bytes())
    assert from_files(misleading, files["video_dit_2"], files["shared"]).notes == ()


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["high", "low", "shared"])
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("lora", "a LoRA"),
        ("ltx", "an LTX audio-video model"),
        ("vace", "a Wan VACE model"),
        ("audio_dit", "the MOVA audio tower"),
        ("bridge", "the MOVA bridge"),
        ("video_vae", "a Wan video VAE"),
        ("audio_vae", "a DAC audio VAE"),
        ("text_encoder", "a T5 text encoder"),
        ("numbers", "nothing this package knows"),
    ],
)
def test_another_model_in_a_slot_is_called_by_its_name(files, plain, slot, file, says):
    right = {"high": files["video_dit"], "low": files["video_dit_2"], "shared": files["shared"]}
    wrong = {**files, **plain}[file] if file not in ("video_vae", "audio_vae", "text_encoder") else files[file]
    with pytest.raises(CheckpointError, match=says) as error:
        from_files(*(right | {slot: wrong}).values())
    assert str(wrong) in str(error.value)


def test_an_expert_in_the_shared_slot_and_the_shared_file_as_expert_are_refused(files):
    with pytest.raises(CheckpointError, match="audio tower and bridge"):
        from_files(files["video_dit"], files["video_dit_2"], files["video_dit_2"])
    with pytest.raises(CheckpointError, match="the high-noise expert"):
        from_files(files["shared"], files["video_dit_2"], files["shared"])


def test_one_expert_alone_is_not_a_model(files, plain):
    for path in (files["video_dit"], plain["video_dit"]):
        with pytest.raises(CheckpointError, match="no low-noise expert"):
            from_files(path, None, files["shared"])


def test_swapped_experts_are_refused_by_their_headers_and_by_their_weights(files, plain):
    with pytest.raises(CheckpointError, match=r"low-noise expert.*[Ss]wap"):
        from_files(files["video_dit_2"], files["video_dit"], files["shared"])
    with pytest.raises(CheckpointError, match=r"low-noise expert.*swap"):
        from_files(plain["video_dit_2"], plain["video_dit"], files["shared"])  # the shared file knows its experts


def test_parts_of_two_checkpoints_are_not_mixed(tiny, files, tmp_path):
    other = {f.metadata["mova"]: f.path for f in convert(tiny, tmp_path, name="MOVA-720p", parts=["shared"])}
    with pytest.raises(CheckpointError, match=r"different models.*MOVA-720p"):
        from_files(files["video_dit"], files["video_dit_2"], other["shared"])


@pytest.mark.parametrize("title", ["Wan2.2-I2V-A14B", "wan_2_2 i2v high noise", "WAN 2.2"])
def test_a_file_that_calls_itself_wan_is_refused(tiny, files, tmp_path, title):
    path = tmp_path / "expert.safetensors"
    save_file(component_tensors(tiny / "video_dit"), path, metadata={"modelspec.title": title})
    with pytest.raises(CheckpointError, match="never trained beside sound"):
        from_files(path, files["video_dit_2"], files["shared"])


def test_experts_of_other_sizes_are_refused(files, tmp_path):
    from tests.fixtures.tiny_checkpoint import tiny_sizes

    larger = write_tiny_checkpoint(tmp_path / "larger", sizes=tiny_sizes(video_layers=4))
    path = tmp_path / "larger.safetensors"
    save_file(component_tensors(larger / "video_dit_2"), path)
    with pytest.raises(MovaError, match="different sizes"):
        from_files(files["video_dit"], path, files["shared"])


def test_a_header_that_lies_about_sizes_is_refused(files, tmp_path):
    header, tensors = read_header(files["video_dit"]), read_tensors(files["video_dit"])
    config = json.loads(header.metadata["mova_config"])
    config["video_dit"]["num_layers"] = 40
    path = tmp_path / "lies.safetensors"
    save_file(tensors, path, metadata=header.metadata | {"mova_config": json.dumps(config)})
    with pytest.raises(CheckpointError, match="layers 40"):
        from_files(path, files["video_dit_2"], files["shared"])
    save_file(tensors, path, metadata=header.metadata | {"mova_config": "{"})
    with pytest.raises(CheckpointError, match="not JSON"):
        from_files(path, files["video_dit_2"], files["shared"])


WORDS = (
    *(
        "[",
        "5",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"video_dit": 5, "audio_vae": 5}',
        '{"model_index": []}',
    ),
    *(
        '{"video_dit": {"num_layers": [1e400]}, "audio_vae": {"latent_dim": {}}}',
        '{"scheduler": {}, "model_index": {}}',
    ),
)


@pytest.mark.parametrize("key", ["mova_config", "mova_experts", "mova_names", "mova_copies"])
@pytest.mark.parametrize("part", ["merged", "audio_vae"])
def test_what_a_header_says_is_understood_or_refused_and_never_trips(files, tmp_path, key, part):
    header, tensors = read_header(files[part]), read_tensors(files[part])
    path, refused = tmp_path / "models" / "said.safetensors", 0
    path.parent.mkdir()
    for words in WORDS:
        save_file(tensors, path, metadata=header.metadata | {key: words})
        read = [
            audio_vae if part == "audio_vae" else from_files,
            lambda path: list(restored(path.parent, tmp_path)),
        ]
        for call in read:
            try:
                call(path)
            except MovaError as error:
                refused += 1
                assert str(path) in str(error)  # noqa: PT017, both outcomes are right
    assert (refused >= 6) == ((part, key) != ("audio_vae", "mova_experts"))  # which nobody reads there


def test_headers_of_any_shapes_are_source_or_refused_and_never_trip(files, tmp_path, monkeypatch):
    whole, draw, outcomes = read_header(files["merged"]), random.Random(0), Counter()
    odd = [(), (0,), (1,), (5, 7), (2**40,), (2**62, 1), (1, 1, 1, 1, 1)]
    modulation = {"head.modulation": torch.zeros(1, 2, 256)}
    monkeypatch.setattr(PartFile, "tensors", lambda *_, **__: modulation)
    monkeypatch.setattr(weight_file, "check_written", lambda path: None)  # there is no file
    for _ in range(300):
        shapes = dict(whole.shapes)
        for key in draw.sample(sorted(shapes), draw.choice((1, 1, 2, 20))):
            shape = shapes.pop(key)
            if draw.random() < 0.7:
                name = draw.choice(
                    [key] * 4 + [f"{key}_scale_2", f"fusion_blocks.{key}", key.replace("blocks.0", "blocks.x")]
                )
                shapes[name] = draw.choice([*odd, shape[::-1], (*shape, 1)])
        monkeypatch.setattr(weight_file, "read_header", lambda path: Header(shapes=shapes, dtypes={}, metadata={}))  # noqa: B023
        try:
            outcomes[type(from_files(tmp_path / "any.safetensors")).__name__] += 1
        except MovaError as error:
            outcomes["refused"] += 1
            assert len(str(error)) < 1500  # noqa: PT017, both outcomes are right
    assert min(outcomes.values()) > 20
    assert outcomes.keys() == {"Source", "refused"}


# --- unverified ----------------------------------------------------------------------------------------------------


def test_experts_that_nothing_vouches_for_are_called_unverified(files, plain, tiny, tmp_path):
    source = from_files(plain["video_dit"], plain["video_dit_2"], plain["shared"])
    assert len(source.notes) == 2
    assert all("Wan 2.2" in note for note in source.notes)
    vouched = from_files(plain["video_dit"], plain["video_dit_2"], files["shared"])
    assert vouched.notes == ()  # the shared file knows the experts it was converted with
    other = tmp_path / "other.safetensors"
    tensors = component_tensors(tiny / "video_dit")
    save_file(tensors | {"head.modulation": tensors["head.modulation"] * 1.5}, other)
    (note,) = from_files(other, files["video_dit_2"], files["shared"]).notes
    assert "other.safetensors is not the expert" in note


def test_a_fingerprint_does_not_depend_on_the_precision():
    weight = torch.randn(1, 2, 64).bfloat16()
    assert len({expert_fingerprint(weight.to(dtype)) for dtype in (torch.bfloat16, torch.float16, torch.float32)}) == 1
    assert expert_fingerprint(weight * 1.5) != expert_fingerprint(weight)


# --- the audio VAE -------------------------------------------------------------------------------------------------


def test_the_audio_vae_loads_from_one_file_and_others_are_refused(files, plain, tiny):
    config, tensors = audio_vae(files["audio_vae"])
    again = audio_vae(tiny / "audio_vae" / "diffusion_pytorch_model.safetensors")
    assert config == again[0]
    assert all(torch.equal(tensors[key], value) for key, value in again[1].items())
    for path, says in ((files["video_vae"], "a Wan video VAE"), (plain["lora"], "a LoRA")):
        with pytest.raises(CheckpointError, match=says):
            audio_vae(path)


def test_the_decode_half_of_a_codec_decodes_and_says_that_it_cannot_encode(tiny, tmp_path):
    whole = load_audio_vae(tiny)
    weights = component_tensors(tiny / "audio_vae")
    half = {key: value for key, value in weights.items() if key.startswith(("decoder.", "post_quant_conv."))}
    save_file(half, tmp_path / "half.safetensors")
    codec = load_audio_vae(tmp_path / "half.safetensors")
    assert (codec.hop_length, codec.latent_channels) == (whole.hop_length, whole.latent_channels)
    latents = torch.randn(1, codec.latent_channels, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.decode(latents), whole.decode(latents))
    with pytest.raises(MovaError, match=r"decode half alone.*load the whole codec"):
        codec.encode(torch.zeros(1, 1, 4800))


def test_contents_are_told_in_a_few_words(files, plain):
    assert open_file(files["video_dit_2"]).contents() == "the low-noise expert of MOVA"
    assert "both" not in open_file(plain["shared"]).contents()
    assert open_file(plain["shared"]).contents() == "MOVA: the audio tower, the bridge"
    assert "image-to-video expert, of MOVA or Wan 2.2" in open_file(plain["video_dit"]).contents()
