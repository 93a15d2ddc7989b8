"""MOVA Preflight on this machine: its memory is what a run is planned with, its time what a forward takes."""

import re
from pathlib import Path

import pytest

from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes.dynamic_vram import Card, on_card
from tests.nodes.graph import Run, Scene

pytestmark = needs_comfy


def test_the_report_is_shown_and_given_on(run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: shown.append(text))
    (text,) = run("MOVAPreflight", model=scene.model, latent=scene.latent, vae=scene.vae, steps=10, cfg=1.0)
    assert shown == [text]
    assert text.startswith("9 frames of 80x48, 0.4 s: 45 video tokens, 19 audio tokens")
    assert "s a step of 1 evaluations" in text
    assert "decoding the picture" in text


def test_where_the_run_would_be_kept_is_told(run: Run, scene: Scene, folder: Path) -> None:
    given = {"model": scene.model, "latent": scene.latent, "measure": False}
    last = run("MOVAPreflight", **given)[0].splitlines()[-1]
    assert last.startswith(f"kept on its way where it takes over 5 min 00 s, in {folder} (")
    folder.write_bytes(b"a file in its place")
    try:
        assert run("MOVAPreflight", **given)[0].splitlines()[-1].startswith("NOT kept")
    finally:
        folder.unlink()


def test_without_measuring_nothing_is_run(run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.module("nodes.host.machine.preflight"), "measured_speed", None)
    (text,) = run("MOVAPreflight", model=scene.model, latent=scene.latent, measure=False)
    assert "s a step" not in text


def test_what_it_tells_of_memory_is_what_the_run_is_planned_with(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 40e6  # too little for both paths: the low one is taken, and said not to fit
    monkeypatch.setattr(pack.module("nodes.host.model.memory"), "capacity", lambda device: free)
    (text,) = run("MOVAPreflight", model=scene.model, latent=scene.latent, measure=False)
    whole = "whole path" in text.splitlines()[1]
    run(
        "MOVASampler", model=scene.model, positive=scene.positive, negative=scene.negative, latent=scene.latent, steps=1
    )
    assert whole is (scene.model.model.rows.queries is None)


def test_a_bridge_strength_on_the_model_does_not_stop_it(run: Run, scene: Scene) -> None:
    """The block that is timed is at no place of a schedule, so no span of one applies to it."""
    strengths = {"audio_to_video": 0.5, "video_to_audio": 2.0, "start_percent": 0.2, "end_percent": 0.8}
    model = run("MOVABridgeStrength", model=scene.model, **strengths)[0]
    assert "s a step of 2 evaluations" in run("MOVAPreflight", model=model, latent=scene.latent)[0]


@pytest.mark.parametrize("node_id", ["MOVAPreflight", "MOVATrainingBudget"])
def test_under_dynamic_vram_time_is_measured_too(
    run: Run, scene: Scene, pack: Pack, diffusers: Path, node_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ComfyUI's layers have no weights there before a file is loaded into them, and the timed block is of no file."""
    given = {"latent": scene.latent}
    if node_id == "MOVATrainingBudget":
        clip = {"width": 80, "height": 48, "frames": 9, "clip_count": 1}
        given = {**clip, "steps": 10, "rank": 4, "parts": "sound and bridge"}
    model = on_card(pack, diffusers, Card(0), monkeypatch)
    assert "s a step" in run(node_id, model=model, **given)[0]


def test_host_memory_that_comfyui_pinned_copies_in_is_to_be_had(
    run: Run, scene: Scene, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run it fills host memory with them, and gives them back where it is asked."""
    import comfy.model_management as management

    monkeypatch.setattr(management, "get_free_memory", lambda device: 3e9)
    monkeypatch.setattr(management, "PINNED_MEMORY", {1: 10**9})  # a weight pinned where it lies
    monkeypatch.setattr(management, "TOTAL_PINNED_MEMORY", 41 * 10**9)
    (text,) = run("MOVAPreflight", model=scene.model, latent=scene.latent, measure=False)
    assert "43.0 GB available" in text


def test_another_model_is_refused(run: Run, scene: Scene, pack: Pack) -> None:
    class Other:
        model = object()

    with pytest.raises(pack.module("mova_core.errors").MovaError, match=re.escape("not MOVA")):
        run("MOVAPreflight", model=Other(), latent=scene.latent)
