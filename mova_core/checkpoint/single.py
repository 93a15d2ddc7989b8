"""Single files: what a file holds is read from its header, never from its name.

Conventions (docs/decisions.md): an expert's file holds the video tower under Wan's names; the shared file holds
`audio_dit.*` and `dual_tower_bridge.*`; a merged file is both, with the low-noise expert under `video_dit_2.*`.
A header written by this package says more, under the names below; any other file is taken for what its keys are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import AudioVAEConfig, BridgeConfig, MovaConfig, SchedulerConfig, TowerConfig
from ..errors import CheckpointError
from . import configs, detect
from .family import AUDIO, BRIDGE, HIGH, LOW, MOVA_FILES, PARTS, Relative, parts, relative
from .files import Header, Read, read_header, read_tensors
from .load import agree
from .quantization import FP8, MARK, plain_shapes
from .weight_norm import fold_weight_norm

PART = "mova"  # which of the published components the file holds, or SHARED or MERGED
MODEL = "mova_model"  # the checkpoint it came from, such as MOVA-360p
CONFIG = "mova_config"  # JSON: component -> its published config.json
EXPERTS = "mova_experts"  # JSON: expert -> fingerprint of the one that belongs to these files
SHARED, MERGED = "shared", "merged"

IN_WORDS = {
    HIGH: "the high-noise expert",
    LOW: "the low-noise expert",
    AUDIO: "the audio tower",
    BRIDGE: "the bridge",
    SHARED: "audio tower and bridge",
    MERGED: "both experts, audio tower and bridge",
}
EXPERT_KINDS = ("a Wan image-to-video expert", "a Wan model (")  # as `detect.describe` calls what may be an expert


def stated(metadata: Mapping[str, str], name: str, path: Path) -> dict[str, Any]:
    """The JSON object that a header holds under `name`, such as CONFIG, whose values are objects, or another, whose
    values are text; empty where there is none.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        value = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {name} in the header is not JSON. Convert the file again") from error
    kind = dict if name == CONFIG else str
    if not isinstance(value, dict) or not all(isinstance(held, kind) for held in value.values()):
        raise CheckpointError(f"{path}: {name} in the header is not what this package writes. Convert the file again")
    return value


@dataclass(frozen=True, kw_only=True)
class Single:
    """A file that may hold parts of the joint model, known by its header."""

    path: Path
    header: Header
    kin: Relative
    shapes: dict[str, dict[str, tuple[int, ...]]]  # part -> its keys -> logical shapes

    def stated(self, name: str) -> dict[str, Any]:
        """See `stated`."""
        return stated(self.header.metadata, name, self.path)

    def contents(self) -> str:
        """A few words on what the file is, for messages."""
        held = [part for part in PARTS if part in self.shapes]
        stated = self.header.metadata.get(PART)
        if held != [HIGH]:
            return f"{self.kin.name}: {', '.join(IN_WORDS[part] for part in held)}" if held else "nothing"
        return f"{IN_WORDS[stated]} of MOVA" if stated in IN_WORDS else detect.describe(self.shapes[HIGH])


def open_single(path: Path | str) -> Single:
    """Read a header and sort its keys.

    Raises:
        CheckpointError: see `read_header`.
    """
    path = Path(path)
    header = read_header(path)
    sorted_shapes = {part: plain_shapes(found) for part, found in parts(header.shapes).items()}
    return Single(path=path, header=header, kin=relative(header.shapes), shapes=sorted_shapes)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A joint model from single files: sizes, defaults, where each part lies, and what could not be verified."""

    kin: str
    model: MovaConfig
    scheduler: SchedulerConfig
    audio_shift: float
    frames: int  # of the clips it was trained on
    places: dict[str, tuple[Path, str]]  # part -> its file, and the part under which that file keeps it
    notes: tuple[str, ...]


def compose(high: Path | str, low: Path | str | None = None, shared: Path | str | None = None) -> Composed:
    """Put files together; `low` and `shared` default to the file of the high-noise expert. No weight but two small
    ones is read.

    Raises:
        CheckpointError, ConfigError: a file is damaged, another model, in the wrong place, or of other sizes.
    """
    first = open_single(high)
    second = first if low is None or Path(low) == first.path else open_single(low)
    third = first if shared is None or Path(shared) == first.path else open_single(shared)
    held = {
        HIGH: (first, HIGH),
        LOW: (second, _low_part(first, second)),
        AUDIO: (third, AUDIO),
        BRIDGE: (third, BRIDGE),
    }
    _check_slots(held)
    video = [_tower(*held[part]) for part in (HIGH, LOW)]
    if video[0] != video[1]:
        raise CheckpointError(
            f"{first.path} and {second.path} are experts of different sizes; choose two files of one model"
        )
    model = configs.named(
        str(third.path), MovaConfig, video=video[0], audio=_tower(third, AUDIO), bridge=_bridge(third)
    )
    scheduler, audio_shift = _scheduler(first)
    places = {part: (file.path, kept) for part, (file, kept) in held.items()}
    return Composed(
        kin=first.kin.name,
        model=model,
        scheduler=scheduler,
        audio_shift=audio_shift,
        frames=first.kin.frames,
        places=places,
        notes=tuple(_unverified(held)),
    )


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A joint model whose video tower is there already: sizes, defaults, and its experts' fingerprints."""

    model: MovaConfig
    scheduler: SchedulerConfig
    audio_shift: float | None  # None: the video's
    experts: dict[str, str]


