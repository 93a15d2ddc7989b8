"""What files a conversion writes: published folder -> single files in a precision, and single files -> folder.

Nothing is read here but headers, configurations and two small weights; a plan says what to write, and holds how to make
each piece of it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..files import component_files, read_header, read_json
from ..fingerprint import expert_fingerprint
from ..keys import original_video_vae
from ..quantization import FORMATS, QUANT_MARK, SCALES, Format, dequantized, takes
from ..variants import AUDIO, BRIDGE, HIGH, LOW
from ..weight_file import AUDIO_VAE, COMPONENT_MARK, CONFIG, EXPERTS_MARK, MERGED, MODEL, SHARED, header_json
from ..writer import BY_CODE, Piece, Spec, is_written, raw, total_size

TEXT, VIDEO_VAE = "text_encoder", "video_vae"
REVISION, SOURCES, PRECISION, NAMES, COPIES = (
    "mova_revision",
    "mova_sources",
    "mova_precision",
    "mova_names",
    "mova_copies",
)
COMFYUI = "config"  # JSON that ComfyUI's own loader reads: what no shape of an expert tells
UNSEEN_SIZES = ("num_heads", "text_dim", "freq_dim", "eps")
VOCABULARY = "spiece_model"  # the tensor from which ComfyUI makes its UMT5 tokenizer
TIED = ("encoder.embed_tokens.weight", "shared.weight")  # one table under two names; ComfyUI reads the second
PLAIN_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PRECISIONS = (*PLAIN_DTYPES, *FORMATS)

# Part -> folder in ComfyUI's models folder, end of the file's name, components and the prefixes of their keys.
SINGLE_FILES: dict[str, tuple[str, str, dict[str, str]]] = {
    HIGH: ("diffusion_models", "high_noise", {HIGH: ""}),
    LOW: ("diffusion_models", "low_noise", {LOW: ""}),
    SHARED: ("diffusion_models", "shared", {AUDIO: f"{AUDIO}.", BRIDGE: f"{BRIDGE}."}),
    MERGED: ("diffusion_models", "all", {HIGH: "", LOW: f"{LOW}.", AUDIO: f"{AUDIO}.", BRIDGE: f"{BRIDGE}."}),
    TEXT: ("text_encoders", "umt5_xxl", {TEXT: ""}),
    VIDEO_VAE: ("vae", "video_vae", {VIDEO_VAE: ""}),
    AUDIO_VAE: ("vae", "audio_vae", {AUDIO_VAE: ""}),
}
USUAL = tuple(part for part in SINGLE_FILES if part != MERGED)
AS_PUBLISHED = (VIDEO_VAE, AUDIO_VAE)  # small, and every value reaches a pixel or a sample


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to write: where, of what pieces, with what header."""

    path: Path
    pieces: list[Piece]
    metadata: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes."""
        return total_size(self.pieces, self.metadata)

    def is_written(self) -> bool:
        return is_written(self.path, self.pieces, self.metadata)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of a source file, read when it is asked for."""

    path: Path
    key: str
    spec: Spec

    def read(self) -> Tensor:
        with safetensors.safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.key)
        return tensor


def weights(files: Iterable[Path]) -> dict[str, Weight]:
    """Every tensor of these files by key; headers are checked, nothing else is read."""
    found: dict[str, Weight] = {}
    for path in files:
        header = read_header(path)
        for key, shape in header.shapes.items():
            if key in found:
                raise CheckpointError(f"{path} holds {key} a second time. Download the folder again")
            if header.dtypes[key] not in BY_CODE:
                raise CheckpointError(f"{path}: {key} is {header.dtypes[key]}, which is not converted")
            found[key] = Weight(path=path, key=key, spec=(BY_CODE[header.dtypes[key]], shape))
    return found


# --- pieces --------------------------------------------------------------------------------------------------------


def piece(name: str, weight: Weight, precision: str | None) -> Piece:
    """One weight under `name`: as it is (None), cast, or quantised where the rule takes it."""
    dtype, shape = weight.spec
    if precision is None or not dtype.is_floating_point:
        return Piece(tensors={name: weight.spec}, make=lambda: {name: weight.read()})
    if precision in PLAIN_DTYPES:
        target = PLAIN_DTYPES[precision]
        return Piece(tensors={name: (target, shape)}, make=lambda: {name: _cast(weight.read(), target, name)})
    kind = FORMATS[precision]
    if dtype.itemsize >= 2 and takes(kind, name, shape):
        return _quantized(name, weight, kind)
    return Piece(tensors={name: weight.spec}, make=lambda: {name: weight.read()})


def _cast(tensor: Tensor, target: torch.dtype, name: str) -> Tensor:
    out = tensor.to(target)
    if target == torch.float16 and not bool(torch.isfinite(out).all()):
        raise CheckpointError(f"{name} has values that float16 cannot hold (above 65504); choose bf16")
    return out


