"""A run that was stopped goes on: latents to the bit those of a run that was not, whatever the sampler and the step."""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.comfy import needs_comfy
from tests.fixtures.tiny_lora import write_tiny_lora
from tests.fixtures.vanishing import OPENED, at_every_look
from tests.nodes.graph import equal
from tests.nodes.long_runs import STEPS, Counted, StoppedError, masked, sampled, stopped

pytestmark = needs_comfy

START = ("euler", "ddim", "heun", "dpm_2", "exp_heun_2_x0")
WITHIN = 2  # evaluations of a step, but for its last, of which a stop costs those that were made
LOG = ("dpmpp_2m", "uni_pc", "dpmpp_sde", "res_multistep", "euler_ancestral", "dpm_fast")


@pytest.fixture(scope="module")
def whole_euler(run, scene) -> dict[str, Any]:
    with torch.inference_mode():
        return sampled(run, scene, resume="off")


@pytest.mark.parametrize("after", range(1, STEPS))
def test_euler_goes_on_from_every_step_and_evaluates_nothing_twice(run, scene, folder, whole_euler, evaluations, after):
    stopped(run, scene, evaluations, after)
    assert [path.name for path in next(folder.iterdir()).iterdir()] == ["state.safetensors"]
    assert equal(sampled(run, scene), whole_euler)
    assert evaluations.count == STEPS - after
    assert not list(folder.iterdir())


def test_the_audio_video_euler_goes_on_from_every_step(run, scene, folder, evaluations):
    widgets = {"audio_denoise": 0.5}
    whole = sampled(run, scene, resume="off", **widgets)
    for after in range(1, STEPS):
        stopped(run, scene, evaluations, after, **widgets)
        assert equal(sampled(run, scene, **widgets), whole)
        assert evaluations.count == STEPS - after


@pytest.mark.parametrize("sampler", START + LOG)
def test_stock_samplers_go_on_to_the_bit(run, scene, folder, evaluations, sampler):
    whole = sampled(run, scene, resume="off", sampler=sampler, steps=5)
    stopped(run, scene, evaluations, 4, sampler=sampler, steps=5)
    assert equal(sampled(run, scene, sampler=sampler, steps=5), whole)
    assert not list(folder.iterdir())


