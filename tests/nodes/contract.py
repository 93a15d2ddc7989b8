"""Which names of ComfyUI the pack uses, read from the source: nothing is listed by hand, so nothing is forgotten.

Four kinds. A chain is what stands in the source: `comfy.utils.pack_latents`. A member is an attribute or method of
one of ComfyUI's classes that our code touches, calls or overrides by name: `ModelPatcher.add_patches`. A keyword is
one that a call through a chain passes: `comfy.sd.VAE(sd=)`. A name by text is a private attribute of an object of
ComfyUI's, or a key of options and conditionings; by_text.json says in which file of ComfyUI each stands.

What newer versions alone have is asked for in one file, nodes/host/newer.py; newer.json says where each was seen.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"comfy", "comfy_api", "comfy_execution", "comfyui_version"}
HOSTS |= {"folder_paths", "latent_preview", "node_helpers", "server"}
# ComfyUI's classes whose objects our code holds or extends.
CLASSES = (
    "comfy.model_patcher.ModelPatcher",
    "comfy.model_base.BaseModel",
    "comfy.supported_models_base.BASE",
    "comfy.samplers.CFGGuider",
    "comfy.samplers.KSamplerX0Inpaint",
    "comfy.sd.CLIP",
    "comfy.sd.VAE",
    "comfy.sd1_clip.SDTokenizer",
    "comfy.sd1_clip.SD1Tokenizer",
    "comfy.nested_tensor.NestedTensor",
    "comfy.latent_formats.Wan21",
    "comfy.weight_adapter.BypassInjectionManager",
    "server.PromptServer",
)
NEWER = ROOT / "nodes" / "host" / "newer.py"
SEEN: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("newer.json").read_text(encoding="utf-8"))
BY_TEXT: dict[str, Any] = json.loads(Path(__file__).with_name("by_text.json").read_text(encoding="utf-8"))
OPTIONS = {"options", "model_options", "transformer_options", "kwargs", "args", "cond"}  # what we call such mappings
ASKING = {"getattr", "hasattr", "setattr", "delattr"}
EVERYDAY = {"to", "device", "dtype", "shape", "get", "keys", "update", "copy", "append", "forward"}


@dataclass
class Used:
    """What the sources use. `chains` maps a chain to the keywords passed in calls of it."""

    chains: dict[str, set[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)  # attributes touched and functions defined, of whatever object


def sources() -> list[Path]:
    """Files whose names have to be there."""
    return sorted(path for path in (ROOT / "nodes").rglob("*.py") if path != NEWER)


def used(paths: list[Path]) -> Used:
    found = Used()
    for path in paths:
        _read(ast.parse(path.read_text(encoding="utf-8")), found)
    return found


def _read(tree: ast.Module, found: Used) -> None:
    imported = dict(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            imported |= {node.targets[0].id: chain} if (chain := _chain(node.value, imported)) else {}
    found.chains.update({chain: found.chains.get(chain, set()) for chain in imported.values()})
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.names.add(node.name)
        if isinstance(node, ast.Attribute):
            found.names.add(node.attr)
            if id(node) not in inner and (chain := _chain(node, imported)):
                found.chains.setdefault(chain, set())
        if isinstance(node, ast.Call) and (chain := _chain(node.func, imported)):
            found.chains.setdefault(chain, set()).update(k.arg for k in node.keywords if k.arg)


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> the chain it stands for, for every import of ComfyUI's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in HOSTS:
                    yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in HOSTS:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _chain(node: ast.AST, imported: dict[str, str]) -> str | None:
    """`comfy.utils.pack_latents` of such an expression; None where it does not begin with an import of ComfyUI's."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imported:
        return None
    return ".".join([imported[node.id], *reversed(attributes)])


