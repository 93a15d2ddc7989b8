"""Recordings -> a cached data set: each window encoded once, kept under a key of everything it came from.

A clip's file holds what the model is shown of it, on the model's own scale: video latents, the latents of its first
picture, audio latents. Prompts have files of their own, so that a better caption costs no new encoding of the picture.

Axes: F pictures, H W pixels, S samples.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import Input, InputImpl
from torch import Tensor

from ....mova_core.checkpoint.files import read_header, read_tensors
from ....mova_core.errors import CheckpointError, MovaError
from ....mova_core.image import condition_clip
from ....mova_core.inputs.numbers import real
from ....mova_core.shapes import DEFAULT_FPS, audio_samples
from ....mova_core.text import pad_context
from ....mova_core.training import captions, clips, files
from .. import newer
from ..loaders import text, vaes
from ..loaders.audio_vae import MovaAudioVAE
from ..media import recordings
from ..media.recordings import Piece, RecordingSource
from .told import Told

log = logging.getLogger("mova")
CLIPS_FOLDER = "mova_training"
CLIP_AXES, PROMPT_AXES = {"video": 5, "image": 5, "audio": 3}, {"context": 2}
VERSION = "1"  # of what is in a cached file
READ = 2**22  # bytes hashed at once
NAMED = 8  # clips that cannot be read, in one message


@dataclass(frozen=True)
class Clip:
    """One window of a recording, encoded. `audible`: whether its sound is learned."""

    name: str
    caption: str
    media: Path
    prompt: Path
    frames: int
    height: int
    width: int
    audible: bool


@dataclass(frozen=True)
class DataSet:
    """What 'MOVA Train LoRA' trains on. `blank` is the empty prompt, for captions that are left out."""

    clips: tuple[Clip, ...]
    blank: Path
    report: str


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How clips are made of recordings. `level`: dB of loudness, None leaves it."""

    frames: int
    height: int
    width: int
    cut: str
    sizes: str
    level: float | None


@dataclass(frozen=True)
class Coders:
    """What encodes: both VAEs and the text encoder, as they come into the node."""

    vae: comfy.sd.VAE
    audio_vae: MovaAudioVAE
    clip: comfy.sd.CLIP


def folder() -> Path:
    """Where the pack keeps what it trains on and what it makes, in ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory()) / CLIPS_FOLDER


def input_folder(name: str) -> Path:
    """The folder a user means: a whole path, or one in ComfyUI's input folder."""
    home = os.path.expanduser(name.strip().strip("\"'"))  # noqa: PTH111, Path's raises where there is no such user
    return Path(folder_paths.get_input_directory(), home)


def from_folder(name: str, default: str) -> list[tuple[RecordingSource, str]]:
    """Recordings with captions, of a folder.

    Raises:
        MovaError: as `captions.recordings`.
    """
    if not name.strip():
        raise MovaError("no folder of clips; write its path, or connect videos and captions")
    place = input_folder(name)
    return [(RecordingSource(each.path.name, each.path), each.caption) for each in captions.recordings(place, default)]


def not_trained_on(name: str) -> list[str]:
    """Files of a folder that somebody may believe are trained on."""
    return captions.left_out(input_folder(name))


def from_lists(videos: Sequence[Input.Video], texts: Sequence[str], default: str) -> list[tuple[RecordingSource, str]]:
    """Recordings with captions, of lists such as ComfyUI's data set nodes give.

    Raises:
        MovaError: not as many captions as videos, or an empty caption.
    """
    if len(texts) not in (0, len(videos)):
        raise MovaError(f"{len(videos)} videos and {len(texts)} captions; connect one caption for each video, in order")
    found = []
    for number, video in enumerate(videos, 1):
        made = isinstance(video, InputImpl.VideoFromComponents)  # which ComfyUI itself would hand on compressed
        content, *part = (newer.written(video), 0.0, 0.0) if made else newer.stream_of(video)
        named = f"video {number}" if isinstance(content, BytesIO) else Path(content).name
        caption = (texts[number - 1].strip() if texts else "") or default.strip()
        if not caption:
            raise MovaError(f"{named} has no caption; connect captions, or give a default caption")
        source = content if isinstance(content, BytesIO) else Path(content)
        found.append((RecordingSource(named, source, *part), caption))
    return found


