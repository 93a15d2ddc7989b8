"""Every name of ComfyUI that the pack uses is there, takes what it is given, and stands in docs/compatibility.md.

MOVA_UPDATE_CONTRACT=1 writes the tables of that page anew.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.comfy import COMFYUI, needs_comfy
from tests.in_process import Pack
from tests.nodes import contract
from tools.docs.between import between

pytestmark = needs_comfy

PAGE = contract.ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- names: tests/nodes/test_contract.py writes this -->", "<!-- end of names -->"


def read(source: str) -> contract.Used:
    found = contract.Used()
    contract._read(ast.parse(source), found)
    return found


def test_every_name_exists(comfy_nodes: ModuleType) -> None:
    lacking = []
    for chain in contract.used(contract.sources()).chains:
        try:
            contract.resolve(chain)
        except (AttributeError, ImportError) as error:
            lacking.append(f"{chain}: {error}")
    assert lacking == []


def test_every_name_that_may_be_missing_was_seen_in_a_newer_comfyui() -> None:
    assert sorted(contract.SEEN) == sorted(contract.used([contract.NEWER]).chains)
    assert all(re.fullmatch(r"[0-9a-f]{40}", seen["commit"]) for seen in contract.SEEN.values())


NAMED = {name: file for file, names in contract.BY_TEXT["comfyui"].items() for name in names}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_by_text_stands_in_the_comfyui_at_hand(name: str) -> None:
    assert COMFYUI
    assert name in contract.tokens(COMFYUI / NAMED[name])


def test_every_name_by_text_is_listed_and_used() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in contract.sources()]
    host = [tree for path, tree in zip(contract.sources(), trees) if "host" in path.parts]
    own = {getattr(node, "name", None) for tree in trees for node in ast.walk(tree)}
    own |= {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    asked = {name for tree in host for name in contract.by_text(tree) if name not in own}
    assert asked - NAMED.keys() - set(contract.BY_TEXT["others"]) == set(), "say in by_text.json whose these are"
    nodes = [node for tree in trees for node in ast.walk(tree)]
    said = {*asked, *contract.texts(*nodes)}
    said |= {getattr(node, kind, None) for node in nodes for kind in ("attr", "arg")}
    said |= {f"{part}{axis}" for part in said & {"scale_", "shift_"} for axis in "tyx"}
    assert {name for name in NAMED if not said & {name, name.lstrip("_")}} == set()


def test_a_name_by_text_is_found_and_one_that_is_gone_is_noticed(tmp_path: Path) -> None:
    source = (
        "m._prefetch; self._own; hasattr(m, '_v'); options.get('uuids'); model_options['conds']; x['y']; m.__dict__"
    )
    assert set(contract.by_text(ast.parse(source))) == {"_prefetch", "_v", "uuids", "conds"}
    (tmp_path / "ops.py").write_text("def f(a, bias_dtype):\n    s._v = {'signature': a}\n    g(sigma=1)")
    assert {"_v", "signature", "bias_dtype", "sigma"} <= contract.tokens(tmp_path / "ops.py")
    assert "_prefetch" not in contract.tokens(tmp_path / "ops.py")


def test_every_keyword_is_taken(comfy_nodes: ModuleType) -> None:
    chains = contract.used(contract.sources()).chains
    wrong = {chain: contract.refused(chain, keywords) for chain, keywords in chains.items() if keywords}
    assert {chain: keywords for chain, keywords in wrong.items() if keywords} == {}


def test_what_stands_in_the_place_of_a_method_takes_what_the_method_takes(pack: Pack) -> None:
    wrong, looked = [], 0
    for path in sorted((contract.ROOT / "nodes" / "host").rglob("*.py")):
        if path.stem == "__init__":
            continue
        module = pack.module(".".join(path.relative_to(contract.ROOT).with_suffix("").parts))
        for cls in [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]:
            for name, ours in vars(cls).items():
                bases = [b for b in cls.__mro__[1:] if b.__module__.split(".")[0] in contract.HOSTS]
                theirs = next((vars(b)[name] for b in bases if name in vars(b)), None)
                if not inspect.isfunction(ours) or not inspect.isfunction(theirs) or name == "__init__":
                    continue
                looked += 1
                wrong += [f"{cls.__name__}.{name} lacks {p}" for p in contract.not_taken(ours, theirs)]
    assert wrong == []
    assert looked > 5


def test_the_mixed_patcher_takes_what_comfyuis_own_takes(pack: Pack) -> None:
    cls, wrong = pack.module("nodes.host.patching.patcher").MovaDynamicPatcher, []
    base = contract.resolve("comfy.model_patcher.ModelPatcher")
    for name in sorted(set(dir(cls)) & set(vars(base))):
        ours, theirs = getattr(cls, name), vars(base)[name]
        if not name.startswith("__") and inspect.isfunction(theirs) and ours is not theirs:
            wrong += [f"{name} lacks {p}" for p in contract.not_taken(ours, theirs)]
    assert wrong == []


def test_the_page_names_them_all(comfy_nodes: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    wanted = between(text, contract.table(), BEGIN, END)
    if os.environ.get("MOVA_UPDATE_CONTRACT") == "1":
        PAGE.write_text(wanted, encoding="utf-8")
    else:
        assert text == wanted, "the pack uses a name more or less: MOVA_UPDATE_CONTRACT=1 writes the page anew"


@pytest.mark.parametrize(
    ("source", "chain"),
    [
        ("import comfy.utils\ncomfy.utils.pack_latents(x)", "comfy.utils.pack_latents"),
        ("from comfy import sd1_clip\nclass A(sd1_clip.SDClipModel): ...", "comfy.sd1_clip.SDClipModel"),
        ("from comfy.quant_ops import ck\nck.rotate_(x)", "comfy.quant_ops.ck.rotate_"),
        ("import comfy.model_management as mm\nmm.vae_device()", "comfy.model_management.vae_device"),
        ("import comfy.model_management\nm = comfy.model_management\nm.gone()", "comfy.model_management.gone"),
        (
            "def f():\n    from server import PromptServer\n    return PromptServer.instance",
            "server.PromptServer.instance",
        ),
    ],
)
def test_a_name_is_found_however_it_is_spelt(source: str, chain: str) -> None:
    assert chain in read(source).chains


def test_names_of_others_are_left_alone() -> None:
    assert read("import torch\nfrom ...mova_core.shapes import frames_of\ntorch.ones(1)\nframes_of(3)").chains == {}


def test_a_name_a_keyword_or_a_parameter_that_is_gone_is_noticed(comfy_nodes: ModuleType) -> None:
    with pytest.raises(AttributeError):
        contract.resolve("comfy.utils.no_such_name")
    with pytest.raises(AttributeError):
        contract.resolve("comfy.no_such_module.name")
    with pytest.raises(ImportError):
        contract.resolve("no_such_module.name")
    assert contract.refused("comfy.utils.load_torch_file", {"return_metadata", "no_such"}) == {"no_such"}
    assert contract.not_taken(lambda self, a: a, lambda self, a, b=1: a) == ["b"]
    assert contract.not_taken(lambda self, a, **more: a, lambda self, a, b=1: a) == []


def test_the_version_floor_is_the_same_in_every_place() -> None:
    floor = re.search(r'requires-comfyui = ">=([\d.]+)"', Path(contract.ROOT / "pyproject.toml").read_text())
    assert floor
    assert f"ComfyUI {floor[1]}" in PAGE.read_text(encoding="utf-8")
