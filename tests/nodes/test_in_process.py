"""ComfyUI in this process is the real one, on the CPU, in a folder of its own; packs load as it loads them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tests.comfy import COMFYUI, needs_comfy
from tests.in_process import load_pack

pytestmark = needs_comfy

BENCH_PACK = Path(__file__).parents[1] / "e2e" / "bench_pack"


def test_comfyui_is_imported_from_its_checkout(comfy_nodes: ModuleType, comfy_base: Path) -> None:
    import folder_paths
    from comfy import model_management

    assert Path(comfy_nodes.__file__ or "").parent == COMFYUI
    assert model_management.get_torch_device().type == "cpu"
    assert Path(folder_paths.get_input_directory()) == comfy_base / "input"
    assert Path(folder_paths.models_dir) == comfy_base / "models"


def test_a_pack_loads_under_the_name_comfyui_gives_it(comfy_nodes: ModuleType) -> None:
    pack = load_pack(comfy_nodes, BENCH_PACK)
    assert pack.package.__name__ == str(BENCH_PACK).replace(".", "_x_")
    assert pack.run("BenchSteps", steps=1, seconds=0.0, fail=False) == (1,)
    assert comfy_nodes.NODE_CLASS_MAPPINGS["BenchSteps"] is pack.nodes["BenchSteps"]


def test_stock_nodes_include_the_extra_ones(stock: dict[str, type]) -> None:
    assert {"KSampler", "LTXVSeparateAVLatent", "SamplerCustomAdvanced"} <= stock.keys()
