"""A run that is kept on its way: what the sampler needs to go on lies on disk, and the same inputs again go on from there.

All of it stands outside the sampler functions, which see a schedule that begins later, or a model that answers from disk:

steps  our own samplers: they ask where to begin, and say where they are at the beginning of each step
start  samplers that remember nothing between steps: begun at a later sigma, the first evaluation answered from disk
log    all others: run again from the first step, with every answer of the model so far from disk; history, noise and
       adaptive steps come out again by themselves

The guider is given the whole schedule each time, so what depends on it (percentages, progress) stays what it was. Equal
means to the bit, as far as two runs on one machine are. Samplers whose names end in `cfg_pp` take more from a step than the
model's answer, and are not kept.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import folder_paths
from comfy.samplers import KSAMPLER, KSamplerX0Inpaint
from comfy_execution.graph_utils import is_link
from torch import Tensor

from ....mova_core.checkpoint.files import is_folder
from ....mova_core.errors import ConfigError, MovaError
from ....mova_core.estimate import LONG_SECONDS, decode_bytes
from ....mova_core.kept import runs
from ....mova_core.kept.latents import write_latent
from ....mova_core.kept.runs import RunState
from ....mova_core.preflight import Disk
from .. import joint_latents, messages
from ..kept import latent_store
from ..kept.fingerprints import digest, fingerprint
from ..kept.graph import UNKNOWN, Graph
from ..keys import Options
from ..model import memory
from ..types import DynamicPrompt, Latent
from .long_run_ways import WAYS, StepCallback

log = logging.getLogger("mova")
AUTO, ON, OFF = RESUME_MODES = ("auto", "on", "off")
FROM_A_STEP = {"euler", "ddim", "heun", "dpm_2", "exp_heun_2_x0"}
RUNS_FOLDER = "mova_runs"
CFG_PP = "sampler {!r} takes more from a step than can be kept, so this run could not go on after a stop"
FEW = 4  # inputs that differ: so many are named


@dataclass(frozen=True)
class Node:
    """Where a run stands in a workflow; None where there is none."""

    node_id: str | None = None
    workflow: DynamicPrompt | None = None  # ComfyUI's DYNPROMPT


@dataclass(frozen=True, kw_only=True)
class StepKeeping:
    """How a run is to be kept: `mode` of RESUME_MODES, and every how many steps, or minutes where that is sooner; 0 is never."""

    mode: str = AUTO
    every: int = 1
    minutes: int = 0


NOWHERE, NOT_KEPT = Node(), StepKeeping(mode=OFF)


def way_of(sampler: str, mode: str) -> str | None:
    """How a stock sampler goes on; None where it cannot and need not.

    Raises:
        ConfigError: it cannot, and was asked to.
    """
    if sampler.endswith("cfg_pp"):
        if mode == ON:
            raise ConfigError(f"{CFG_PP.format(sampler)}; choose another sampler, or resume 'off'")
        return None
    return "start" if sampler in FROM_A_STEP else "log"


def not_kept(sampler: str, mode: str) -> str:
    """What is to be said before the first step of a run that would be kept but for its sampler; "" where that is not so."""
    if mode == OFF or way_of(sampler, mode) is not None:
        return ""
    return f"Not kept on its way: {CFG_PP.format(sampler)}."


def long_run(
    inputs: Mapping[str, object], latent: Latent, way: str | None, keeping: StepKeeping, node: Node, options: Options
) -> "LongRun | None":
    """The run with these inputs, or None where it is not kept. `options`: model options, to name what keeps a state."""
    if way is None or keeping.mode == OFF:
        return None
    told = {name: fingerprint(value) for name, value in {**inputs, "latent": latent}.items()}
    parts = {name: found.digest for name, found in told.items()}
    opaque = sorted({name for found in told.values() for name in found.opaque})
    if opaque:
        above = _workflow(node)
        if above is None:
            said = f"Not kept on its way: {opaque[0]} cannot be compared with what it will be then"
            log.info("%s", said)
            messages.show(said, node.node_id)
            return None
        parts["workflow"] = above
    return LongRun(root(), parts, way, keeping, latent, node, stateful(options))


def root() -> Path:
    """The folder in which runs are kept."""
    return Path(folder_paths.get_output_directory()) / RUNS_FOLDER


def size_of(latent: Latent) -> int:
    """Bytes of what is kept of a run at a step, about: twice in 4 bytes, once in 2, and a header."""
    return sum(12 * part.numel() for part in joint_latents.streams(latent))


def disk(latent: Latent) -> Disk:
    """Where a run on `latent` would be kept on its way: what is kept, and beside it the next that takes its place."""
    folder = root()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        free = float(shutil.disk_usage(there).free) if is_folder(there) and os.access(there, os.W_OK) else 0.0
    except OSError:  # it has just gone, or its disk
        free = 0.0
    return Disk(folder=str(folder), free=free, needed=2.0 * size_of(latent))


def _workflow(node: Node) -> str | None:
    """A hash of all that leads to the node, for what no hash of a value can tell; None where it cannot be compared."""
    if node.workflow is None or node.node_id is None:
        return None
    graph, inputs = Graph(node.workflow), node.workflow.get_node(node.node_id)["inputs"]
    told = {name: graph.above(value) for name, value in inputs.items() if is_link(value)}
    return None if UNKNOWN in told.values() else digest(told)


def stateful(options: Options) -> list[str]:
    """Patches that keep something from step to step, which is lost when a run stops."""
    found = []
    holder = options.get("transformer_options", {}).get("easycache")
    if holder is not None:
        found.append(type(holder).__name__.removesuffix("Holder"))
    before = options.get("sampler_pre_cfg_function", [])
    if any(getattr(function, "__qualname__", "").startswith("APG.") for function in before):
        found.append("APG (unless its momentum is 0)")
    return found


class LongRun:
    """One run of a sampler node, over all the seeds it tries."""

    def __init__(
        self,
        root: Path,
        parts: Mapping[str, str],
        way: str,
        keeping: StepKeeping,
        latent: Latent,
        node: Node,
        stateful: list[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root, self.folder, self.parts = root, root / digest([way, sorted(parts.items())]), dict(parts)
        self.way, self.mode, self.clock = way, keeping.mode, clock
        self.every, self.seconds = keeping.every, 60.0 * keeping.minutes
        self.latent, self.node, self.stateful = latent, node, stateful
        self.device = f"{comfy.model_management.get_torch_device_name(comfy.model_management.get_torch_device())}"
        self.lines: list[str] = []
        self.state = self._found()
        self.keeping = keeping.mode == ON or self.state is not None
        if self.state is None:
            self._tell_of_another()

    def said(self) -> str:
        """What stands under the node of it."""
        return "\n".join(self.lines)

    def seed(self, first: int) -> int:
        """The seed to begin with: the one that was being tried."""
        return first if self.state is None else self.state.seed

    def around(self, sampler: KSAMPLER) -> KSAMPLER:
        """`sampler`, kept on its way."""
        function = sampler.sampler_function

        def walk(
            model: KSamplerX0Inpaint,
            x: Tensor,
            sigmas: Tensor,
            extra_args: Options,
            callback: StepCallback | None = None,
            disable: bool | None = None,
            **more: object,
        ) -> Tensor:
            attempt = WAYS[self.way](self, model, x, sigmas, extra_args)
            try:
                return attempt.walk(
                    function, x, sigmas, callback, {"extra_args": extra_args, "disable": disable, **more}
                )
            except BaseException:  # cancelled, out of memory, a server that is stopped: the last step is not lost
                with suppress(RuntimeError):  # of a device that is lost
                    attempt.flush()
                raise

        return KSAMPLER(walk, sampler.extra_options, sampler.inpaint_options)

    def completed(self, sample: Callable[[], tuple[Latent, int]]) -> tuple[Latent, int]:
        """The LATENT of these inputs and its seed: as `sample` makes it, or left by the same run before."""
        done = self.result()
        if done is not None:
            return done
        made, seed = sample()
        self.finished(made, seed)
        return made, seed

    def result(self) -> tuple[Latent, int] | None:
        """The finished LATENT of these inputs, where it was kept because decoding was expected to fail, and its seed."""
        try:
            kept, seed = runs.read_result(self.folder)
        except MovaError:
            return None
        self.tell(f"Taken from {RUNS_FOLDER}: it was made from the same inputs before.")
        messages.show(self.said(), self.node.node_id)
        return {**self.latent, "samples": latent_store.to_latent(kept)["samples"]}, seed

    def finished(self, made: Latent, seed: int) -> None:
        """The run is done: what was kept goes. Where decoding is expected not to fit, the latent itself stays."""
        if not decoding_fits(made):
            name = f"{RUNS_FOLDER}/{self.folder.name}/{runs.RESULT_FILE}"
            kept = latent_store.of_latent(made, {"seed": str(seed)})
            if self.written(lambda: write_latent(self.folder / runs.RESULT_FILE, kept, {"seed": str(seed)})):
                self.tell(
                    f"Kept as {name}, as decoding it whole may not fit: set tile_size of 'MOVA Decode', nothing is lost."
                )
                messages.show(self.said(), self.node.node_id)
                runs.forget(self.folder, but=runs.RESULT_FILE)
                return
        runs.forget(self.folder)

    def forget(self) -> None:
        """What was kept is of no use."""
        runs.forget(self.folder)

    def tell(self, line: str) -> None:
        """In the log, and under the node."""
        log.info("%s", line)
        self.lines.append(line)

    def written(self, write: Callable[[], None]) -> bool:
        """Whether the disk took it. The run goes on if not, and is not kept any more."""
        try:
            for gone in runs.make_room(self.root, size_of(self.latent), self.folder):
                log.info("the kept run %s/%s went, to make room for this one", RUNS_FOLDER, gone)
            write()
        except MovaError as error:
            self.keeping = False
            log.warning("this run is not kept on its way: %s", error)
            self.lines.append("Not kept on its way: the disk did not take it.")
            return False
        return True

    def due(self, steps: int, seconds: float) -> bool:
        """Whether to write, so many steps after the run began or went on, and so long after the last write."""
        return steps % self.every == 0 or 0.0 < self.seconds <= seconds

    def settle(self, steps: int, of: int, seconds: float) -> None:
        """Whether the run is long, by the steps made so far."""
        self.keeping = self.keeping or (self.mode == AUTO and steps > 0 and seconds / steps * of > LONG_SECONDS)

    def _found(self) -> RunState | None:
        if not runs.is_kept(self.folder):
            return None
        try:
            return runs.read_state(self.folder)
        except MovaError as error:
            if runs.is_kept(self.folder):  # else another process has just finished the run
                self.tell(f"A kept state of this run cannot be used, it begins anew: {error}")
            return None

    def _tell_of_another(self) -> None:
        """Of the kept run that is most like this one, say what differs."""
        likely = []
        for state in runs.states(self.root):
            differ = sorted(
                name for name in self.parts.keys() | state.parts if self.parts.get(name) != state.parts.get(name)
            )
            likely.append((len(differ), differ, state))
        if not likely:
            return
        count, differ, state = min(likely, key=lambda each: each[0])
        if 0 < count <= FEW:
            self.tell(
                f"A run that was cut off at step {state.step} of {state.steps} is kept, and differs from this one in "
                f"{', '.join(differ)}. This one begins anew."
            )


def decoding_fits(latent: Latent) -> bool:
    """Whether the pictures can be decoded whole, by what ComfyUI will ask for."""
    return decode_bytes(joint_latents.video_shape(latent)) <= memory.capacity(comfy.model_management.vae_device())