@pytest.mark.skipif(not os.environ.get("MOVA_ALL_SAMPLERS"), reason="MOVA_ALL_SAMPLERS=1 tries all, in minutes")
def test_every_sampler_of_this_comfyui_goes_on_to_the_bit(run, scene, pack, folder, evaluations):
    """Stopped in the middle and before the last evaluation of eight guided steps; what a step was in is made again."""
    differ, widgets = [], {"cfg": 2.0, "resume": "off"}
    for sampler in pack.module("nodes.host.sampling.samplers").SAMPLERS:
        if sampler.endswith("cfg_pp"):
            continue
        evaluations.until()
        whole = sampled(run, scene, sampler=sampler, **widgets)
        count = evaluations.count
        for after in (count // 2, count - 1):
            stopped(run, scene, evaluations, after, sampler=sampler, cfg=2.0)
            same = equal(sampled(run, scene, sampler=sampler, cfg=2.0), whole)
            if not same or evaluations.count > count - after + WITHIN:
                differ.append((sampler, after, count, evaluations.count, same))
            shutil.rmtree(folder, ignore_errors=True)
    assert differ == []


@pytest.mark.parametrize(
    ("mask", "widgets"),
    [
        (True, {}),
        (True, {"sampler": "uni_pc"}),
        (True, {"sampler": "ddim"}),
        (True, {"audio_substeps": 3}),
        (False, {"audio_substeps": 2, "bridge_cfg": 3.5, "cfg": 5.0, "audio_cfg": 3.0}),
        (False, {"shift": 5.0, "audio_shift": 3.0}),
        (False, {"sampler": "dpmpp_2m", "scheduler": "simple", "denoise": 0.6}),
    ],
    ids=str,
)
def test_masks_substeps_guidance_and_shifts_come_back(run, scene, folder, evaluations, mask, widgets):
    given, widgets = masked(run, scene) if mask else scene, {"steps": 4} | widgets
    evaluations.until()
    whole = sampled(run, given, **(widgets | {"resume": "off"}))
    stopped(run, given, evaluations, evaluations.count * 3 // 4, **widgets)
    assert equal(sampled(run, given, **widgets), whole)


@pytest.mark.parametrize("quality", ["light", "standard", "high", "max"])
def test_the_fast_sampler_goes_on_at_every_quality(run, scene, folder, evaluations, comfy_base, quality):
    write_tiny_lora(comfy_base / "models" / "loras" / "distilled.safetensors", 3)
    distilled = run("MOVALoraLoader", model=scene.model, lora_name="distilled.safetensors")[0]
    given = {
        "model": distilled,
        "teacher": scene.model,
        "latent": scene.latent,
        "quality": quality,
        "seed": 7,
        "steps": 3,
    }
    given |= {"positive": scene.positive, "negative": scene.negative}
    evaluations.until()
    whole = run("MOVAFastSampler", **given, resume="off")[0]
    count = evaluations.count
    evaluations.until(count * 2 // 3)
    with pytest.raises(StoppedError):
        run("MOVAFastSampler", **given, resume="on")
    evaluations.until()
    assert equal(run("MOVAFastSampler", **given, resume="on")[0], whole)
    assert 0 < evaluations.count < count
    assert not list(folder.iterdir())


def test_a_run_can_stop_again_and_again(run, scene, folder, evaluations):
    for sampler in ("euler", "dpmpp_2m"):
        whole = sampled(run, scene, resume="off", sampler=sampler, steps=4)
        for _ in range(3):
            stopped(run, scene, evaluations, 1, sampler=sampler, steps=4)
        assert equal(sampled(run, scene, sampler=sampler, steps=4), whole)
        assert evaluations.count == 1


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_stop_between_writes_loses_no_step(run, scene, folder, evaluations, sampler):
    whole = sampled(run, scene, resume="off", sampler=sampler)
    stopped(run, scene, evaluations, 5, sampler=sampler, keep_every=100)
    assert equal(sampled(run, scene, sampler=sampler, keep_every=100), whole)
    assert evaluations.count == STEPS - 5


def test_after_so_many_minutes_a_step_is_written_however_few_were_made(run, scene, pack, folder, monkeypatch):
    """A minute passes at each look at the clock; two looks a step."""
    runs, written = pack.module("mova_core.kept.runs"), []
    plain, minutes = runs.write_state, iter(range(10**6))
    monkeypatch.setattr(runs, "write_state", lambda folder, state: (written.append(state.step), plain(folder, state)))
    module = pack.module("nodes.host.sampling.long_runs")
    monkeypatch.setattr(module, "LongRun", partial(module.LongRun, clock=lambda: 60.0 * next(minutes)))
    for sampler in ("euler", "dpmpp_2m"):
        steps = {}
        for given in ((100, 0), (100, 5), (3, 0), (3, 5), (1, 0)):
            written.clear()
            sampled(run, scene, sampler=sampler, keep_every=given[0], keep_minutes=given[1])
            steps[given] = list(written)
        assert len(steps[100, 0]) <= 1
        assert len(steps[100, 5]) >= len(steps[100, 0]) + 2
        assert set(steps[3, 0]) < set(steps[1, 0])
        assert len(steps[3, 0]) <= len(steps[3, 5]) < len(steps[1, 0])


def test_the_node_says_from_which_step(run, scene, folder, evaluations, caplog):
    stopped(run, scene, evaluations, 5)
    with caplog.at_level(logging.INFO, logger="mova"):
        sampled(run, scene)
    assert "Goes on from step 5 of 8" in caplog.text


def test_other_inputs_begin_anew_and_it_is_said_what_differs(run, scene, folder, evaluations, caplog):
    stopped(run, scene, evaluations, 5)
    with caplog.at_level(logging.INFO, logger="mova"):
        other = sampled(run, scene, seed=8)
    assert "cut off at step 4 of 8 is kept, and differs from this one in seed. This one begins anew" in caplog.text
    assert equal(other, sampled(run, scene, seed=8, resume="off"))
    evaluations.until()
    sampled(run, scene)  # and the old one is still there
    assert evaluations.count == STEPS - 5


CHANGES = {
    "cfg": 2.0,
    "steps": 7,
    "denoise": 0.9,
    "sampler": "heun",
    "shift": 4.0,
    "audio_shift": 4.0,
    "scheduler": "simple",
}


def test_every_setting_that_counts_begins_anew_and_is_named(run, scene, folder, evaluations, caplog):
    stopped(run, scene, evaluations, 3)
    for name, value in (
        CHANGES | {"scheduler": "simple", "collapse_guard": "warn", "audio_cfg": 2.0, "bridge_cfg": 2.0}
    ).items():
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="mova"):
            stopped(run, scene, evaluations, 0, **{name: value})
        assert f"differs from this one in {name}" in caplog.text or f", {name}" in caplog.text
        assert "Goes on" not in caplog.text


def test_other_models_prompts_pictures_and_masks_begin_anew(run, scene, folder, evaluations):
    stopped(run, scene, evaluations, 5)
    others = [
        scene.but(model=run("MOVABridgeStrength", model=scene.model, audio_to_video=0.5, video_to_audio=1.0)[0]),
        scene.but(positive=scene.negative),
        masked(run, scene),
    ]
    for other in others:
        evaluations.until()
        sampled(run, other)
        assert evaluations.count == STEPS


def test_a_patch_that_cannot_be_read_is_told_by_the_workflow_above(run, scene, pack, folder, evaluations):
    def prompt(eta: float) -> Any:
        nodes = {
            "1": {"class_type": "APG", "inputs": {"eta": eta}},
            "2": {"class_type": "MOVASampler", "inputs": {"model": ["1", 0], "resume": "on"}},
        }
        return SimpleNamespace(get_node=nodes.__getitem__)

    def patched(eta: float) -> Any:
        return run("APG", model=scene.model, eta=eta, norm_threshold=5.0, momentum=0.0)[0]

    mova_sampler = pack.module("nodes.host.sampling.mova_sampler")
    node, settings = pack.module("nodes.host.sampling.long_runs").Node, mova_sampler.SamplerSettings
    widgets = {"shift": 5.0, "audio_shift": 5.0, "sampler": "euler", "scheduler": "mova", "denoise": 1.0}

    def go(eta: float, stop: int = 10**9) -> Any:
        evaluations.until(stop)
        made = settings(seed=7, steps=STEPS, cfg=3.0, resume="on", **widgets)
        where = node("2", prompt(eta))
        return mova_sampler.run(patched(eta), scene.positive, scene.negative, scene.latent, made, node=where)[0]

    with pytest.raises(StoppedError):
        go(0.5, stop=5)
    go(0.6)
    assert evaluations.count == STEPS
    go(0.5)
    assert evaluations.count == STEPS - 5


def test_a_lora_beside_the_weights_whose_file_changed_under_its_name_begins_anew(
    run, scene, pack, folder, evaluations, comfy_base, monkeypatch
):
    """The stock bypass loader hides its weights; its file tells them. Nothing is remembered from turn to turn."""
    file = comfy_base / "models" / "loras" / "beside.safetensors"
    inputs = {"lora_name": "beside.safetensors", "strength_model": 0.5}
    nodes = {
        "1": {"class_type": "LoraLoaderBypassModelOnly", "inputs": inputs},
        "2": {"class_type": "MOVASampler", "inputs": {"model": ["1", 0]}},
    }
    placed = pack.module("nodes.host.sampling.long_runs").Node("2", SimpleNamespace(get_node=nodes.__getitem__))
    monkeypatch.setattr(pack.module("nodes.sampling"), "Node", lambda *_: placed)
    first_seen = pack.module("nodes.host.kept.contents")._first_seen
    for seed, count in ((0, 3), (1, STEPS), (0, 3)):
        write_tiny_lora(file, seed)
        first_seen.cache_clear()
        beside = scene.but(model=run("LoraLoaderBypassModelOnly", model=scene.model, **inputs)[0])
        if not list(folder.glob("*")):
            stopped(run, beside, evaluations, 5)
        evaluations.until()
        sampled(run, beside)
        assert evaluations.count == count, seed
        if not seed:
            stopped(run, beside, evaluations, 5)


def test_without_a_workflow_such_a_patch_is_not_kept(run, scene, folder, evaluations, caplog):
    guided = scene.but(model=run("APG", model=scene.model, eta=0.5, norm_threshold=5.0, momentum=0.0)[0])
    with caplog.at_level(logging.INFO, logger="mova"):
        stopped(run, guided, evaluations, 5, cfg=3.0)
    assert "cannot be compared" in caplog.text
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache"])
def test_patches_that_keep_a_state_are_named(run, scene, folder, evaluations, caplog, kind):
    widgets = {"reuse_threshold": 0.001, "start_percent": 0.1, "end_percent": 0.9, "verbose": False}
    cached = scene.but(model=run(kind, model=scene.model, **widgets)[0])
    stopped(run, cached, evaluations, 5)
    with caplog.at_level(logging.INFO, logger="mova"):
        sampled(run, cached)
    assert f"{kind} began anew: the result will not be equal to the bit" in caplog.text


def test_guidance_with_momentum_is_named_and_an_unpatched_run_is_not(run, scene, pack, folder, evaluations, caplog):
    long_runs = pack.module("nodes.host.sampling.long_runs")
    guided = run("APG", model=scene.model, eta=0.5, norm_threshold=5.0, momentum=0.3)[0]
    assert long_runs.stateful(guided.model_options) == ["APG (unless its momentum is 0)"]
    assert long_runs.stateful(scene.model.model_options) == []
    nodes = {"2": {"class_type": "MOVASampler", "inputs": {}}}
    placed = long_runs.Node("2", SimpleNamespace(get_node=nodes.__getitem__))
    with pytest.MonkeyPatch.context() as patch:  # a node in a workflow, as a server has it
        patch.setattr(pack.module("nodes.sampling"), "Node", lambda *_: placed)
        stopped(run, scene.but(model=guided), evaluations, 5, cfg=3.0)
        with caplog.at_level(logging.INFO, logger="mova"):
            sampled(run, scene.but(model=guided), cfg=3.0)
    assert "Goes on from step 5" in caplog.text
    assert "APG (unless its momentum is 0) began anew: the result will not be equal to the bit" in caplog.text


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_comfyuis_own_cancel_loses_no_step(run, scene, folder, evaluations, sampler):
    import comfy.model_management as management

    whole = sampled(run, scene, sampler=sampler, resume="off")
    evaluations.until(5, management.interrupt_current_processing)  # before the sixth, which is cancelled on its way
    with pytest.raises(management.InterruptProcessingException):
        sampled(run, scene, sampler=sampler, keep_every=100)
    evaluations.until()
    assert equal(sampled(run, scene, sampler=sampler), whole)
    assert evaluations.count == STEPS - 5


@pytest.mark.parametrize("widgets", [{"audio_substeps": 2}, {"audio_substeps": 2, "audio_denoise": 0.6}], ids=str)
def test_steps_of_the_sound_alone_go_on_from_every_step(run, scene, folder, evaluations, widgets):
    """A stop within a step costs what of it was made; a step has one full evaluation and those of the sound."""
    evaluations.until()
    whole = sampled(run, scene, resume="off", steps=3, **widgets)
    count, each = evaluations.count, widgets["audio_substeps"]
    for after in range(1, count):
        stopped(run, scene, evaluations, after, steps=3, **widgets)
        assert equal(sampled(run, scene, steps=3, **widgets), whole)
        assert evaluations.count == count - after // each * each


def test_cfg_pp_is_refused_by_name_before_the_first_step_and_unasked_says_that_it_is_not_kept(
    run, scene, pack, folder, evaluations, monkeypatch
):
    module = pack.module("nodes.host.sampling.mova_sampler")
    samplers = [name for name in pack.module("nodes.host.sampling.samplers").SAMPLERS if name.endswith("cfg_pp")]
    assert len(samplers) == 7
    for sampler in samplers:
        with pytest.raises(ValueError, match=f"{sampler}.*could not go on"):
            sampled(run, scene, sampler=sampler)
        assert evaluations.until().count == 0
        shown: list[tuple[int, str]] = []
        with monkeypatch.context() as patch:
            patch.setattr(module.messages, "show", lambda text, _, shown=shown: shown.append((evaluations.count, text)))
            sampled(run, scene, sampler=sampler, resume="auto", steps=2)
        said = f"Not kept on its way: sampler '{sampler}'"
        assert shown[0][0] == 0
        assert shown[0][1].startswith(said)
        assert all(said in text for _, text in shown), "it stays under the node"
        assert not folder.exists()
    monkeypatch.setattr(module.messages, "show", lambda text, _: pytest.fail(text) if "Not kept" in text else None)
    sampled(run, scene, sampler=samplers[0], resume="off", steps=2)


def test_short_runs_leave_nothing_and_long_ones_are_kept_unasked(run, scene, pack, folder, evaluations, monkeypatch):
    module = pack.module("nodes.host.sampling.long_runs")
    for sampler in ("euler", "dpmpp_2m"):
        stopped(run, scene, evaluations, 5, resume="auto", sampler=sampler)
        assert not folder.exists()
        whole = sampled(run, scene, resume="off", sampler=sampler)
        monkeypatch.setattr(module, "LONG_SECONDS", 0.0)
        stopped(run, scene, evaluations, 5, resume="auto", sampler=sampler)
        monkeypatch.undo()
        evaluations = Counted(pack, monkeypatch)
        assert equal(sampled(run, scene, resume="auto", sampler=sampler), whole)
        assert evaluations.count == STEPS - 5
        shutil.rmtree(folder)


def test_the_guards_seed_comes_back(run, scene, pack, folder, evaluations, monkeypatch):
    guard = pack.module("nodes.host.sampling.collapse_guard")
    plain = guard.guard

    def flat(values, seed, *rest):
        watch = plain(values, seed, *rest)

        def blind(step, denoised, steps):
            if seed < 9:
                still = denoised.tensors[0].mean((-2, -1), keepdim=True).expand_as(denoised.tensors[0])
                denoised = denoised.__class__([still, *denoised.tensors[1:]])
            watch(step, denoised, steps)

        return blind

    monkeypatch.setattr(guard, "guard", flat)
    evaluations.until()
    whole = sampled(run, scene, resume="off", collapse_guard="reseed")
    stopped(run, scene, evaluations, evaluations.count - 2, collapse_guard="reseed")
    assert equal(sampled(run, scene, collapse_guard="reseed"), whole)
    assert evaluations.count == 2
    assert not list(folder.iterdir())
    with pytest.raises(ValueError, match="flat colour"):
        sampled(run, scene, collapse_guard="stop")
    assert not list(folder.iterdir())


def test_a_state_can_be_decoded_on_the_way(run, scene, folder, evaluations, comfy_base):
    for sampler in ("euler", "dpmpp_2m"):
        stopped(run, scene, evaluations, 5, sampler=sampler)
    for path in folder.glob("*/state.safetensors"):
        name = f"{path.relative_to(comfy_base / 'output').as_posix()} [output]"
        latent = run("MOVALoadLatent", file=name)[0]
        images, audio, fps = run("MOVADecode", latent=latent, vae=scene.vae, audio_vae=scene.audio_vae)
        assert (len(images), audio["waveform"].shape[-1], fps) == (9, 18000, 24.0)
        assert images.std() > 0


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("damage", ["half", "empty", "other bytes", "folder"])
def test_a_damaged_state_begins_anew(run, scene, folder, evaluations, sampler, damage):
    whole = sampled(run, scene, resume="off", sampler=sampler, steps=3)
    stopped(run, scene, evaluations, 2, sampler=sampler, steps=3)
    for path in next(folder.iterdir()).iterdir():
        content = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        else:
            path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "other bytes": b"x" * 999}[damage])
    assert equal(sampled(run, scene, sampler=sampler, steps=3), whole)
    assert evaluations.count == 3


