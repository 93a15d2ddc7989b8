"""Experts in GGUF files: written by `gguf` of PyPI, read through the GGUF pack's loader, and made MOVA with sound.

The pack is not part of ComfyUI. It is looked for in ComfyUI's custom_nodes, or where GGUF_PACK_PATH says; without it
the tests that need it are skipped, and what the file holds is tested alone.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.comfy import COMFYUI, needs_comfy
from tests.fixtures.wan_sized import EXPERTS, Weights, wan_sized_weights, wide_text, write_wan_sized
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, equal, error, runner, sampled

gguf = pytest.importorskip("gguf", reason="no gguf (pip install gguf)")

pytestmark = needs_comfy

PACK = Path(os.environ.get("GGUF_PACK_PATH") or (COMFYUI or Path()) / "custom_nodes" / "ComfyUI-GGUF")
needs_pack = pytest.mark.skipif(not (PACK / "nodes.py").is_file(), reason="no GGUF pack (GGUF_PACK_PATH)")
KINDS = {"Q8_0": 0.02, "Q5_1": 0.1, "Q4_0": 0.25, "BF16": 0.0}  # type of the matrices -> how far a clip may move


def write_gguf(path: Path, weights: Weights, kind: str, *, folded: bool = False) -> str:
    """An expert as the pack's own tools write it: matrices in `kind`, the rest in float32.

    `folded` writes weights of five axes with four, and their shape beside them.
    """
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, weight in weights.items():
        values = weight.float().numpy()
        stored = gguf.GGMLQuantizationType[_stored(values.shape, kind)]
        if folded and values.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", list(values.shape))
            values = values.reshape(values.shape[0], -1)
        writer.add_tensor(key, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.name


def _stored(shape: tuple[int, ...], kind: str) -> str:
    if len(shape) != 2 or shape[0] * shape[1] <= 1024:
        return "F32"
    return kind if kind == "BF16" or shape[1] % 32 == 0 else "F16"  # a block holds 32 values


def read_gguf(path: Path) -> Weights:
    """Every tensor in float32, read by `gguf` alone; axes are listed from the last to the first in the file."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found[tensor.name] = torch.from_numpy(values.copy()).reshape([int(n) for n in reversed(tensor.shape)])
    return found


@pytest.fixture(scope="module")
def folder(comfy_base: Path) -> Path:
    return comfy_base / "models" / "diffusion_models"


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, str]:
    return write_wan_sized(folder)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def experts(folder: Path, kind: str) -> dict[str, str]:
    """Part -> its GGUF file."""
    weights = wan_sized_weights()
    return {part: write_gguf(folder / f"{part}_{kind}.gguf", weights[part], kind) for part in EXPERTS}


@pytest.fixture(scope="module")
def wanted(run: Run, scene: Scene, plain: dict[str, str]) -> dict[str, Any]:
    """The clip of the safetensors files."""
    with torch.inference_mode():
        files = {"high_noise": plain["video_dit"], "low_noise": plain["video_dit_2"], "shared": plain["shared"]}
        return sampled(run, wide_text(scene), run("MOVAModelLoader", **files, weight_dtype="default")[0])


def joined(run: Run, loaded: list[Any], shared: str) -> Any:
    high, low = (run("MOVAAttachSound", model=model, shared=shared)[0] for model in loaded)
    return run("MOVAJoinExperts", high_noise=high, low_noise=low, boundary=0.9)[0]


def test_a_gguf_expert_has_wans_names_and_shapes_and_makes_the_clip(
    run: Run, scene: Scene, plain: dict[str, str], folder: Path, experts: dict[str, str], kind: str, wanted: Any
) -> None:
    import comfy.sd

    loaded = []
    for part, weights in wan_sized_weights().items():
        if part in EXPERTS:
            found = read_gguf(folder / experts[part])
            assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in weights.items()}
            loaded.append(comfy.sd.load_diffusion_model_state_dict(found))
    assert [type(model.model).__name__ for model in loaded] == ["WAN21", "WAN21"]
    assert error(sampled(run, wide_text(scene), joined(run, loaded, plain["shared"])), wanted) < max(KINDS[kind], 0.01)


# --- through the pack ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_pack(comfy_nodes: ModuleType, pack: Pack, run: Run) -> Run:
    """Runs nodes of the GGUF pack too."""
    assert asyncio.run(comfy_nodes.load_custom_node(str(PACK)))
    return runner(comfy_nodes.NODE_CLASS_MAPPINGS)


@pytest.fixture(scope="module")
def loaded(with_pack: Run, experts: dict[str, str]) -> list[Any]:
    with torch.inference_mode():
        return [with_pack("UnetLoaderGGUF", unet_name=name)[0] for name in experts.values()]


