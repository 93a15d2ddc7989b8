"""The GPU benchmark's own logic, on the CPU at tiny size: what it times is the model, streamed or resident."""

from functools import partial

import pytest
import torch

from benchmarks import gpu, gpu_fast, gpu_train
from benchmarks.peak import Clip
from mova_core.config import MOVA, MovaConfig
from mova_core.estimate import CHUNKED, FULL
from mova_core.model.mova import Mova
from mova_core.ops import Runtime
from mova_core.shapes import DEFAULT_FPS
from tests.fixtures.tiny_model import tiny_config

CPU = torch.device("cpu")


@pytest.fixture
def config() -> MovaConfig:
    """Tiny towers with the published latent channels, which `Clip` has."""
    from dataclasses import replace

    tiny = tiny_config()
    video = replace(tiny.video, in_channels=36, out_channels=16)
    return replace(tiny, video=video)


@pytest.fixture
def model(config: MovaConfig) -> Mova:
    return gpu.random_model(config, CPU, torch.float32)


CLIP = Clip(height=32, width=48, frames=9)


def forward(model: Mova, **options: object) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    inputs = gpu.random_inputs(CLIP, model.sizes, torch.float32, CPU)
    with torch.inference_mode():
        return model(**inputs, fps=DEFAULT_FPS, runtime=Runtime(**options))  # type: ignore[arg-type]


def test_weights_are_random_and_all_there(model: Mova) -> None:
    for name, parameter in model.named_parameters():
        assert not parameter.is_meta
        assert parameter.numel() == 1 or parameter.std() > 0.005, name


def test_streamed_is_resident(model: Mova) -> None:
    whole = forward(model)
    homes = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    streamed = gpu.Streamed(CPU)
    for one, other in zip(forward(model, prefetch=streamed), whole, strict=True):
        assert torch.equal(one, other)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == homes  # all put back
    assert streamed.copied == sum(
        p.nbytes for layer in model.layer_modules() for root in layer for p in root.parameters()
    )


def test_a_failed_forward_puts_the_weights_back(model: Mova) -> None:
    homes = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}

    def fail(*_: object) -> object:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        forward(model, prefetch=gpu.Streamed(CPU), attention=fail)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == homes


@pytest.mark.parametrize("rows", [FULL, CHUNKED])
def test_a_row_has_time_rate_and_bytes(model: Mova, rows: object) -> None:
    with torch.inference_mode():
        measured = gpu.measure("tiny", model, CLIP, rows, CPU, 1, stream=True)  # type: ignore[arg-type]
    assert measured.seconds > 0
    assert measured.tflops > 0
    assert measured.copied > 0
    assert measured.row().count("|") == gpu.HEADING.splitlines()[0].count("|")


def test_every_run_of_the_table_is_made(model: Mova) -> None:
    table = gpu.Table(gpu.HEADING, partial(gpu.forwards, clips={"32x48": CLIP}))
    lines = list(gpu.measure_all(model, [table], CPU, 1))
    rows = [line.split("|")[1].strip() for line in lines if line.strip() != gpu.HEADING]
    assert rows == ["32x48, streamed, whole", "32x48, streamed, low memory", "32x48, resident"]


def test_forwards_steps_and_parts_share_a_model(model: Mova, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order: what one table does to the model the next does not see."""
    monkeypatch.setattr(gpu_train, "RANK", 2)
    tables = [
        gpu.Table("train", partial(gpu_train.steps, clips=[CLIP]), inference=False),
        gpu.Table("forward", partial(gpu.forwards, clips={"tiny": CLIP})),
        gpu.Table("fast", partial(gpu_fast.step_parts, clip=CLIP)),
    ]
    lines = list(gpu.measure_all(model, tables, CPU, 1))
    assert [line.strip() for line in lines if "|" not in line] == ["train", "forward", "fast"] * 2
    assert len(lines) == 6 + (2 + 2 + 6) + (1 + 1 + 6)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "nothing was measured" in capsys.readouterr().out


def test_the_published_size_fits_pinned_host_memory() -> None:
    """36.74 GB, what one expert with audio tower and bridge takes."""
    meta = Mova(MOVA, device="meta", dtype=torch.bfloat16)
    assert sum(p.nbytes for p in meta.parameters()) / 1e9 == pytest.approx(36.74, abs=0.01)
