"""Experts that others have quantised, through the loader and a sampler: right, or refused by name before sampling."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mova_core.checkpoint.convert import convert
from mova_core.checkpoint.quantization import BLOCK_LINEAR, marked
from tests.comfy import needs_comfy
from tests.fixtures.layouts import E4M3, E5M2, KEY, LAYER, LAYOUTS
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene, equal, error, sampled

pytestmark = needs_comfy

SAME = "in the high-noise file"
LIMITS = {E4M3: 0.06, E5M2: 0.12, torch.int8: 0.03}


@pytest.fixture(scope="module")
def plain(comfy_base: Path, diffusers: Path) -> Iterator[Path]:
    """A merged file in bf16. It, and what the tests put beside it, goes at the end: other tests list these folders."""
    models = comfy_base / "models"
    before = set(models.rglob("*"))
    yield convert(diffusers / "tiny", models, parts=["merged"], name="layouts")[0].path
    for path in set(models.rglob("*")) - before:
        if path.is_file():
            path.unlink()


def load(run: Run, name: str, weight_dtype: str = "default") -> Any:
    return run("MOVAModelLoader", high_noise=name, low_noise=SAME, shared=SAME, weight_dtype=weight_dtype)[0]


@pytest.fixture(scope="module")
def exact(run: Run, scene: Scene, plain: Path) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene, load(run, plain.name))


def stored(plain: Path, name: str, change: Callable[[Tensor], dict[str, Tensor]], **extra: Tensor) -> str:
    """A file whose large matrices are stored as `change` says, under the names it gives for KEY."""
    out: dict[str, Tensor] = dict(extra)
    for key, tensor in load_file(plain).items():
        if not BLOCK_LINEAR.search(key) or tensor.shape[0] % 16 or tensor.shape[1] % 16:
            out[key] = tensor
            continue
        layer = key.removesuffix(".weight")
        for part, value in change(tensor.float()).items():
            if part == "scaled_fp8":
                out[part] = value
            else:
                out[part.replace(KEY, key, 1) if part.startswith(KEY) else part.replace(LAYER, layer, 1)] = value
    save_file({key: value.contiguous() for key, value in out.items()}, plain.with_name(name))
    return name


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("by tensor, one value", E4M3),
        ("by tensor, 1 x 1", E5M2),
        ("by tensor, with a marker", E5M2),
        ("by tensor, with a scale of the input", E4M3),
        ("by row, 1-D", E4M3),
        ("by row, with a marker", E4M3),
        ("by row, as Prism calls it", E5M2),
        ("by block of a row, with a marker", E4M3),
        ("by square block", E4M3),
    ],
)
def test_scaled_float8_of_other_makers_is_computed_right(
    run: Run, scene: Scene, plain: Path, exact: dict[str, Any], layout: str, dtype: torch.dtype
) -> None:
    name = stored(plain, re.sub(r"\W+", "_", f"{layout}_{dtype}") + ".safetensors", lambda w: LAYOUTS[layout](w, dtype))
    assert 0.001 < error(sampled(run, scene, load(run, name)), exact) < LIMITS[dtype]


def test_blocks_are_packed_again_on_request_and_the_loader_says_what_it_does(
    run: Run, scene: Scene, plain: Path, exact: dict[str, Any], pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node: shown.append(text))
    name = stored(plain, "blocks_again.safetensors", lambda w: LAYOUTS["by square block"](w, E4M3))
    model = load(run, name, "int8")
    assert "scales by block" in shown[0]
    assert type(model.model.diffusion_model.blocks[0].self_attn.q.weight).__name__ == "QuantizedTensor"
    assert error(sampled(run, scene, model), exact) < 0.06


def convrot(w: Tensor) -> dict[str, Tensor]:
    from comfy_kitchen.tensor import TensorWiseINT8Layout

    values, params = TensorWiseINT8Layout.quantize(w, per_channel=True, convrot=True, convrot_groupsize=16)
    mark = marked({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16})
    return {KEY: values, f"{LAYER}.weight_scale": params.scale, f"{LAYER}.comfy_quant": mark}


def w4a8(w: Tensor) -> dict[str, Tensor]:
    import comfy_kitchen

    values, rel, channel, _, codebook = comfy_kitchen.quantize_w4a8_int8_weight(w, group_size=8, convrot_groupsize=4)
    mark = marked({"format": "asym_w4a8_int8", "group_size": 8, "convrot_groupsize": 4})
    out = {KEY: values, f"{LAYER}.weight_s_rel": rel, f"{LAYER}.weight_s_channel": channel}
    return out | {f"{LAYER}.weight_codebook": codebook, f"{LAYER}.comfy_quant": mark}


def test_int8_convrot_is_computed_right_and_attention_wishes_are_dropped(
    run: Run, scene: Scene, plain: Path, exact: dict[str, Any]
) -> None:
    wish = {"blocks.0.self_attn.comfy_attention.config": marked({"attention": "comfy_kitchen_int8"})}
    name = stored(plain, "convrot.safetensors", convrot, **wish)
    assert 0 < error(sampled(run, scene, load(run, name)), exact) < LIMITS[torch.int8]


def test_weights_of_four_bits_and_activations_of_eight_are_read(
    run: Run, scene: Scene, plain: Path, exact: dict[str, Any]
) -> None:
    name = stored(plain, "w4a8.safetensors", w4a8)
    assert 0.01 < error(sampled(run, scene, load(run, name)), exact) < 0.3


def test_a_format_that_this_comfyui_has_not_is_named(
    run: Run, plain: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.quant_ops

    def awq(w: Tensor) -> dict[str, Tensor]:
        group = torch.ones(w.shape[1] // 8, w.shape[0], dtype=torch.bfloat16)
        mark = marked({"format": "awq_w4a16", "group_size": 8})
        packed = torch.full((w.shape[0], w.shape[1] // 2), 17, dtype=torch.int8)
        scales = {f"{LAYER}.weight_scale": group, f"{LAYER}.weight_zeros": group.clone()}
        return {KEY: packed, **scales, f"{LAYER}.comfy_quant": mark}

    monkeypatch.delitem(comfy.quant_ops.QUANT_ALGOS, "awq_w4a16", raising=False)
    name = stored(plain, "awq.safetensors", awq)
    with pytest.raises(
        pack.module("mova_core.errors").CheckpointError, match="awq_w4a16, which this ComfyUI does not read"
    ):
        load(run, name)


@pytest.mark.parametrize("part", ["weight.absmax", "qweight", "wscales"])
def test_other_makers_formats_are_refused_by_name_before_anything_is_read(
    run: Run, plain: Path, pack: Pack, part: str
) -> None:
    name = stored(plain, "foreign.safetensors", lambda w: {KEY: w.bfloat16(), f"{LAYER}.{part}": torch.ones(4)})
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match="is quantised by"):
        load(run, name)


def test_a_layout_that_is_not_known_is_refused_before_sampling(run: Run, plain: Path, pack: Pack) -> None:
    name = stored(plain, "odd.safetensors", lambda w: {KEY: w.to(E4M3), f"{LAYER}.weight_scale": torch.ones(3, 3, 3)})
    with pytest.raises(pack.module("mova_core.errors").CheckpointError, match="a layout that is not known"):
        load(run, name)


def test_the_marker_of_a_file_changes_nothing(run: Run, scene: Scene, plain: Path) -> None:
    one = stored(plain, "one.safetensors", lambda w: LAYOUTS["by tensor"](w, E4M3))
    other = stored(plain, "other.safetensors", lambda w: LAYOUTS["by tensor, with a marker"](w, E4M3))
    assert equal(sampled(run, scene, load(run, one)), sampled(run, scene, load(run, other)))


@pytest.mark.parametrize("weight_dtype", ["default", "int8", "fp8_e4m3fn"])
@pytest.mark.parametrize("dtype", [E4M3, E5M2, torch.float8_e4m3fnuz, torch.float16, torch.float64])
def test_plain_weights_of_any_precision_load_and_convert(
    run: Run, scene: Scene, plain: Path, exact: dict[str, Any], dtype: torch.dtype, weight_dtype: str
) -> None:
    name = stored(plain, "plain_in_another.safetensors", lambda w: {KEY: w.to(dtype)})
    assert error(sampled(run, scene, load(run, name, weight_dtype)), exact) < LIMITS[E5M2]