def test_a_gap_in_the_log_ends_what_is_answered(run, scene, folder, evaluations):
    whole = sampled(run, scene, resume="off", sampler="dpmpp_2m")
    stopped(run, scene, evaluations, 5, sampler="dpmpp_2m")
    (next(folder.iterdir()) / "00003.safetensors").unlink()
    assert equal(sampled(run, scene, sampler="dpmpp_2m"), whole)
    assert evaluations.count == STEPS - 3


def test_what_a_killed_writer_left_goes_with_the_run(run, scene, folder, evaluations):
    stopped(run, scene, evaluations, 5)
    (next(folder.iterdir()) / ".state.safetensors.99999999.part").write_bytes(b"half")
    sampled(run, scene)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_full_disk_costs_the_state_and_not_the_run(run, scene, folder, evaluations, sampler, monkeypatch, caplog):
    whole = sampled(run, scene, resume="off", sampler=sampler)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with caplog.at_level(logging.WARNING, logger="mova"):
        assert equal(sampled(run, scene, sampler=sampler), whole)
    assert caplog.text.count("No space left on device") == 1
    assert not list(folder.rglob("*.safetensors"))


def test_a_file_where_the_folder_should_be_costs_no_run(run, scene, folder):
    whole = sampled(run, scene, resume="off")
    folder.write_bytes(b"")
    assert equal(sampled(run, scene), whole)
    folder.unlink()


