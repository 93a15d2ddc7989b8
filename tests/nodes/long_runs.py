"""Runs that are stopped, for tests of what goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import pytest
import torch

from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.graph import Run, Scene, streams

STEPS = 8


class StoppedError(Exception):
    """In place of a crash."""


def stop() -> NoReturn:
    raise StoppedError


class Counted:
    """Counts the model's evaluations; and stops the run before one of them."""

    def __init__(self, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = pack.module("nodes.host.sampling.guiders")
        self.plain = self.module.MovaGuidance.predict_noise
        self.until()
        monkeypatch.setattr(self.module.MovaGuidance, "predict_noise", self._counting())

    def _counting(self) -> Any:
        def predict(guider: Any, *args: Any, **more: Any) -> Any:
            if self.count >= self.last:
                self.end()
            self.count += 1
            return self.plain(guider, *args, **more)

        return predict

    def until(self, last: int = 10**9, end: Callable[[], NoReturn] = stop) -> Counted:
        """Count anew, and call `end` before evaluation `last`."""
        self.count, self.last, self.end = 0, last, end
        return self


sampled = partial(graph.sampled, seed=7, steps=STEPS, resume="on")


def stopped(run: Run, scene: Scene, evaluations: Counted, after: int, **widgets: Any) -> None:
    """A run that ends by an exception before its evaluation `after`."""
    evaluations.until(after)
    with pytest.raises(StoppedError):
        sampled(run, scene, **widgets)
    evaluations.until()


def masked(run: Run, scene: Scene) -> Scene:
    noise = torch.Generator().manual_seed(9)
    parts = [torch.randn(part.shape, generator=noise) for part in streams(scene.latent)]
    full = {**scene.latent, "samples": type(scene.latent["samples"])(parts)}
    return scene.but(latent=run("MOVAMask", latent=full, picture="span", sound="span", start=0.2, end=0.4)[0])