@pytest.fixture(scope="module")
def whole(with_pack: Run, loaded: list[Any], plain: dict[str, str]) -> Any:
    with torch.inference_mode():
        return joined(with_pack, loaded, plain["shared"])


@needs_pack
def test_experts_of_the_gguf_loader_with_sound_attached_make_the_clip(
    with_pack: Run, scene: Scene, whole: Any, kind: str, wanted: Any
) -> None:
    made = sampled(with_pack, wide_text(scene), whole)
    assert (0 if kind != "BF16" else -1) < error(made, wanted) <= KINDS[kind]


@needs_pack
def test_weights_stay_in_the_files_type_and_are_not_copied(whole: Any, loaded: list[Any]) -> None:
    for mine, theirs in ((whole, loaded[0]), (whole.low, loaded[1])):
        one, other = (model.model.diffusion_model.blocks[0].ffn[0].weight for model in (mine, theirs))
        assert type(one).__name__ == "GGMLTensor"
        assert one.data_ptr() == other.data_ptr()
        assert one.dtype == torch.uint8


@needs_pack
def test_time_is_embedded_in_float32_whatever_the_file_holds(
    with_pack: Run, scene: Scene, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    layer = whole.model.diffusion_model.time_embedding[0]
    handle = layer.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    sampled(with_pack, wide_text(scene), whole)
    handle.remove()
    assert seen
    assert set(seen) == {torch.float32}


@needs_pack
def test_weights_of_five_axes_may_be_folded_with_their_shape_beside_them(
    with_pack: Run, scene: Scene, folder: Path, plain: dict[str, str], wanted: Any
) -> None:
    weights = wan_sized_weights()
    names = [write_gguf(folder / f"folded_{part}.gguf", weights[part], "Q8_0", folded=True) for part in EXPERTS]
    loaded = [with_pack("UnetLoaderGGUF", unet_name=name)[0] for name in names]
    assert error(sampled(with_pack, wide_text(scene), joined(with_pack, loaded, plain["shared"])), wanted) < 0.02


LAYERS = ("blocks.0.self_attn.q", "blocks.1.ffn.2", "audio_dit.blocks.1.cross_attn.k")


@pytest.fixture(scope="module")
def lora(comfy_base: Path, whole: Any) -> str:
    """A LoRA on packed and on plain weights of the picture, and on the sound."""
    from mova_core.model.mova import Mova

    shapes = {k: v.shape for k, v in Mova(whole.model.diffusion_model.sizes, device="meta").state_dict().items()}
    random, file = torch.Generator().manual_seed(2), {}
    for layer in LAYERS:
        rows, columns = shapes[f"{layer}.weight"]
        file[f"{layer}.lora_A.weight"] = torch.randn(4, columns, generator=random) * 0.3
        file[f"{layer}.lora_B.weight"] = torch.randn(rows, 4, generator=random) * 0.1
    folder = comfy_base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(file, folder / "gguf.safetensors")
    return "gguf.safetensors"


@needs_pack
@pytest.mark.parametrize("kind", ["Q8_0"], indirect=True)
@pytest.mark.parametrize("node", ["MOVALoraLoader", "LoraLoaderModelOnly", "LoraLoaderBypassModelOnly"])
def test_a_lora_reaches_packed_weights_and_leaves_them_as_they_were(
    with_pack: Run, scene: Scene, plain: dict[str, str], whole: Any, loaded: list[Any], lora: str, node: str
) -> None:
    scene = wide_text(scene)
    files = {"high_noise": plain["video_dit"], "low_noise": plain["video_dit_2"], "shared": plain["shared"]}
    exact = with_pack("MOVAModelLoader", **files, weight_dtype="default")[0]
    wanted = sampled(with_pack, scene, with_pack("MOVALoraLoader", model=exact, lora_name=lora)[0])
    before = sampled(with_pack, scene, whole)
    packed = [model.model.diffusion_model.blocks[0].self_attn.q.weight for model in (*loaded, whole, whole.low)]
    made = sampled(with_pack, scene, with_pack(node, model=whole, lora_name=lora)[0])
    assert error(made, wanted) < 0.3 * error(before, wanted)
    assert equal(sampled(with_pack, scene, whole), before)
    assert all(weight.patches == [] for weight in packed)


@needs_pack
@pytest.mark.parametrize("kind", ["Q8_0"], indirect=True)
def test_a_lora_reaches_packed_weights_that_stay_on_the_host(with_pack: Run, whole: Any, lora: str) -> None:
    model = with_pack("MOVALoraLoader", model=whole, lora_name=lora)[0]
    weight = model.model.diffusion_model.blocks[0].self_attn.q.weight
    model.load(torch.device("cpu"), lowvram_model_memory=1)
    assert [key for _, key in weight.patches] == ["diffusion_model.blocks.0.self_attn.q.weight"]
    model.unpatch_model(torch.device("cpu"))
    assert weight.patches == []