def open_shared(path: Path | str, video: TowerConfig) -> Shared:
    """The file that gives a video tower of these sizes its audio tower and its bridge.

    Raises:
        CheckpointError, ConfigError: the file holds something else, or is of other sizes.
    """
    file = open_single(path)
    _check_slots({AUDIO: (file, AUDIO), BRIDGE: (file, BRIDGE)})
    model = configs.named(str(path), MovaConfig, video=video, audio=_tower(file, AUDIO), bridge=_bridge(file))
    scheduler, audio_shift = _scheduler(file)
    shift = None if audio_shift == scheduler.shift else audio_shift
    return Shared(model=model, scheduler=scheduler, audio_shift=shift, experts=file.stated(EXPERTS))


def _low_part(first: Single, second: Single) -> str:
    """Under which part the low-noise expert is kept: its own where there is one, else the file's only tower."""
    if LOW in second.shapes:
        return LOW
    if second is first:
        raise CheckpointError(
            f"{first.path} holds {first.contents()}, and no low-noise expert; choose that one's file too"
        )
    return HIGH


def _check_slots(held: Mapping[str, tuple[Single, str]]) -> None:
    for part, (file, kept) in held.items():
        wanted = IN_WORDS[part] if part in (HIGH, LOW) else IN_WORDS[SHARED]
        found = detect.describe(file.shapes[kept]) if kept in file.shapes else ""
        fits = {AUDIO: ("the MOVA audio tower",), BRIDGE: ("the MOVA bridge",)}.get(part, EXPERT_KINDS)
        if not found.startswith(fits):
            raise CheckpointError(
                f"{file.path} holds {file.contents()}; wanted here is {wanted} of MOVA. Choose the file that holds it, "
                "or convert a downloaded folder (docs/files.md)"
            )
        stated = file.header.metadata.get(PART)
        if kept == HIGH and stated in (HIGH, LOW) and stated != part:
            raise CheckpointError(f"{file.path} is {IN_WORDS[stated]}; wanted here is {wanted}. Swap the two files")
        _refuse_named_wan(file)
    named = {_model(file): file.path for file, _ in held.values() if _model(file)}
    if len(named) > 1:
        raise CheckpointError(
            f"the files belong to different models: {', '.join(f'{path} to {name}' for name, path in named.items())}. "
            "Their parts were trained together; choose files of one"
        )


def _model(file: Single) -> str:
    """The checkpoint a file belongs to; empty where nothing says."""
    return file.header.metadata.get(MODEL, "" if file.kin is MOVA_FILES else file.kin.name)


def _refuse_named_wan(file: Single) -> None:
    """Wan 2.2's experts have the same keys and shapes as MOVA's; a header that names the model tells them apart."""
    for key, text in file.header.metadata.items():
        name = text.lower().replace("_", " ").replace("-", " ")
        if key.endswith(("title", "name", "architecture")) and "wan" in name and "mova" not in name:
            raise CheckpointError(
                f"{file.path} is {text[:80]!r} by its own header, not MOVA; Wan's experts have MOVA's shapes but were "
                "never trained beside sound. Choose a MOVA expert"
            )


def _tower(file: Single, part: str) -> TowerConfig:
    named = file.stated(CONFIG)
    stated = next((named[name] for name in (file.header.metadata.get(PART), part, HIGH) if name in named), None)
    where = f"{file.path} ({IN_WORDS[part]})"
    if stated is None:
        return detect.tower_config(file.shapes[part], where)
    config = configs.tower_config(stated, where)
    agree(config, detect.tower_config(file.shapes[part], where, config.heads, config.eps), file.path)
    return config