def build(
    sources: Sequence[tuple[RecordingSource, str]],
    prefix: str,
    wishes: Wishes,
    coders: Coders,
    others: Sequence[str] = (),
) -> DataSet:
    """Encode what is not in the cache yet; `others` are files of the folder that are not trained on, for the report.

    Raises:
        MovaError: a recording cannot be read, or none of them is long enough.
    """
    probes = _probed([source for source, _ in sources])
    prints = _prints(coders)
    bar, told, made = comfy.utils.ProgressBar(len(sources)), Told(others), list[Clip]()
    for (source, caption), found in zip(sources, probes, strict=True):
        cuts = clips.windows(found.seconds, wishes.frames, wishes.cut)
        size = clips.bucket((found.height, found.width), (wishes.height, wishes.width), wishes.sizes)
        told.look(source.name, found, size, windows=len(cuts))
        prompt = _prompt(f"{prefix.strip()} {caption}".strip(), coders.clip, prints.text, told)
        content = _content(source) if cuts else ""
        keys = [_key(content, source, window, size, wishes, prints.media) for window in cuts]
        if not all(_is_kept(path, CLIP_AXES) for path in keys):
            _encode(recordings.pieces(source, found, cuts, size, coders.audio_vae.audio_grid), keys, wishes, coders)
            told.encoded += len(keys)
        for number, (window, path) in enumerate(zip(cuts, keys, strict=True), 1):
            name = source.name if len(cuts) == 1 else f"{source.name} #{number}"
            audible = _audible(path, name, found.sound, told)
            if number == 1 and (twin := next((clip.name for clip in made if clip.media == path), "")):
                told.add("same", f"{source.name} ({twin.removesuffix(' #1')})")
            made.append(Clip(name, caption, path, prompt, window.frames, *size, audible))
        bar.update(1)
    if not made:
        raise MovaError(
            f"every one of {len(sources)} clips is shorter than {clips.SHORTEST} pictures at 24 a second: {told.few('short')}"
        )
    report = told.report(made)
    log.info("%s", report)
    return DataSet(tuple(made), _prompt("", coders.clip, prints.text, told), report)


def _probed(sources: Sequence[RecordingSource]) -> list[recordings.Probe]:
    """What is known of each, before any is encoded.

    Raises:
        MovaError: some cannot be read; all of them are told.
    """
    found, bad = [], []
    for source in sources:
        comfy.model_management.throw_exception_if_processing_interrupted()
        try:
            found.append(recordings.probe(source))
        except MovaError as error:
            bad.append(str(error))
    if bad:
        more = f"\nand {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise MovaError("\n".join(bad[:NAMED]) + more)
    return found


@dataclass(frozen=True)
class _Prints:
    media: str
    text: str


def _prints(coders: Coders) -> _Prints:
    """What tells these encoders from others.

    Raises:
        MovaError: a VAE whose weights cannot be looked at.
    """
    if not isinstance(coders.vae, comfy.sd.VAE):
        raise MovaError(
            f"vae: {type(coders.vae).__name__} is another kind of VAE, whose weights cannot be looked at; connect that of "
            "'MOVA Loader', or wan_2.1_vae"
        )
    media = [_print(coders.vae.first_stage_model), _print(coders.audio_vae.first_stage_model)]
    return _Prints("-".join(media), _print(coders.clip.cond_stage_model))


def _print(module: torch.nn.Module) -> str:
    """Names and shapes of a module's weights, and the values of the smallest that are there."""
    state = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    digest = hashlib.sha256("".join(f"{name}{tuple(t.shape)}" for name, t in sorted(state.items())).encode())
    there = [name for name, t in state.items() if not t.is_meta and type(t) in (Tensor, torch.nn.Parameter)]
    for name in sorted(there, key=lambda name: (state[name].numel(), name))[:16]:
        digest.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _key(
    content: str, source: RecordingSource, window: clips.Window, size: tuple[int, int], wishes: Wishes, prints: str
) -> Path:
    told = (VERSION, content, source.start, source.duration, window.start, window.frames, size, wishes.level)
    digest = hashlib.sha256(repr((*told, prints)).encode()).hexdigest()[:32]
    return folder() / "clips" / f"{digest}.safetensors"


def _content(source: RecordingSource) -> str:
    """Of a recording's bytes: the same clip under another name is the same."""
    digest = hashlib.sha256()
    if isinstance(source.content, BytesIO):
        digest.update(source.content.getbuffer())
        return digest.hexdigest()
    with source.content.open("rb") as file:
        while block := file.read(READ):
            digest.update(block)
    return digest.hexdigest()