def test_a_run_that_another_queue_finished_goes_on_all_the_same(run, scene, folder, evaluations):
    whole = sampled(run, scene, resume="off", sampler="dpmpp_2m")
    stopped(run, scene, evaluations, 5, sampler="dpmpp_2m")
    other = next(folder.iterdir())
    copy = folder.parent / "copy"
    shutil.copytree(other, copy)
    assert equal(sampled(run, scene, sampler="dpmpp_2m"), whole)
    shutil.move(copy, other)  # what the second queue still writes
    assert equal(sampled(run, scene, sampler="dpmpp_2m"), whole)


def test_the_folder_is_bounded(run, scene, pack, folder, evaluations, monkeypatch):
    runs = pack.module("mova_core.kept.runs")
    stopped(run, scene, evaluations, 2)
    old = next(folder.iterdir())
    for number in range(20):
        twin = folder / f"{number:032x}"
        shutil.copytree(old, twin)
        for path in twin.iterdir():
            os.utime(path, (1000 + number, 1000 + number))
    stopped(run, scene, evaluations, 2, seed=8)
    left = {path.name for path in folder.iterdir()}
    assert len(left) == runs.MOST_RUNS
    assert old.name in left
    assert f"{0:032x}" not in left
    assert f"{19:032x}" in left


