"""Three ways in which a sampler function goes on, outside of it: see `long_runs`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import comfy.utils
import torch
from comfy.samplers import KSamplerX0Inpaint
from torch import Tensor

from ....mova_core.errors import MovaError
from ....mova_core.kept import runs
from ....mova_core.kept.latents import JointLatent
from ....mova_core.kept.runs import RunState
from .. import joint_latents, messages
from ..kept import latent_store
from ..kept.fingerprints import tensor_digest
from ..keys import Options
from ..types import Latent
from .av_euler import AtSteps

if TYPE_CHECKING:
    from .long_runs import LongRun

StepCallback = Callable[[Options], None]
SamplerFunction = Callable[..., Tensor]
"""Of a KSAMPLER: called as (model, x, sigmas, ...), what it made of x."""


class Attempt:
    """One call of a sampler function, with one seed."""

    def __init__(
        self, run: "LongRun", model: KSamplerX0Inpaint, x: Tensor, sigmas: Tensor, extra_args: Options
    ) -> None:
        self.run, self.model, self.steps = run, model, len(sigmas) - 1
        self.seed, self.noise = int(extra_args.get("seed") or 0), tensor_digest(x)
        self.begun = self.last_write = run.clock()
        self.first, self.fresh = 0, True
        self.pending: tuple[int, Tensor | None, Tensor | None] | None = None  # what is not on disk yet
        self.shown: Tensor | None = None  # the clean estimate of the last step
        self.state = self._usable()

    def walk(
        self, function: SamplerFunction, x: Tensor, sigmas: Tensor, callback: StepCallback | None, more: Options
    ) -> Tensor:
        raise NotImplementedError

    def flush(self) -> None:
        """Write what is not on disk yet, where the run is kept."""
        if self.pending is None or not self.run.keeping:
            return
        step, x, denoised = self.pending
        self.pending, self.last_write = None, self.run.clock()
        self.write(self._state(step, x, denoised))

    def keep_at(self, step: int, x: Tensor | None, denoised: Tensor | None) -> None:
        """What the run needs to go on with `step`; on disk where that is due."""
        self.pending = step, x, denoised
        if self.run.due(step - self.first, self.run.clock() - self.last_write):
            self.flush()

    def write(self, state: RunState) -> None:
        def replace() -> None:
            if self.fresh and self.state is None:  # what lies there is of another seed, or damaged
                runs.forget(self.run.folder)
            self.fresh = False
            runs.write_state(self.run.folder, state)

        self.run.written(replace)

    def settle(self, steps: int) -> None:
        self.run.settle(steps, self.steps, self.run.clock() - self.begun)

    def _usable(self) -> RunState | None:
        state, run = self.run.state, self.run
        if state is None or state.seed != self.seed:
            return None
        if state.noise != self.noise or state.steps != self.steps:
            run.tell("A kept state of this run began with other noise (another ComfyUI, or a pack): it begins anew.")
            return None
        return state

    def goes_on(self, step: int) -> None:
        """Say where from, and what it will not be."""
        run = self.run
        run.tell(f"Goes on from step {step + 1} of {self.steps}.")
        if self.state is not None and self.state.device != run.device:
            run.tell(f"It was begun on {self.state.device}: the result will not be equal to the bit.")
        if run.stateful:
            run.tell(f"{' and '.join(run.stateful)} began anew: the result will not be equal to the bit.")
        messages.show(run.said(), run.node.node_id)

    def _state(self, step: int, x: Tensor | None, denoised: Tensor | None) -> RunState:
        plain = {name: None if part is None else part.cpu() for name, part in (("x", x), ("denoised", denoised))}
        return RunState(
            way=self.run.way,
            step=step,
            steps=self.steps,
            seed=self.seed,
            noise=self.noise,
            device=self.run.device,
            parts=self.run.parts,
            shown=self._shown(step),
            **plain,
        )

    def _shown(self, step: int) -> JointLatent | None:
        """How the clip stands, for people."""
        if self.shown is None:
            return None
        model = self.model.inner_model.inner_model
        whole = model.process_latent_out(self.shown.cpu().float())
        parts = [part.to(torch.bfloat16) for part in comfy.utils.unpack_latents(whole, model.latent_shapes)]
        latent: Latent = {**self.run.latent, "samples": joint_latents.joint(*parts)}
        latent.pop("noise_mask", None)
        return latent_store.of_latent(latent, {"step": f"{step} of {self.steps}"})


class OwnSteps(Attempt, AtSteps):
    """Of samplers that ask: see `av_euler.AtSteps`."""

    def walk(
        self, function: SamplerFunction, x: Tensor, sigmas: Tensor, callback: StepCallback | None, more: Options
    ) -> Tensor:
        def report(info: Options) -> None:
            self.shown = info["denoised"]
            if callback is not None:
                callback(info)

        out: Tensor = function(self.model, x, sigmas, callback=report, at_steps=self, **more)
        return out

    def begin(self, x: Tensor) -> tuple[int, Tensor]:
        if self.state is None or self.state.x is None:
            return 0, x
        self.first = self.state.step
        self.goes_on(self.first)
        return self.first, self.state.x.to(x)

    def keep(self, step: int, x: Tensor) -> None:
        if step > self.first:
            self.settle(step - self.first)
            self.keep_at(step, x, None)


class LaterStart(Attempt):
    """Of samplers that remember nothing: begun at a later sigma, the first evaluation answered."""

    def walk(
        self, function: SamplerFunction, x: Tensor, sigmas: Tensor, callback: StepCallback | None, more: Options
    ) -> Tensor:
        given: list[Tensor] = []
        if self.state is not None and self.state.x is not None and self.state.denoised is not None:
            self.first, x = self.state.step, self.state.x.to(x)
            given = [self.state.denoised.to(x)]
            self.goes_on(self.first)

        def report(info: Options) -> None:
            step = info["i"] + self.first
            self.shown = info["denoised"]
            self.settle(info["i"] + 1 - len(given))
            if not (given and info["i"] == 0):
                self.keep_at(step, info["x"], info["denoised"])
            if callback is not None:
                callback({**info, "i": step})

        told = Answering(self.model, len(given), given.__getitem__, None)
        out: Tensor = function(told, x, sigmas[self.first :], callback=report, **more)
        return out


class Log(Attempt):
    """Of all others: every answer of the model is kept, and the run is walked again with them."""

    def walk(
        self, function: SamplerFunction, x: Tensor, sigmas: Tensor, callback: StepCallback | None, more: Options
    ) -> Tensor:
        folder, reports = self.run.folder, 0
        self.count = 0 if self.state is None else runs.count_answers(folder, self.noise, x.shape)
        self.waiting: dict[int, Tensor] = {}  # until it is known whether the run is long
        if self.count:
            self.goes_on(min(self.state.step, self.steps - 1) if self.state is not None else 0)

        def seen(number: int, answer: Tensor) -> None:
            if self.run.keeping or reports < 2:
                self.waiting[number] = answer.cpu()

        def kept(number: int) -> Tensor | None:
            try:
                return runs.read_answer(folder, number).to(x)
            except MovaError as error:
                self.run.tell(f"What was kept of evaluation {number + 1} and later ones is made again: {error}")
                return None

        told = Answering(self.model, self.count, kept, seen)

        def report(info: Options) -> None:
            nonlocal reports
            if told.calls <= told.count:  # told of before the run stopped
                return
            reports += 1
            self.shown = info["denoised"]
            self.settle(reports)
            self.keep_at(info["i"] + 1, None, None)
            if not self.run.keeping and reports > 1:
                self.waiting.clear()
            if callback is not None:
                callback(info)

        out: Tensor = function(told, x, sigmas, callback=report, **more)
        return out

    def write(self, state: RunState) -> None:
        """The answers, then the state that names them."""
        if self.fresh and self.state is None:
            runs.forget(self.run.folder)
        self.fresh = False
        first = min(self.waiting, default=0)
        if first and not runs.has_answer(self.run.folder, first - 1):
            self.run.keeping = False
            self.run.tell(
                "Not kept on its way any more: another ComfyUI has made the same run and removed what was kept."
            )
            return
        for number, answer in list(self.waiting.items()):
            if not self.run.written(partial(runs.write_answer, self.run.folder, number, answer, self.noise)):
                return
            del self.waiting[number]
        super().write(state)


WAYS: Mapping[str, type[Attempt]] = {"steps": OwnSteps, "start": LaterStart, "log": Log}


class Answering(KSamplerX0Inpaint):  # type: ignore[misc]
    """The model that a sampler function calls: its first `count` answers are given, the others are heard by `seen`.

    None given in place of an answer ends them: from there on the model answers.
    """

    def __init__(
        self,
        model: KSamplerX0Inpaint,
        count: int,
        given: Callable[[int], Tensor | None],
        seen: Callable[[int, Tensor], None] | None,
    ) -> None:
        super().__init__(model.inner_model, model.sigmas)
        self.noise, self.latent_image = model.noise, model.latent_image
        self.count, self.given, self.seen, self.calls = count, given, seen, 0

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None,
        model_options: Options | None = None,
        seed: int | None = None,
    ) -> Tensor:
        number = self.calls
        self.calls += 1
        if number < self.count:
            kept = self.given(number)
            if kept is not None:
                return kept
            self.count = number
        answer: Tensor = super().__call__(x, sigma, denoise_mask, model_options or {}, seed)
        if self.seen is not None:
            self.seen(number, answer)
        return answer