def _bridge(file: Single) -> BridgeConfig:
    stated = file.stated(CONFIG).get(BRIDGE)
    where = f"{file.path} (the bridge)"
    if stated is None:
        return detect.bridge_config(file.shapes[BRIDGE], where)
    config = configs.bridge_config(stated, where)
    agree(config, detect.bridge_config(file.shapes[BRIDGE], where, config.head_width, config.audio_rate), file.path)
    return config


def _scheduler(file: Single) -> tuple[SchedulerConfig, float]:
    """The schedule, and the audio's shift: what the header says, else the family's."""
    stated = file.stated(CONFIG)
    if "scheduler" not in stated:
        return file.kin.scheduler, file.kin.audio_shift
    config = configs.scheduler_config(stated["scheduler"], stated.get("model_index", {}), str(file.path))
    return config, config.shift


# --- is it MOVA? ---------------------------------------------------------------------------------------------------


def fingerprint(head_modulation: Tensor) -> str:
    """A name for an expert that its precision does not change: a hash of a small weight that stays in bfloat16."""
    values = head_modulation.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
    return hashlib.sha256(values).hexdigest()[:16]


def _unverified(held: Mapping[str, tuple[Single, str]]) -> list[str]:
    """What cannot be told from these files: whether an expert is MOVA's, since Wan 2.2's have the same shapes."""
    belonging = held[BRIDGE][0].stated(EXPERTS)
    notes = []
    for part in (HIGH, LOW):
        file, kept = held[part]
        known = PART in file.header.metadata or held[BRIDGE][0] is file
        expected = belonging.get(part)
        if expected is not None:
            found = fingerprint(read_part(file.path, kept, only="head.modulation")["head.modulation"])
            other = LOW if part == HIGH else HIGH
            if found == belonging.get(other) and found != expected:
                raise CheckpointError(f"{file.path} is {IN_WORDS[other]} of MOVA; swap the two expert files")
            if found != expected:
                notes.append(
                    f"{file.path.name} is not the expert that the shared file was made with: a fine-tune of MOVA's, "
                    "or one of Wan 2.2, which has the same shapes but was never trained beside sound."
                )
        elif not known:
            notes.append(
                f"{file.path.name} may be MOVA's or Wan 2.2's expert: they have the same keys and shapes, and nothing "
                "in the file says. Only MOVA's was trained beside sound."
            )
    return notes


# --- tensors -------------------------------------------------------------------------------------------------------


def read_part(path: Path, part: str, read: Read = read_tensors, *, only: str = "") -> dict[str, Tensor]:
    """The tensors of one part of a file, under its own names; with `only`, just that one.

    float8 weights with scales get the mark by which ComfyUI knows the format, whatever wrote them.
    """
    return {key: value for key, value in marked(parts(read(path)).get(part, {})).items() if only in ("", key)}


def marked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `comfy_quant` beside each scaled float8 weight that lacks it. Scales may be one a row."""
    out = dict(tensors)
    for key, tensor in tensors.items():
        layer = key.removesuffix(".weight")
        scaled = tensor.dtype == torch.float8_e4m3fn and f"{layer}.weight_scale" in tensors
        if scaled and f"{layer}.{MARK}" not in tensors:
            out[f"{layer}.{MARK}"] = FP8.configuration()
    return out


def composed_tensors(composed: Composed, expert: str, read: Read = read_tensors) -> dict[str, Tensor]:
    """The weights of one expert (HIGH or LOW), the audio tower and the bridge under the joint model's names."""
    shared = {f"{part}.{k}": v for part in (AUDIO, BRIDGE) for k, v in read_part(*composed.places[part], read).items()}
    return {**read_part(*composed.places[expert], read), **shared}


def single_audio_vae(path: Path | str, read: Read = read_tensors) -> tuple[AudioVAEConfig, dict[str, Tensor]]:
    """Configuration and folded weights of a codec in one file, in either key style.

    Raises:
        CheckpointError, ConfigError: damaged, or not a DAC.
    """
    file = open_single(path)
    if detect.describe(file.header.shapes) != "a DAC audio VAE":
        raise CheckpointError(
            f"{file.path} holds {detect.describe(file.header.shapes)}; wanted here is the DAC audio VAE of MOVA, "
            "audio_vae/diffusion_pytorch_model.safetensors of the downloaded folder or a converted file"
        )
    tensors = fold_weight_norm(read(file.path))
    found = detect.audio_vae_config({key: tuple(value.shape) for key, value in tensors.items()}, str(file.path))
    stated = file.stated(CONFIG).get("audio_vae")
    return (found if stated is None else configs.audio_vae_config(stated, str(file.path))), tensors