def test_a_clip_that_may_not_decode_is_kept_and_given_again(run, scene, pack, folder, evaluations, monkeypatch):
    monkeypatch.setattr(pack.module("nodes.host.sampling.long_runs"), "decoding_fits", lambda latent: False)
    whole = sampled(run, scene, resume="auto")
    kept = list(folder.rglob("*.safetensors"))
    assert [path.name for path in kept] == ["result.safetensors"]
    evaluations.until()
    assert equal(sampled(run, scene, resume="auto"), whole)
    assert evaluations.count == 0
    sampled(run, scene, resume="off")
    assert evaluations.count == STEPS


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_run_whose_files_vanish_as_they_are_opened_is_made_all_the_same(run, scene, folder, evaluations, sampler):
    """By another process that has finished the same run: whatever it had read before stays of use."""
    whole = sampled(run, scene, resume="off", sampler=sampler)
    stopped(run, scene, evaluations, 5, sampler=sampler)
    other, copy = next(folder.iterdir()), folder.parent / "copy"
    shutil.copytree(other, copy)

    def make() -> None:
        shutil.copytree(copy, other, dirs_exist_ok=True)
        evaluations.until()

    def again() -> tuple[bool, int]:
        return equal(sampled(run, scene, sampler=sampler), whole), evaluations.count

    found = [made for _, made in at_every_look(other, make, again, OPENED)]
    shutil.rmtree(copy)
    assert all(same for same, _ in found)
    assert found[0][1] == STEPS, "nothing was read"
    assert {count for _, count in found} >= ({STEPS} if sampler == "euler" else {STEPS, STEPS - 1, STEPS - 4})
    assert not list(folder.iterdir())
