"""A bug report says what matters, and nothing that is the user's own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy


@pytest.fixture
def facts(pack: Pack) -> ModuleType:
    return pack.module("nodes.host.machine.bug_report")


def test_it_names_versions_devices_attention_and_the_model(run: Run, scene: Scene) -> None:
    (report,) = run("MOVABugReport", model=scene.model)
    for wanted in (
        "MOVA Native 0.",
        "ComfyUI 0.",
        f"torch {torch.__version__}",
        "attention: attention_",
        "dynamic VRAM: ",
        "cpu: ",
        "experts: 2, change at sigma 0.9",
        "video_dit: ",
        "dual_tower_bridge: ",
        "float32",
    ):
        assert wanted in report


def test_without_a_model_it_tells_of_the_machine_alone(run: Run) -> None:
    (report,) = run("MOVABugReport")
    assert "### Devices" in report
    assert "### Model" not in report


def test_patched_weights_are_counted_for_each_expert(run: Run, scene: Scene) -> None:
    model = scene.model.clone()
    weight = torch.zeros(1)
    key = "diffusion_model.blocks.0.self_attn.q.weight"
    model.add_patches({key: ("diff", (weight,))}, 1.0)
    (report,) = run("MOVABugReport", model=model)
    assert report.count("1 weights patched (1 blocks), at most 1 times") == 2
    (plain,) = run("MOVABugReport", model=scene.model)
    assert plain.count("0 weights patched, at most 0 times") == 2


def test_a_planted_home_user_name_and_prompt_do_not_appear(
    run: Run, scene: Scene, facts: ModuleType, monkeypatch: pytest.MonkeyPatch, comfy_base: Path
) -> None:
    home = comfy_base / "home" / "Zaphodia"
    private = home / "secret place" / "zaphodia_mova.safetensors"
    private.parent.mkdir(parents=True)
    private.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "zaphodia")
    args = facts.comfy.cli_args.args
    monkeypatch.setattr(args, "output_directory", str(home / "clips"))
    monkeypatch.setattr(args, "listen", "10.1.2.3")
    monkeypatch.setattr(args, "reserve_vram", 1.5)
    model = scene.model.clone()
    model.set_attachments("mova_files", {"video_dit": [private]})
    model.model_options["transformer_options"]["prompt"] = "a most secret wish"
    (report,) = run("MOVABugReport", model=model)
    for planted in ("zaphodia", "secret", "10.1.2.3", str(comfy_base), "clips", "wish"):
        assert planted.lower() not in report.lower()
    assert "video_dit: <user>_mova.safetensors, 10 bytes" in report
    assert "--output-directory (set)" in report
    assert "--reserve-vram 1.5" in report


def test_a_model_of_another_kind_is_refused(run: Run, scene: Scene, facts: ModuleType) -> None:
    class Other:
        model = torch.nn.Identity()

    with pytest.raises(ValueError, match="not MOVA"):
        run("MOVABugReport", model=Other())


def test_the_report_is_made_anew_each_time(pack: Pack) -> None:
    node = pack.nodes["MOVABugReport"]
    assert node.fingerprint_inputs() != node.fingerprint_inputs()


def test_the_last_run_is_told_step_by_step_and_by_expert(run: Run, scene: Scene) -> None:
    sample(run, scene, steps=4)
    (report,) = run("MOVABugReport", model=scene.model)
    told = [line for line in report.split("### Last run\n")[1].splitlines() if line]
    steps = [line.split(": ")[1].split(",")[0].split(";")[0] for line in told]
    assert steps == [
        "start",
        "2 times a step of the high-noise expert",
        "2 times a step of the low-noise expert",
        "end",
    ]
    assert all(" GiB in use" in line for line in told)
    sample(run, scene, steps=1)
    (again,) = run("MOVABugReport", model=scene.model)
    assert again.count("a step of the") == 1


def test_a_run_that_fails_is_told_as_stopped(run: Run, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(scene.model.model.diffusion_model, "_denoise", fail)
    with pytest.raises(Exception, match=r"more memory \(RAM\) than there is\. Give fewer pictures"):
        sample(run, scene, steps=1)
    (report,) = run("MOVABugReport", model=scene.model)
    assert ": stopped; device" in report


def sample(run: Run, scene: Scene, steps: int) -> None:
    inputs = {"seed": 1, "cfg": 1.0, "shift": 5.0, "audio_shift": 5.0, "sampler": "euler", "scheduler": "mova"}
    given = {"positive": scene.positive, "negative": scene.negative, "latent": scene.latent}
    run("MOVASampler", model=scene.model, steps=steps, denoise=1.0, **given, **inputs)