def by_text(tree: ast.AST) -> Iterator[str]:
    """Names that a source asks for by text: private attributes of others, and keys of options and conditionings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch("_[a-z].*", node.attr) and not _is_own(node.value):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKING:
            yield from texts(*node.args[1:2])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_options(node.func.value):
            if node.func.attr in ("get", "pop", "setdefault"):
                yield from texts(*node.args[:1])
        elif isinstance(node, ast.Subscript) and _is_options(node.value):
            yield from texts(node.slice)


def texts(*nodes: ast.AST) -> Iterator[str]:
    yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_options(node: ast.AST) -> bool:
    return getattr(node, "id", getattr(node, "attr", None)) in OPTIONS


def tokens(path: Path) -> set[str]:
    """Attributes, texts, parameters and keywords of a source of ComfyUI."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {getattr(node, kind) for kind in ("attr", "arg") if isinstance(getattr(node, kind, None), str)}
        found |= set(texts(node))
    return found


def resolve(chain: str) -> Any:
    """The object a chain names.

    Raises:
        AttributeError, ImportError: this ComfyUI does not have it.
    """
    parts = chain.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = import_module(".".join(parts[:count]))
        except ModuleNotFoundError as error:
            if error.name and chain.startswith(error.name):
                continue
            raise
        return reduce(getattr, parts[count:], module)
    raise ModuleNotFoundError(chain)


def members(cls: type) -> set[str]:
    """Names that ComfyUI gives a class: what it and ComfyUI's own among its bases define, and set on `self`."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.split(".")[0] not in HOSTS:
            continue
        found |= set(vars(base))
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            own = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if own and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
    return {name for name in found if not name.startswith("__")} - EVERYDAY


def touched(names: set[str]) -> dict[str, set[str]]:
    """Class -> those of its members that our code names."""
    return {chain: members(resolve(chain)) & names for chain in CLASSES}


def refused(chain: str, keywords: set[str]) -> set[str]:
    """Keywords that the callable does not take. One that takes any keyword is believed."""
    parameters = inspect.signature(resolve(chain)).parameters.values() if keywords else ()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return set()
    return keywords - {p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}


def not_taken(ours: Any, theirs: Any) -> list[str]:
    """Parameters of ComfyUI's method that ours, which stands in its place, could not be given."""
    mine = inspect.signature(ours).parameters
    kinds = {p.kind for p in mine.values()}
    named, starred = inspect.Parameter.VAR_KEYWORD in kinds, inspect.Parameter.VAR_POSITIONAL in kinds
    wanted = [p for p in inspect.signature(theirs).parameters.values() if p.name != "self"]
    return [
        p.name
        for p in wanted
        if p.name not in mine and not (named or p.kind is p.VAR_KEYWORD or (starred and p.default is p.empty))
    ]


def table() -> str:
    """Every name by module, and every member by class, in Markdown."""
    found, modules = used(sources()), dict[str, list[str]]()
    for chain, keywords in sorted(found.chains.items()):
        module = _module(chain)
        if name := chain.removeprefix(module).strip("."):
            passed = f"({', '.join(f'{k}=' for k in sorted(keywords))})" if keywords else ""
            modules.setdefault(module, []).append(f"`{name}{passed}`")
        else:
            modules.setdefault(module, [])
    rows = ["| module | names, with the keywords passed |", "|---|---|"]
    rows += [f"| `{module}` | {', '.join(names) or 'itself'} |" for module, names in modules.items()]
    rows += ["", "| class | members called, read, set or overridden |", "|---|---|"]
    rows += [f"| `{c}` | {', '.join(f'`{m}`' for m in sorted(m))} |" for c, m in touched(found.names).items() if m]
    rows += ["", "| file | private names and keys of options, by text |", "|---|---|"]
    rows += [f"| `{f}` | {', '.join(f'`{n}`' for n in names)} |" for f, names in BY_TEXT["comfyui"].items()]
    rows += ["", "| asked for, of newer versions | where it is not there |", "|---|---|"]
    rows += [f"| `{chain}` | {SEEN[chain]['without']} |" for chain in sorted(used([NEWER]).chains)]
    return "\n".join(rows)


def _module(chain: str) -> str:
    parts = chain.split(".")
    for count in range(len(parts), 1, -1):
        name = ".".join(parts[:count])
        with suppress(ModuleNotFoundError):
            if find_spec(name):
                return name
    return parts[0]
