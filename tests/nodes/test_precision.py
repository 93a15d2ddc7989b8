"""Quantised weights in ComfyUI's own formats: what ComfyUI reads back, how far results move, what stays float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.quantization import FORMATS, QUANT_MARK, dequantized, quantized
from tests.comfy import needs_comfy
from tests.nodes.graph import Run, Scene, check_finite, equal, error, sampled

pytestmark = needs_comfy

SAME = "in the high-noise file"
LIMITS = {
    "fp8": 0.06,
    "int8": 0.02,
    "int8_convrot": 0.02,
    "mxfp8": 0.06,
    "nvfp4": 0.2,
}


@pytest.fixture(scope="session")
def files(comfy_base: Path, diffusers: Path) -> dict[str, str]:
    """Precision -> name of a merged file in it."""
    found = {}
    for precision in ("bf16", *FORMATS):
        (file,) = convert(diffusers / "tiny", comfy_base / "models", precision=precision, parts=["merged"])
        found[precision] = file.path.name
    return found


def load(run: Run, name: str, weight_dtype: str = "default") -> Any:
    return run("MOVAModelLoader", high_noise=name, low_noise=SAME, shared=SAME, weight_dtype=weight_dtype)[0]


@pytest.fixture(scope="session")
def exact(run: Run, scene: Scene, files: dict[str, str]) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene, load(run, files["bf16"]))


@pytest.mark.parametrize("name", FORMATS)
def test_comfyui_reads_back_the_values_that_were_written(comfy_nodes, name):
    import comfy.ops

    w = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    kind = FORMATS[name]
    layer = comfy.ops.mixed_precision_ops(compute_dtype=torch.float32).Linear(64, 96, bias=False, device="cpu")
    layer.load_state_dict({k.removeprefix("ffn.0."): v for k, v in quantised_layer(w, kind).items()})
    assert type(layer.weight).__name__ == "QuantizedTensor"
    plain = dequantized(quantized({KEY: w}, kind), torch.float32)[KEY]
    error = (layer.weight.dequantize() - plain).abs().max()
    assert error <= (1e-5 if name == "int8_convrot" else 0)  # a rotation adds up in another order


KEY = "blocks.0.ffn.0.weight"


def quantised_layer(weight: torch.Tensor, kind: Any) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix("blocks.0."): value
        for key, value in quantized({"blocks.0.ffn.0.weight": weight}, kind).items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_results_move_no_further_than_the_format_explains(run, scene, files, exact, name):
    moved = sampled(run, scene, load(run, files[name]))
    check_finite(moved, scene.latent)
    assert 0 < error(moved, exact) < LIMITS[name]


@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_kept_in_the_format_and_sensitive_layers_are_not(run, files, name):
    model = load(run, files[name]).model.diffusion_model
    kinds = {module: type(module.weight).__name__ for module in model.modules() if hasattr(module, "in_features")}
    assert kinds[model.blocks[0].self_attn.q] == kinds[model.audio_dit.blocks[0].cross_attn.o] == "QuantizedTensor"
    assert kinds[model.dual_tower_bridge.audio_to_video_conditioners[0].inner.k] == "QuantizedTensor"
    for layer in (model.time_embedding[0], model.time_projection[1], model.text_embedding[2], model.head.head):
        assert kinds[layer] != "QuantizedTensor"


@pytest.mark.parametrize("name", ["bf16", *FORMATS])
def test_the_time_embedding_is_computed_in_float32_whatever_the_weights_are(run, scene, files, name):
    model = load(run, files[name])
    seen = set()
    handles = [
        module.register_forward_hook(lambda module, args, out: seen.add((args[0].dtype, out.dtype)))
        for tower in (model.model.diffusion_model, model.model.diffusion_model.audio_dit)
        for module in (tower.time_embedding[0], tower.time_embedding[2], tower.time_projection[1])
    ]
    sampled(run, scene, model)
    for handle in handles:
        handle.remove()
    assert seen == {(torch.float32, torch.float32)}


@pytest.mark.parametrize(("choice", "name"), [("fp8_e4m3fn", "fp8"), ("int8", "int8")])
def test_converting_on_load_gives_what_the_converted_file_gives(run, scene, files, choice, name):
    assert equal(sampled(run, scene, load(run, files["bf16"], choice)), sampled(run, scene, load(run, files[name])))
    folder, *_ = run("MOVALoader", folder="tiny", weight_dtype=choice)
    assert equal(sampled(run, scene, folder), sampled(run, scene, load(run, files[name])))


def test_another_weight_dtype_leaves_quantised_layers_as_they_are(run, scene, files):
    one, other = load(run, files["int8"]), load(run, files["int8"], "fp32")
    assert type(other.model.diffusion_model.blocks[0].self_attn.q.weight).__name__ == "QuantizedTensor"
    assert equal(sampled(run, scene, one), sampled(run, scene, other))


def test_older_ways_to_write_scaled_float8_load_too(run, scene, files, comfy_base):
    folder = comfy_base / "models" / "diffusion_models"
    tensors = load_file(folder / files["fp8"])
    plain = {key: value for key, value in tensors.items() if not key.endswith(f".{QUANT_MARK}")}
    old = {key.replace(".weight_scale", ".scale_weight"): value for key, value in plain.items()}
    save_file(old | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, folder / "scaled.safetensors")
    layers = {
        key.removesuffix(f".{QUANT_MARK}"): json.loads(value.numpy().tobytes())
        for key, value in tensors.items()
        if key.endswith(QUANT_MARK)
    }
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(plain, folder / "listed.safetensors", metadata=metadata)
    save_file(plain, folder / "unmarked.safetensors")
    wanted = sampled(run, scene, load(run, files["fp8"]))
    for name in ("scaled", "listed", "unmarked"):
        assert equal(sampled(run, scene, load(run, f"{name}.safetensors")), wanted), name


def test_unscaled_float8_loads_and_computes_in_higher_precision(run, scene, files, comfy_base, exact):
    folder = comfy_base / "models" / "diffusion_models"
    tensors = load_file(folder / files["bf16"])
    save_file({k: v.to(torch.float8_e4m3fn) for k, v in tensors.items()}, folder / "raw.safetensors")
    assert 0 < error(sampled(run, scene, load(run, "raw.safetensors")), exact) < 0.2


def test_a_lora_reaches_quantised_weights(run, scene, files, comfy_base):
    path = comfy_base / "models" / "loras" / "small.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(2)
    key = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{key}.lora_A.weight": (4, 256), f"{key}.lora_B.weight": (256, 4)}
    save_file({k: 0.3 * torch.randn(shape, generator=generator) for k, shape in lora.items()}, path)
    differences = []
    for name in ("bf16", "fp8", "int8"):
        model = load(run, files[name])
        before = sampled(run, scene, model)
        (patched,) = run("LoraLoaderModelOnly", model=model, lora_name="small.safetensors", strength_model=1.0)
        differences.append(error(sampled(run, scene, patched), before))
        assert equal(sampled(run, scene, model), before)  # and leaves again
    assert differences[0] > 0.01
    assert all(abs(d - differences[0]) < 0.5 * differences[0] for d in differences[1:])
