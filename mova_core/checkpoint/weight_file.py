"""One weight file, or the shards of one component: what it holds, what it says of itself, how its tensors are read.

Conventions (docs/decisions.md): an expert's file holds the video tower under Wan's names; the shared file holds
`audio_dit.*` and `dual_tower_bridge.*`; a merged file is both, with the low-noise expert under `video_dit_2.*`; a
component of a published folder, and a file of one component, has its names at the root.
A header written by this package says more, under the names below; any other file is taken for what its keys are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import BridgeConfig, TowerConfig
from ..errors import CheckpointError
from . import configs, detect
from .detect import Shapes
from .files import Header, Read, component_files, component_header, read_header, read_json, read_some
from .holes import check_written
from .layouts import logical_shapes, notes, refuse_foreign, stated_formats, with_formats
from .quantization import QUANT_MARK, configuration, dequantized
from .variants import AUDIO, BRIDGE, HIGH, LOW, MODEL_PARTS, PRISM, ModelVariant, parts, variant_of

COMPONENT_MARK = "mova"  # header: which of the published components the file holds, or SHARED or MERGED
MODEL = "mova_model"  # header: the checkpoint it came from, such as MOVA-360p
CONFIG = "mova_config"  # header, JSON: component -> its published config.json
EXPERTS_MARK = "mova_experts"  # header, JSON: expert -> fingerprint of the one that belongs to these files
SHARED, MERGED = "shared", "merged"
PRISM_COMPONENT, PRISM_CONFIG = "prism.component", "prism.config"  # header of Prism's files of one component each
SCHEDULER, INDEX, AUDIO_VAE = "scheduler", "model_index", "audio_vae"  # beside components, in CONFIG

IN_WORDS = {
    HIGH: "the high-noise expert",
    LOW: "the low-noise expert",
    AUDIO: "the audio tower",
    BRIDGE: "the bridge",
    SHARED: "audio tower and bridge",
    MERGED: "both experts, audio tower and bridge",
}


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What may hold parts of the joint model. `configs`: component -> its config.json, and where that stands."""

    place: Path
    files: tuple[Path, ...]
    metadata: dict[str, str]
    variant: ModelVariant
    shapes: Mapping[str, Shapes]  # part -> its keys -> logical shapes
    configs: dict[str, tuple[dict[str, Any], str]]
    notes: tuple[str, ...] = ()

    @property
    def component(self) -> str:
        """Which component its header says it is; empty where it says nothing."""
        return self.metadata.get(COMPONENT_MARK, self.metadata.get(PRISM_COMPONENT, ""))

    @property
    def model_name(self) -> str:
        """The checkpoint it belongs to; empty where nothing says."""
        return self.metadata.get(MODEL, self.variant.name if self.variant is PRISM else "")

    def experts(self) -> dict[str, str]:
        """Fingerprints of the experts that belong to it, where its header knows them."""
        return header_json(self.metadata, EXPERTS_MARK, self.place)

    def contents(self) -> str:
        """A few words on what it is, for messages."""
        held = [part for part in MODEL_PARTS if part in self.shapes]
        if held != [HIGH]:
            return f"{self.variant.name}: {', '.join(IN_WORDS[part] for part in held)}" if held else "nothing"
        known = self.component in IN_WORDS
        return f"{IN_WORDS[self.component]} of {self.variant.name}" if known else detect.describe(self.shapes[HIGH])

    def tensors(self, kept: str, read: Read, *, only: str = "") -> dict[str, Tensor]:
        """The tensors kept under a part's names, quantised layers in ComfyUI's formats; with `only`, just that one."""
        found = parts(self._whole(read)).get(kept, {})
        return {key: value for key, value in found.items() if only in ("", key)}

    def plain(self, read: Read) -> dict[str, Tensor]:
        """Every tensor, quantised layers unpacked to bfloat16."""
        return dequantized(self._whole(read))

    def _whole(self, read: Read) -> dict[str, Tensor]:
        whole = {key: tensor for path in self.files for key, tensor in read(path).items()}
        return with_formats(whole, self.metadata, str(self.place))


def open_file(path: Path | str) -> WeightFile:
    """A single file. Its header is read and its keys are sorted.

    Raises:
        CheckpointError: see `read_header`.
    """
    path = Path(path)
    header = read_header(path)
    return _sorted(path, (path,), header, _stated_configs(header.metadata, path))


