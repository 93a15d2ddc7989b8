"""One source of weights: a published folder and single files make the same Source, which is inspected and read one way.

A published folder holds video_dit (high-noise expert), video_dit_2 (low-noise expert), audio_dit, dual_tower_bridge,
audio_vae, video_vae, text_encoder, tokenizer, scheduler and model_index.json. What single files hold is read from their
headers, never from their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from ..config import AudioVAEConfig, MovaConfig, SchedulerConfig, TowerConfig
from ..errors import CheckpointError
from ..shapes import PUBLISHED_GRID, AudioGrid
from . import configs, detect
from .files import Read, is_folder, read_tensors
from .fingerprint import expert_fingerprint
from .variants import AUDIO, BRIDGE, HIGH, LOW, MODEL_PARTS, PRISM, ModelVariant
from .weight_file import (
    AUDIO_VAE,
    COMPONENT_MARK,
    IN_WORDS,
    INDEX,
    SCHEDULER,
    SHARED,
    PartFile,
    WeightFile,
    open_component,
    open_file,
)
from .weight_norm import fold_weight_norm

EXPERT_KINDS = ("a Wan image-to-video expert", "a Wan model (")  # as `detect.describe` calls what may be an expert
CODECS = ("a DAC audio VAE", "the decode half of a DAC audio VAE")
PART_KINDS = {AUDIO: ("the MOVA audio tower",), BRIDGE: ("the MOVA bridge",)}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A joint model on disk: sizes, defaults, where each part lies, and what could not be verified.

    `codec` is the audio codec's, where the files say it; `experts` are the fingerprints of the experts that belong to
    audio tower and bridge, where known.
    """

    place: str
    variant: ModelVariant
    model: MovaConfig
    scheduler: SchedulerConfig
    audio_shift: float
    codec: AudioVAEConfig | None
    parts: dict[str, PartFile]
    experts: dict[str, str]
    notes: tuple[str, ...]

    @property
    def audio_grid(self) -> AudioGrid:
        """How the codec counts sound: what the files say, else the published codec's."""
        if self.codec is None:
            return PUBLISHED_GRID
        return AudioGrid(sample_rate=self.codec.sample_rate, hop_length=self.codec.hop_length)

    def files(self) -> dict[str, list[Path]]:
        """Part -> the files it is read from."""
        return {name: list(part.file.files) for name, part in self.parts.items()}

    def tensors(self, *parts: str, read: Read = read_tensors) -> dict[str, dict[str, Tensor]]:
        """The tensors of these parts, or of all, under the part's own names. A file of several parts is read once."""
        once = cache(read)
        return {part: self.parts[part].tensors(once) for part in parts or self.parts}