def _prompt(caption: str, clip: comfy.sd.CLIP, prints: str, told: Told) -> Path:
    """The file of a prompt's embeddings, encoded as 'MOVA Text Encode' does; rows of zeros at its end are left out."""
    digest = hashlib.sha256(repr((VERSION, caption, prints)).encode()).hexdigest()[:32]
    path = folder() / "prompts" / f"{digest}.safetensors"
    ids, cut = text.prompt_ids(clip, caption)
    if cut:
        told.add("cut", f"{caption[:40]}... ({cut} tokens)")
    if not _is_kept(path, PROMPT_AXES):
        rows = text.rows(text.encode(clip, ids))[0].cpu()
        files.write(path, {"context": rows[: len(ids)].clone()}, {"caption": caption})
    return path


def _encode(pieces: Iterable[Piece], paths: Sequence[Path], wishes: Wishes, coders: Coders) -> None:
    """Write the files of a recording's windows."""
    scale = comfy.latent_formats.Wan21()
    for piece, path in zip(pieces, paths, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        shown = piece.pictures.float() / 255  # (F, H, W, 3)
        first = condition_clip(2 * shown[:1].movedim(-1, 1) - 1, len(shown))
        video, image = (vaes.encoded(coders.vae, each) for each in (shown, (first[0].movedim(0, -1) + 1) / 2))
        tensors = {"video": scale.process_in(video), "image": scale.process_in(image)}
        loud = -120.0 if piece.sound is None else clips.loudness(piece.sound)
        heard = piece.sound
        if heard is None:
            heard = torch.zeros(1, audio_samples(len(shown), DEFAULT_FPS, coders.audio_vae.audio_grid))
        elif wishes.level is not None:
            heard = clips.as_loud(heard, wishes.level)
        tensors["audio"] = coders.audio_vae.encode(heard[..., None])
        kept = {name: tensor.float().cpu().contiguous().clone() for name, tensor in tensors.items()}
        files.write(path, kept, {"loudness": f"{loud:.2f}", "frames": str(len(shown))})


def _audible(path: Path, name: str, track: bool, told: Told) -> bool:
    if not track:
        return False
    loud = _loudness(path)
    if loud <= clips.SILENT_CLIP_DB:
        told.add("silent", f"{name} ({loud:.0f} dB)")
    return loud > clips.SILENT_CLIP_DB


def media(clip: Clip) -> dict[str, Tensor]:
    """`video` and `image` (1, 16, T, h, w) on the model's scale, `audio` (1, C, A).

    Raises:
        CheckpointError: the cache was emptied or damaged.
    """
    return _cached(clip.media, CLIP_AXES)


def context(path: Path) -> Tensor:
    """(1, 512, width) embeddings of a prompt.

    Raises:
        CheckpointError: the cache was emptied or damaged.
    """
    return pad_context(_cached(path, PROMPT_AXES)["context"][None])


def _cached(path: Path, axes: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors of a cached file, in memory of their own; `axes`: how many each has."""
    return {name: tensor.clone() for name, tensor in _whole(path, axes).items()}


def _whole(path: Path, axes: Mapping[str, int]) -> dict[str, Tensor]:
    """The same as they lie in the file."""
    try:
        found = read_tensors(path)
        finite = all(tensor.is_floating_point() and torch.isfinite(tensor).all() for tensor in found.values())
        if not finite or {name: tensor.ndim for name, tensor in found.items()} != axes:
            raise CheckpointError("it is not what was written")
    except CheckpointError as error:
        raise CheckpointError(
            f"{path.name} of the data set's cache is gone or damaged; run 'MOVA Training Clips' again ({error!s:.120})"
        ) from error
    return found


def _loudness(path: Path) -> float:
    """dB of the sound in a clip's file."""
    try:
        return real(float(read_header(path).metadata["loudness"]))
    except (MovaError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} of the data set's cache is gone or damaged; run 'MOVA Training Clips' again"
        ) from error


def _is_kept(path: Path, axes: Mapping[str, int]) -> bool:
    """Whether a file lies in the cache and is whole: what is not is made again."""
    try:
        _whole(path, axes)
        if "audio" in axes:
            _loudness(path)
    except CheckpointError:
        return False
    return True