def open_component(folder: Path, component: str) -> WeightFile:
    """A component of a published folder, with the config.json beside it and those of the whole folder.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    place = folder / component
    header = component_header(place)
    places = {
        component: place / "config.json",
        SCHEDULER: folder / "scheduler" / "scheduler_config.json",
        INDEX: folder / "model_index.json",
        AUDIO_VAE: folder / "audio_vae" / "config.json",
    }
    stated = {name: (read_json(where), str(where)) for name, where in places.items() if where.is_file()}
    return _sorted(place, tuple(component_files(place)), header, stated)


def _sorted(place: Path, files: tuple[Path, ...], header: Header, stated: Any) -> WeightFile:
    refuse_foreign(header.shapes, str(place))
    for path in files:
        check_written(path)
    shapes = logical_shapes(header.shapes, _formats(files, header, str(place)))
    return WeightFile(
        place=place,
        files=files,
        metadata=header.metadata,
        variant=variant_of(shapes, header.metadata),
        shapes=parts(shapes),
        configs=stated,
        notes=tuple(notes(header.shapes, header.dtypes, place.name)),
    )


def _formats(files: tuple[Path, ...], header: Header, where: str) -> dict[str, str]:
    """Layer -> the format that its mark, or the header's table, names."""
    found = {layer: str(config["format"]) for layer, config in stated_formats(header.metadata, where).items()}
    marks = [key for key in header.shapes if key.endswith(f".{QUANT_MARK}")]
    for path in files if marks else ():
        for key, mark in read_some(path, marks).items():
            layer = key.removesuffix(f".{QUANT_MARK}")
            found[layer] = str(configuration(mark, layer)["format"])
    return found


def _stated_configs(metadata: Mapping[str, str], path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    found = header_json(metadata, CONFIG, path)
    if PRISM_CONFIG in metadata:
        found = {metadata.get(PRISM_COMPONENT, HIGH): header_json(metadata, PRISM_CONFIG, path), **found}
    return {name: (value, f"{path} ({IN_WORDS.get(name, name):.100})") for name, value in found.items()}


def header_json(metadata: Mapping[str, str], name: str, path: Path) -> dict[str, Any]:
    """The JSON object that a header holds under `name`: CONFIG, of objects, PRISM_CONFIG, of anything, or another, of
    text; empty where there is none.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        value = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {name} in the header is not JSON. Convert the file again") from error
    kind = {CONFIG: dict, PRISM_CONFIG: object}.get(name, str)
    if not isinstance(value, dict) or not all(isinstance(held, kind) for held in value.values()):
        raise CheckpointError(f"{path}: {name} in the header is not what this package writes. Convert the file again")
    return value


# --- sizes of the parts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """Where one part of a model lies: its file, and the part under whose names that file keeps it."""

    part: str
    file: WeightFile
    kept: str

    @property
    def shapes(self) -> Shapes:
        return self.file.shapes[self.kept]

    @property
    def where(self) -> str:
        """For messages: the file, and the part where a file holds several."""
        return str(self.file.place) if self.file.place.is_dir() else f"{self.file.place} ({IN_WORDS[self.part]})"

    def tensors(self, read: Read, *, only: str = "") -> dict[str, Tensor]:
        """See `WeightFile.tensors`."""
        return self.file.tensors(self.kept, read, only=only)

    def tower(self) -> TowerConfig:
        """Sizes of the tower: what a config.json says, held to the shapes, or the shapes alone."""
        config, place = self._config()
        if config is None:
            return detect.tower_config(self.shapes, self.where)
        stated = configs.tower_config(config, place)
        _agree(stated, detect.tower_config(self.shapes, self.where, stated.heads, stated.eps), place)
        return stated

    def bridge(self) -> BridgeConfig:
        """Sizes of the bridge, as `tower`."""
        config, place = self._config()
        if config is None:
            return detect.bridge_config(self.shapes, self.where)
        stated = configs.bridge_config(config, place)
        _agree(stated, detect.bridge_config(self.shapes, self.where, stated.head_width, stated.audio_rate), place)
        return stated

    def _config(self) -> tuple[dict[str, Any] | None, str]:
        names = [self.part] if self.part == BRIDGE else [self.file.component, self.part, HIGH]
        for name in names:
            if name in self.file.configs:
                return self.file.configs[name]
        return None, self.where


def _agree(stated: TowerConfig | BridgeConfig, found: TowerConfig | BridgeConfig, place: str) -> None:
    """Refuse a configuration beside other weights: what it says of their sizes is never built."""
    for name, value in vars(stated).items():
        if value != getattr(found, name):
            raise CheckpointError(
                f"{place} says {name} {value}, the weights beside it {getattr(found, name)}; "
                "it mixes files of different models. Download that part again"
            )