def _quantized(name: str, weight: Weight, kind: Format) -> Piece:
    layer, mark = name.removesuffix(".weight"), kind.configuration(weight.spec[1])
    specs = {f"{layer}.{part}": spec for part, spec in kind.storage(weight.spec[1]).items()}
    specs[f"{layer}.{QUANT_MARK}"] = (mark.dtype, tuple(mark.shape))

    def make() -> dict[str, Tensor]:
        return {f"{layer}.{part}": tensor for part, tensor in kind.quantize(weight.read()).items()} | {
            f"{layer}.{QUANT_MARK}": mark
        }

    return Piece(tensors=specs, make=make)


def constant(name: str, tensor: Tensor) -> Piece:
    return Piece(tensors={name: (tensor.dtype, tuple(tensor.shape))}, make=lambda: {name: tensor})


# --- folder -> files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the headers say of where the weights came from."""

    folder: Path
    name: str
    revision: str
    hashes: Mapping[str, str]  # path in the folder -> SHA-256


def revision_of(folder: Path) -> str:
    """The commit that huggingface_hub noted beside a downloaded folder; empty where there is none."""
    note = folder / ".cache" / "huggingface" / "download" / "model_index.json.metadata"
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return lines[0] if lines and re.fullmatch(r"[0-9a-f]{40}", lines[0]) else ""


def sources(folder: Path, part: str) -> list[Path]:
    """The weight files from which the file of `part` is made."""
    return [path for component in SINGLE_FILES[part][2] for path in component_files(folder / component)]


def plan(origin: Origin, part: str, precision: str, models: Path) -> File:
    """The file of `part` in ComfyUI's models folder.

    Raises:
        CheckpointError: the folder lacks something, or is not what its name says.
    """
    folder, end, components = SINGLE_FILES[part]
    pieces: list[Piece] = []
    metadata = {"format": "pt", COMPONENT_MARK: part, MODEL: origin.name}
    for component, prefix in components.items():
        found, names = _named(origin.folder, component, metadata)
        kept = None if component in AS_PUBLISHED else precision
        pieces += [piece(prefix + name, found[key], kept) for name, key in names.items()]
    if part == TEXT:
        pieces.append(constant(VOCABULARY, _vocabulary(origin.folder)))
    used = {path.relative_to(origin.folder).as_posix() for path in sources(origin.folder, part)}
    written = "as published" if part in AS_PUBLISHED else precision
    metadata |= {
        CONFIG: json.dumps(_configs(origin.folder, components)),
        REVISION: origin.revision,
        SOURCES: json.dumps({name: sha for name, sha in origin.hashes.items() if name in used}),
        PRECISION: written,
    }
    if part in (HIGH, LOW, MERGED):
        metadata |= _for_comfyui(json.loads(metadata[CONFIG]), next(iter(components)))
    if part in (HIGH, LOW, SHARED, MERGED):
        metadata[EXPERTS_MARK] = json.dumps({expert: _fingerprint(origin.folder, expert) for expert in (HIGH, LOW)})
    suffix = "" if part in AS_PUBLISHED else f"_{precision}"
    return File(
        path=models / folder / f"{slug(origin.name)}_{end}{suffix}.safetensors", pieces=pieces, metadata=metadata
    )


def _named(folder: Path, component: str, metadata: dict[str, str]) -> tuple[dict[str, Weight], dict[str, str]]:
    """A component's weights by their key, and name in the new file -> key. What was renamed is noted in the header."""
    found = weights(component_files(folder / component))
    names = {key: key for key in found}
    if component == VIDEO_VAE:
        names = original_video_vae(names, str(folder / component))
        metadata[NAMES] = json.dumps({name: key for name, key in names.items() if name != key})
    if component == TEXT and TIED[0] in found:
        if TIED[1] in found:
            if not torch.equal(found[TIED[0]].read(), found[TIED[1]].read()):
                raise CheckpointError(f"{folder / component}: {TIED[0]} and {TIED[1]} differ; UMT5 has one table")
            metadata[COPIES] = json.dumps({TIED[0]: TIED[1]})
        else:
            metadata[NAMES] = json.dumps({TIED[1]: TIED[0]})
        names = {(TIED[1] if name == TIED[0] else name): key for name, key in names.items() if _first(key, found)}
    return found, names


def _first(key: str, found: Mapping[str, Weight]) -> bool:
    return key != TIED[0] or TIED[1] not in found


def _vocabulary(folder: Path) -> Tensor:
    path = folder / "tokenizer" / "spiece.model"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; ComfyUI makes its tokenizer from it. Download the tokenizer folder, or leave out "
            f"{TEXT} (--parts)"
        )
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def _configs(folder: Path, components: Iterable[str]) -> dict[str, Any]:
    places = {component: folder / component / "config.json" for component in components}
    if HIGH in places or LOW in places or AUDIO in places:
        places |= {
            "scheduler": folder / "scheduler" / "scheduler_config.json",
            "model_index": folder / "model_index.json",
            AUDIO_VAE: folder / AUDIO_VAE / "config.json",  # how the codec counts the sound that is made
        }
    return {name: read_json(path) for name, path in places.items() if path.is_file()}