def joint_names(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by part -> under the joint model's names, whose video tower, of either expert, has no prefix."""
    prefixes = {HIGH: "", LOW: ""}
    return {f"{prefixes.get(part, f'{part}.')}{key}": v for part, held in parts.items() for key, v in held.items()}


def from_folder(folder: Path | str) -> Source:
    """A published folder, whose headers and configurations are read and found whole. No weight is read.

    Raises:
        CheckpointError, ConfigError: what is missing, damaged, or not MOVA.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise CheckpointError(f"{folder} is not a folder. Choose the folder that holds model_index.json and video_dit")
    absent = [name for name in MODEL_PARTS if not is_folder(folder / name)]
    if absent:
        wan = BRIDGE in absent and {"transformer_2", LOW} & {p.name for p in folder.iterdir()}
        hint = " It looks like Wan 2.2, which has no audio tower and no bridge." if wan else ""
        which = "the whole MOVA folder" if len(absent) == len(MODEL_PARTS) else f"{' and '.join(absent)} of it"
        raise CheckpointError(f"{folder} lacks {', '.join(absent)}.{hint} Download {which}")
    parts = {part: PartFile(part=part, file=open_component(folder, part), kept=HIGH) for part in MODEL_PARTS}
    return _source(parts, str(folder))


def from_files(
    high: Path | str, low: Path | str | None = None, shared: Path | str | None = None, bridge: Path | str | None = None
) -> Source:
    """Put single files together; `low` and `shared` default to the file of the high-noise expert, `bridge` to that of
    the audio tower. No weight but two small ones is read.

    Raises:
        CheckpointError, ConfigError: a file is damaged, another model, in the wrong place, or of other sizes.
    """
    opened = cache(open_file)
    first = opened(Path(high))
    second, third = (first if path is None else opened(Path(path)) for path in (low, shared))
    fourth = third if bridge is None else opened(Path(bridge))
    if LOW not in second.shapes and second is first:
        raise CheckpointError(
            f"{first.place} holds {first.contents()}, and no low-noise expert; choose that one's file too"
        )
    held = {HIGH: first, LOW: second, AUDIO: third, BRIDGE: fourth}
    parts = {part: PartFile(part=part, file=file, kept=_kept(file, part)) for part, file in held.items()}
    _check_slots(parts)
    return _source(parts, str(first.place), tuple(_unverified(parts)))


def sound_of(path: Path | str, video: TowerConfig, bridge: Path | str | None = None) -> Source:
    """Audio tower and bridge, for a video tower of these sizes that is there already.

    Raises:
        CheckpointError, ConfigError: a file holds something else, or is of other sizes.
    """
    file = open_file(path)
    held = {AUDIO: file, BRIDGE: file if bridge is None else open_file(bridge)}
    parts = {part: PartFile(part=part, file=file, kept=_kept(file, part)) for part, file in held.items()}
    _check_slots(parts)
    return _source(parts, str(path), video=video)


def _source(
    parts: dict[str, PartFile], place: str, notes: tuple[str, ...] = (), video: TowerConfig | None = None
) -> Source:
    towers = [parts[part].tower() for part in (HIGH, LOW) if part in parts]
    if towers and towers[0] != towers[1]:
        raise CheckpointError(
            f"{parts[HIGH].file.place} and {parts[LOW].file.place} differ: they are experts of different sizes, of "
            "different models. Choose or download two of one model"
        )
    sizes = configs.named(
        str(parts[BRIDGE].file.place),
        MovaConfig,
        video=towers[0] if video is None else video,
        audio=parts[AUDIO].tower(),
        bridge=parts[BRIDGE].bridge(),
    )
    first = next(iter(parts.values())).file
    scheduler, audio_shift = _scheduler(first)
    return Source(
        place=place,
        variant=first.variant,
        model=sizes,
        scheduler=scheduler,
        audio_shift=audio_shift,
        codec=next((codec for part in parts.values() if (codec := _codec(part.file))), None),
        parts=parts,
        experts=parts[BRIDGE].file.experts(),
        notes=(*notes, *dict.fromkeys(note for part in parts.values() for note in part.file.notes)),
    )


def _scheduler(file: WeightFile) -> tuple[SchedulerConfig, float]:
    """The schedule, and the audio's shift: what the files say, else the variant's."""
    if SCHEDULER not in file.configs:
        return file.variant.scheduler, file.variant.audio_shift
    stated, where = file.configs[SCHEDULER]
    config = configs.scheduler_config(stated, file.configs.get(INDEX, ({}, ""))[0], where)
    return config, config.shift


def _codec(file: WeightFile) -> AudioVAEConfig | None:
    return configs.audio_vae_config(*file.configs[AUDIO_VAE]) if AUDIO_VAE in file.configs else None


# --- what lies in which place --------------------------------------------------------------------------------------


def _kept(file: WeightFile, part: str) -> str:
    """Under which part's names a file keeps `part`: its own, or the root's, as a file of one component does."""
    return part if part in file.shapes else HIGH


def _check_slots(parts: Mapping[str, PartFile]) -> None:
    apart = parts[AUDIO].file is not parts[BRIDGE].file
    for name, part in parts.items():
        wanted = IN_WORDS[name] if apart or name in (HIGH, LOW) else IN_WORDS[SHARED]
        found = detect.describe(part.shapes) if part.kept in part.file.shapes else ""
        if not found.startswith(PART_KINDS.get(name, EXPERT_KINDS)):
            raise CheckpointError(
                f"{part.file.place} holds {part.file.contents()}; wanted here is {wanted} of MOVA. Choose the file "
                "that holds it, or convert a downloaded folder: docs/files.md of this pack"
            )
        stated = part.file.component
        if part.kept == HIGH and stated in (HIGH, LOW) and stated != name:
            raise CheckpointError(
                f"{part.file.place} is {IN_WORDS[stated]}; wanted here is {wanted}. Swap the two files"
            )
        _refuse_named_wan(part.file)
    named = {part.file.model_name: part.file.place for part in parts.values() if part.file.model_name}
    if len(named) > 1:
        raise CheckpointError(
            "the files belong to different models: "
            f"{', '.join(f'{path} to {name:.60}' for name, path in named.items())}. "
            "Their parts were trained together; choose files of one"
        )


def _refuse_named_wan(file: WeightFile) -> None:
    """Wan 2.2's experts have the same keys and shapes as MOVA's; a header that names the model tells them apart."""
    for key, text in file.metadata.items():
        name = text.lower().replace("_", " ").replace("-", " ")
        if key.endswith(("title", "name", "architecture")) and "wan" in name and "mova" not in name:
            raise CheckpointError(
                f"{file.place} is {text[:80]!r} by its own header, not MOVA; Wan's experts have MOVA's shapes but were "
                "never trained beside sound. Choose a MOVA expert"
            )


def _unverified(parts: Mapping[str, PartFile]) -> list[str]:
    """What cannot be told from these files: whether an expert is MOVA's, since Wan 2.2's have the same shapes."""
    belonging = parts[BRIDGE].file.experts()
    notes = []
    for name in (HIGH, LOW):
        part, expected = parts[name], belonging.get(name)
        file = part.file
        known = COMPONENT_MARK in file.metadata or file.variant is PRISM or parts[BRIDGE].file is file
        if expected is not None:
            found = expert_fingerprint(part.tensors(read_tensors, only="head.modulation")["head.modulation"])
            other = LOW if name == HIGH else HIGH
            if found == belonging.get(other) and found != expected:
                raise CheckpointError(f"{file.place} is {IN_WORDS[other]} of MOVA; swap the two expert files")
            if found != expected:
                notes.append(
                    f"{file.place.name} is not the expert that the shared file was made with: a fine-tune of MOVA's, "
                    "or one of Wan 2.2, which has the same shapes but was never trained beside sound."
                )
        elif not known:
            notes.append(
                f"{file.place.name} may be MOVA's or Wan 2.2's expert: they have the same keys and shapes, and nothing "
                "in the file says. Only MOVA's was trained beside sound."
            )
    return notes


# --- the audio codec -----------------------------------------------------------------------------------------------


def audio_vae(place: Path | str, read: Read = read_tensors) -> tuple[AudioVAEConfig, dict[str, Tensor]]:
    """Configuration and folded weights of the codec: of a published folder, of its audio_vae folder, or of one file, in
    either key style.

    Raises:
        CheckpointError, ConfigError: missing, damaged, or not a DAC.
    """
    place = Path(place)
    if is_folder(place):
        whole = is_folder(place / AUDIO_VAE) or (place / "model_index.json").is_file()
        folder = place if whole else place.parent
        file = open_component(folder, AUDIO_VAE if whole else place.name)
    else:
        file = open_file(place)
    kind = detect.describe(file.shapes.get(HIGH, {}))
    if kind not in CODECS:
        raise CheckpointError(
            f"{file.place} holds {kind}; wanted here is the DAC audio VAE of MOVA, "
            "audio_vae/diffusion_pytorch_model.safetensors of the downloaded folder or a converted file"
        )
    tensors = fold_weight_norm(file.plain(read))
    stated = file.configs.get(AUDIO_VAE if file.place.name == AUDIO_VAE or not is_folder(place) else file.place.name)
    if stated is not None:
        return configs.audio_vae_config(*stated), tensors
    return detect.audio_vae_config(
        {key: tuple(value.shape) for key, value in tensors.items()}, str(file.files[0])
    ), tensors
