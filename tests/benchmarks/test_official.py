"""The official benchmark's own logic; its forward needs the official source, which is not here."""

import argparse

import pytest
import torch
from torch.nn import LayerNorm, Linear, RMSNorm, Sequential

from benchmarks import gpu, official
from benchmarks.against import SIZES
from benchmarks.peak import Clip


def test_weights_are_random_and_norms_are_about_one() -> None:
    with torch.device("meta"):
        model = Sequential(Linear(64, 64), RMSNorm(64), LayerNorm(64))
    official.fill(model, torch.Generator().manual_seed(0), torch.device("cpu"), torch.bfloat16)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert 0.01 < parameter.float().std() < 0.03, name
    assert model[1].weight.float().mean() == pytest.approx(1, abs=0.02)


def test_a_run_that_does_not_fit_is_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.36 GiB. GPU 0 has no more.")

    monkeypatch.setattr(official, "measure", fail)
    given = argparse.Namespace(resident=True, group=False, cap=24.0, rounds=1, warm_frames=None)
    (row,) = official.rows(None, SIZES, [Clip(height=32, width=48)], torch.device("cpu"), given)
    assert "Tried to allocate 3.36 GiB |" in row
    assert row.count("|") == gpu.HEADING.splitlines()[0].count("|")


def test_it_asks_what_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        official.main(["--repo", "."])
    assert "--resident, --group or both" in capsys.readouterr().err
