"""What a sampling run leaves on disk on its way, so that the same run can go on after a crash or a cancel.

A run has a folder, named by a hash of its inputs. In it lies `state.safetensors`: a joint latent of how the clip stands
(what `latents` reads), what the sampler needs to go on (`x`, `denoised`), and in the header what the run was made of.
Samplers that remember more than that also leave every answer of the model: `00000.safetensors` and so on. `result` is a
finished clip that waits to be decoded.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from ..checkpoint.files import read_header
from ..checkpoint.whole_file import LEFT, STALE_PART_SECONDS, being_written, listed, write_whole
from ..errors import CheckpointError, MovaError
from .latents import JointLatent, notes_of, read_latent, tensors_of

RUN = "mova_run"
STATE_FILE, RESULT_FILE = "state.safetensors", "result.safetensors"
ANSWER = re.compile(r"\d{5}\.safetensors")
FOLDER = re.compile(r"[0-9a-f]{32}")
ANEW = "the run begins anew"
MOST_RUNS, MOST_BYTES = 16, 24 * 10**9


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a run has come: `step` of `steps` begins next, or was answered last.

    `parts`: name -> hash of what the run was made of; `noise`: hash of the noised latent it began with; `seed`: the one
    being tried. `x` and `denoised` are packed latents, None where the sampler's way needs none.
    """

    way: str
    step: int
    steps: int
    seed: int
    noise: str
    device: str
    parts: Mapping[str, str]
    x: Tensor | None = None
    denoised: Tensor | None = None
    shown: JointLatent | None = None  # for people; not read back


def write_state(folder: Path, state: RunState) -> None:
    """Replace a run's state; whole or not at all.

    Raises:
        CheckpointError: the disk did not take it.
    """
    plain = {"way": state.way, "step": str(state.step), "steps": str(state.steps), "seed": str(state.seed)}
    notes = {RUN: "1", **plain, "noise": state.noise, "device": state.device, "parts": json.dumps(dict(state.parts))}
    tensors = {name: part for name, part in (("x", state.x), ("denoised", state.denoised)) if part is not None}
    shown = {} if state.shown is None else tensors_of(state.shown)
    if state.shown is not None:
        notes |= notes_of(state.shown)
    write_whole(folder / STATE_FILE, {**tensors, **shown}, notes)


def read_state(folder: Path, tensors: bool = True) -> RunState:
    """A run's state; without `tensors` its header alone.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / STATE_FILE
    header = read_header(path, ANEW)
    notes = header.metadata
    try:
        parts = json.loads(notes["parts"])
        if notes.get(RUN) != "1" or not isinstance(parts, dict):
            raise ValueError("its header is not that of a run")
        found = _tensors(path, {"x", "denoised"} & header.shapes.keys()) if tensors else {}
        if any(not torch.isfinite(part).all() for part in found.values()):
            raise ValueError("it holds NaN")
        return RunState(
            way=notes["way"],
            step=_number(notes["step"]),
            steps=_number(notes["steps"]),
            seed=_number(notes["seed"]),
            noise=notes["noise"],
            device=notes["device"],
            parts={str(name): str(part) for name, part in parts.items()},
            x=found.get("x"),
            denoised=found.get("denoised"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"the state of a run in {path} is damaged: {error!s:.300}") from error


def write_answer(folder: Path, number: int, answer: Tensor, noise: str) -> None:
    """Keep the model's answer to evaluation `number` of a run.

    Raises:
        CheckpointError: the disk did not take it.
    """
    write_whole(folder / f"{number:05d}.safetensors", {"denoised": answer}, {RUN: "1", "noise": noise})


def read_answer(folder: Path, number: int) -> Tensor:
    """Raises CheckpointError where it is not there, damaged or not finite."""
    path = folder / f"{number:05d}.safetensors"
    answer = _tensors(path, {"denoised"})["denoised"]
    if not torch.isfinite(answer).all():
        raise CheckpointError(f"{path} holds NaN")
    return answer


def has_answer(folder: Path, number: int) -> bool:
    """Whether the answer to evaluation `number` lies there, whole or not."""
    return _is_there(folder / f"{number:05d}.safetensors")


def count_answers(folder: Path, noise: str, shape: Sequence[int]) -> int:
    """How many evaluations of the run that began with this noise have their answer there, without a gap."""
    number = 0
    while True:
        path = folder / f"{number:05d}.safetensors"
        try:
            header = read_header(path)
        except CheckpointError:
            return number
        if header.metadata.get("noise") != noise or header.shapes.get("denoised") != tuple(shape):
            return number
        number += 1


def is_kept(folder: Path) -> bool:
    """Whether a run's state lies there, whole or not."""
    return _is_there(folder / STATE_FILE)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no right to look
        return False


def forget(folder: Path, but: str = "") -> None:
    """Remove a run's files, one kept by its name, and its folder if that leaves it empty; what others hold stays."""
    for path in listed(folder):
        own = path.name in (STATE_FILE, RESULT_FILE) or ANSWER.fullmatch(path.name)
        if path.name != but and (own or (LEFT.fullmatch(path.name) and not being_written(path))):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue
    try:
        folder.rmdir()
    except OSError:  # not empty, or not there
        return


def read_result(folder: Path) -> tuple[JointLatent, int]:
    """A finished run's latent, and the seed it was made with.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    notes = read_header(folder / RESULT_FILE, ANEW).metadata
    try:
        return read_latent(folder / RESULT_FILE), _number(notes["seed"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the latent in {folder / RESULT_FILE} is damaged: {error!s:.300}") from error


def states(root: Path) -> Iterator[RunState]:
    """The headers of all runs that can go on."""
    for folder in _runs(root):
        try:
            yield read_state(folder, tensors=False)
        except MovaError:
            continue


def make_room(
    root: Path, needed: int, but: Path, most_runs: int = MOST_RUNS, most_bytes: int = MOST_BYTES
) -> list[str]:
    """Remove the runs that were written to longest ago until one more of `needed` bytes is within the bounds.

    Runs that were written to in the last minutes stay: another process may be at work. The names of those that went.
    """
    runs = sorted((_written(folder), folder) for folder in _runs(root) if folder != but)
    sizes = {folder: _size(folder) for _, folder in runs}
    gone = []
    for when, folder in runs:
        if len(sizes) < most_runs and sum(sizes.values()) + needed <= most_bytes:
            break
        if time.time() - when > STALE_PART_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder.name)
            del sizes[folder]
    return gone


def _runs(root: Path) -> list[Path]:
    return [path for path in listed(root) if FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _written(folder: Path) -> float:
    """When it was last written to; a folder that another process has just made is new."""
    return max(_times(listed(folder)), default=0.0) or max(_times([folder]), default=0.0)


def _times(paths: Sequence[Path]) -> list[float]:
    times = []
    for path in paths:
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return times


def _size(folder: Path) -> int:
    total = 0
    for path in listed(folder):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _number(text: str) -> int:
    """Raises ValueError where it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise ValueError(f"{text[:20]!r} is no number")
    return int(text)


def _tensors(path: Path, names: set[str]) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!s:.200}") from error