def _for_comfyui(configs: Mapping[str, Any], expert: str) -> dict[str, str]:
    """Sizes of the video tower under which ComfyUI's own loader, which takes it for Wan, builds it."""
    sizes = {key: value for key, value in configs.get(expert, {}).items() if key in UNSEEN_SIZES}
    return {COMFYUI: json.dumps({"transformer": sizes})} if sizes else {}


def _fingerprint(folder: Path, expert: str) -> str:
    return expert_fingerprint(weights(component_files(folder / expert))["head.modulation"].read())


# --- files -> folder -----------------------------------------------------------------------------------------------

WEIGHTS = "diffusion_pytorch_model.safetensors"


def restored(models: Path, folder: Path) -> Iterator[tuple[File, dict[Path, Any]]]:
    """The published components that the converted files under `models` hold, and the other files beside them.

    Raises:
        CheckpointError: nothing there was converted by this package, or one component is there twice.
    """
    seen: dict[str, Path] = {}
    for path in sorted(models.rglob("*.safetensors")):
        header = read_header(path)
        part = header.metadata.get(COMPONENT_MARK)
        if part not in SINGLE_FILES:
            continue
        held = weights([path])
        config = header_json(header.metadata, CONFIG, path)
        for component, prefix in SINGLE_FILES[part][2].items():
            if component in seen:
                raise CheckpointError(
                    f"{component} is in {seen[component]} and in {path}; move one away, or name the folder of one model"
                )
            seen[component] = path
            others = [p for c, p in SINGLE_FILES[part][2].items() if p and c != component]
            own = {
                k: w for k, w in held.items() if k.startswith(prefix) and (prefix or not k.startswith(tuple(others)))
            }
            if component == TEXT and VOCABULARY not in held:
                raise CheckpointError(f"{path} has no {VOCABULARY}, the tokenizer. Convert the folder again")
            names, copies = (header_json(header.metadata, kind, path) for kind in (NAMES, COPIES))
            yield _component(folder, component, prefix, own, names, copies), _beside(folder, component, config, held)
    if not seen:
        raise CheckpointError(f"no file under {models} was converted by this package; there is nothing to restore")


def _component(
    folder: Path,
    component: str,
    prefix: str,
    held: Mapping[str, Weight],
    names: Mapping[str, str],
    copies: Mapping[str, str],
) -> File:
    layers = {key.removesuffix(f".{QUANT_MARK}") for key in held if key.endswith(f".{QUANT_MARK}")}
    pieces = []
    for key, weight in held.items():
        layer, _, end = key.rpartition(".")
        if key == VOCABULARY or (layer in layers and end in (QUANT_MARK, *SCALES)):
            continue
        name = key[len(prefix) :]
        name = names.get(name, name)
        if layer in layers and end == "weight":
            pieces.append(_plain(name, layer, held))
        else:
            pieces += [piece(alias, weight, None) for alias in (name, *(c for c, k in copies.items() if k == name))]
    file = "model.safetensors" if component == TEXT else WEIGHTS
    return File(path=folder / component / file, pieces=pieces, metadata={"format": "pt"})


def _plain(name: str, layer: str, held: Mapping[str, Weight]) -> Piece:
    """A quantised layer's weight in bfloat16."""
    parts = {key: weight for key, weight in held.items() if key.rpartition(".")[0] == layer and key != f"{layer}.bias"}
    packed = any(key.endswith("weight_scale_2") for key in parts)  # nvfp4: two values a byte
    shape = parts[f"{layer}.weight"].spec[1]
    if len(shape) != 2:
        raise CheckpointError(
            f"{layer} is marked as quantised and has shape {shape}, no matrix. Convert the folder again"
        )
    rows, columns = shape

    def make() -> dict[str, Tensor]:
        return {name: dequantized({key: weight.read() for key, weight in parts.items()})[f"{layer}.weight"]}

    return Piece(tensors={name: (torch.bfloat16, (rows, 2 * columns if packed else columns))}, make=make)


def _beside(folder: Path, component: str, config: Mapping[str, Any], held: Mapping[str, Weight]) -> dict[Path, Any]:
    """Path -> object, or bytes, of the small files."""
    out: dict[Path, Any] = {}
    if component in config:
        out[folder / component / "config.json"] = config[component]
    if component in (HIGH, LOW):
        out |= {
            folder / place: config[name]
            for name, place in (("scheduler", "scheduler/scheduler_config.json"), ("model_index", "model_index.json"))
            if name in config
        }
    if component == TEXT:
        out[folder / "tokenizer" / "spiece.model"] = bytes(raw(held[VOCABULARY].read()))
    return out


def slug(name: str) -> str:
    """A model's name as files are called."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_") or "mova"
