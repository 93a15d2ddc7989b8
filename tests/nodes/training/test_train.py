"""Training in ComfyUI's process: what is learned, where it goes, what stops it, and that nothing is lost or left."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mova_core.checkpoint.files import read_header
from tests.comfy import needs_comfy
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.dynamic_vram import ROOMS, STREAMS, Card, on_card
from tests.nodes.graph import Run, Scene, equal, error
from tests.nodes.training.conftest import ALL, QUICK

pytestmark = needs_comfy

LORAS = "models/loras"
Train = Callable[..., tuple[Any, ...]]


sampled = partial(graph.sampled, steps=3)


def parts(lora: dict[str, Tensor]) -> set[str]:
    return {key.split(".")[0] for key in lora}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def state(base: Path, name: str) -> dict[str, Tensor]:
    return load_file(base / "output" / "mova_training" / "runs" / name / "state.safetensors")


def test_every_adapter_of_both_experts_learns(train: Train) -> None:
    """Two steps each: B begins at zero, so A learns from the second on."""
    start, _, _ = train("start", 1, **ALL, learning_rate=0.0, high_noise_rate=0.0, audio_rate=0.0, bridge_rate=0.0)
    lora, loss, report = train("every", 4, **ALL)
    assert len(loss["loss"]) == 4
    assert parts(lora) == {"video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"}
    for key in lora:
        if key.endswith("lora_B.weight"):
            assert lora[key].abs().max() > 0, key
        elif key.endswith("lora_A.weight"):
            assert not torch.equal(lora[key], start[key]), key
    assert "4 steps" in report


def test_parts_that_are_not_chosen_are_not_in_the_file(train: Train, comfy_base: Path) -> None:
    lora, _, _ = train("sound_only", 2, parts="sound and bridge")
    assert parts(lora) == {"audio_dit", "dual_tower_bridge"}
    assert set(read_header(comfy_base / LORAS / "sound_only.safetensors").shapes) == set(lora)


def test_the_model_samples_as_before_and_trains_again(run: Run, scene: Scene, train: Train) -> None:
    before = sampled(run, scene, scene.model)
    first, _, _ = train("again_1", 2)
    assert equal(sampled(run, scene, scene.model), before)
    second, _, _ = train("again_2", 2)
    assert same(first, second)  # the same seed is the same run
    modules = list(scene.model.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert torch.is_inference_mode_enabled()


def live(pack: Pack, comfy_base: Path, run: Run, scene: Scene, name: str) -> Any:
    """Sampled with the adapters beside both experts as they were in the last step, in float32."""
    adapters = pack.module("mova_core.training.adapters").Adapters
    kept = state(comfy_base, name)
    found = {key.removeprefix("parameter/"): tensor for key, tensor in kept.items() if key.startswith("parameter/")}
    with ExitStack() as on:
        for expert, model in (("high", scene.model), ("low", scene.model.low)):
            on.enter_context(adapters.attach(model.model.diffusion_model, found, 2.0, expert).beside())
        return sampled(run, scene, scene.model)


def test_every_loader_makes_of_the_lora_what_it_was_while_it_learned(
    run: Run, pack: Pack, scene: Scene, train: Train, comfy_base: Path
) -> None:
    import comfy.model_management

    lora, _, _ = train("loads", 4, **ALL)
    plain = sampled(run, scene, scene.model)
    by_name = sampled(run, scene, run("MOVALoraLoader", model=scene.model, lora_name="loads.safetensors")[0])
    assert error(by_name, plain) > 1e-3
    assert error(live(pack, comfy_base, run, scene, "loads"), by_name) < 1e-2
    by_model = sampled(run, scene, run("LoraModelLoader", model=scene.model, lora=lora)[0])
    assert error(by_model, by_name) < 1e-4
    by_stock = run("LoraLoaderModelOnly", model=scene.model, lora_name="loads.safetensors", strength_model=1.0)[0]
    assert error(sampled(run, scene, by_stock), by_name) < 1e-4
    bypassed = run("LoraModelLoader", model=scene.model, lora=lora, bypass=True)[0]
    assert error(sampled(run, scene, bypassed), by_name) < 1e-2
    assert not comfy.model_management.in_training
    told = read_header(comfy_base / LORAS / "loads.safetensors").metadata
    assert (told["ss_network_dim"], told["ss_steps"], told["rank"]) == ("2", "4", "2")


def test_a_run_goes_on_bit_for_bit(train: Train, comfy_base: Path) -> None:
    straight, _, _ = train("straight", 6, save_every=2, keep=1)
    train("parted", 3)
    parted, loss, _ = train("parted", 6)
    assert same(straight, parted)
    assert len(loss["loss"]) == 6
    one, other = state(comfy_base, "straight"), state(comfy_base, "parted")
    assert same(one, other)
    assert [p.name for p in sorted((comfy_base / LORAS).glob("straight-*"))] == ["straight-000004.safetensors"]
    done, _, report = train("parted", 6)  # nothing is left to do
    assert same(done, parted)
    assert report.startswith("Nothing was left to do: raise steps, set begin_anew, or give another name")
    assert "6 steps of 1 sample in" in report
    assert "6 of them before this run" in report
    assert "to go on with: mova_training/runs/parted, in the output folder" in report


@pytest.mark.parametrize("optimizer", ["adamw8bit"])
def test_eight_bit_moments_go_on_too(train: Train, comfy_base: Path, optimizer: str) -> None:
    straight, _, _ = train("small", 4, optimizer=optimizer)
    train("small_parted", 2, optimizer=optimizer)
    assert same(train("small_parted", 4, optimizer=optimizer)[0], straight)
    codes = {t.dtype for key, t in state(comfy_base, "small").items() if key.endswith("codes")}
    assert codes == {torch.int8}


def test_a_run_that_was_begun_otherwise_is_not_gone_on_with(train: Train) -> None:
    train("other", 2)
    with pytest.raises(Exception, match="rank 2, now 3"):
        train("other", 4, rank=3)
    with pytest.raises(Exception, match=r"alpha 2, now 7\.0"):
        train("other", 4, alpha=7.0)
    lora, _, _ = train("other", 2, rank=3, begin_anew=True)
    assert lora["audio_dit.blocks.0.self_attn.q.lora_A.weight"].shape[0] == 3


def saves(base: Path, name: str) -> list[str]:
    return sorted(path.stem.removeprefix(name) for path in (base / LORAS).glob(f"{name}-*.safetensors"))


def test_saves_on_the_way_go_by_age_whatever_they_are_called(train: Train, comfy_base: Path) -> None:
    """Those of a run that was begun anew are the oldest; a file of another run is nobody's to delete."""
    train("kept-000009", 1)
    train("kept", 4, save_every=1, keep=2, audio_rate=0.0)
    assert saves(comfy_base, "kept") == ["-000002", "-000003", "-000009"]
    train("kept", 3, save_every=1, keep=2, begin_anew=True)
    assert saves(comfy_base, "kept") == ["-000001", "-000002", "-000009"]
    _, _, report = train("kept", 6, save_every=1, keep=1, naming="diffsynth")
    components = [f"-000005_{part}" for part in ("audio_dit", "dual_tower_bridge")]
    assert saves(comfy_base, "kept") == [*components, "-000009"]
    assert "saved among the LoRAs: kept_audio_dit.safetensors, kept_dual_tower_bridge.safetensors" in report


@pytest.mark.parametrize("memory", ["auto", "normal"])
def test_a_step_that_does_not_fit_takes_the_low_path_or_says_what_would_help(
    train: Train, pack: Pack, comfy_base: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = pack.module("nodes.host.training.samples").Samples
    plain, paths = samples.learn, []

    def full(self: Any, *given: Any) -> tuple[float, float]:
        paths.append(self.low)
        if len(paths) > 2 and not self.low:
            plain(self, *given)  # there are gradients already
            raise torch.OutOfMemoryError("Tried to allocate 1.00 GiB")
        return plain(self, *given)

    monkeypatch.setattr(samples, "learn", full)
    name = f"too_large_{memory}"
    if memory == "auto":
        lora, _, report = train(name, 4)
        assert paths == [False] * 3 + [True] * 2
        assert "low-memory path" in report
        monkeypatch.undo()
        straight, _, _ = train("large_enough", 4)
        for key in straight:
            torch.testing.assert_close(lora[key], straight[key], rtol=2e-2, atol=1e-4)
        return
    with pytest.raises(Exception, match=r"step 3 did not fit the device .Tried to allocate.*set memory to 'low'"):
        train(name, 4, memory=memory)
    assert read_header(comfy_base / LORAS / f"{name}.safetensors").metadata["ss_steps"] == "2"


class Interrupt:
    """Cancels before layer number `at` of all that run."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self) -> None:
        import comfy.model_management

        self.at -= 1
        if self.at == 0:
            raise comfy.model_management.InterruptProcessingException


@pytest.mark.parametrize("layer", [20, 27])
def test_cancelling_within_a_layer_keeps_all_whole_steps(
    run: Run, scene: Scene, train: Train, straight: dict[str, Tensor], layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers run 12 times a step of one sample here: the second, in both directions, and the third step."""
    import comfy.model_management

    before = sampled(run, scene, scene.model)
    name = f"cancelled_{layer}"
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", Interrupt(layer))
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            train(name, 4)
    assert equal(sampled(run, scene, scene.model), before)
    assert same(train(name, 4)[0], straight)


def test_a_loss_that_is_no_number_stops_it_and_keeps_what_was_saved(
    train: Train, pack: Pack, comfy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, _, _ = train("nan", 2)
    samples = pack.module("nodes.host.training.samples").Samples
    plain = samples.learn
    monkeypatch.setattr(
        samples, "learn", lambda self, expert, count, scale: (float("nan"), plain(self, expert, count, scale)[1])
    )
    with pytest.raises(Exception, match=r"step 3, .*no(ise|t).*nan.*clip_|step 3.*nan"):
        train("nan", 4)
    monkeypatch.undo()
    assert same(load_file(comfy_base / LORAS / "nan.safetensors"), good)
    train("nan", 4)


def test_a_disk_that_fills_up_is_named_before_the_first_step(
    train: Train, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pack.module("mova_core.training.files")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr(pack.module("nodes.host.training.loop").Trainer, "train", lambda self: pytest.fail("it began"))
    with pytest.raises(Exception, match="GiB free"):
        train("full", 2)


def test_a_save_that_fails_leaves_the_one_before(
    train: Train, straight: dict[str, Tensor], comfy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, _, _ = train("fills", 2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left"):
        train("fills", 4)
    monkeypatch.undo()
    assert same(load_file(comfy_base / LORAS / "fills.safetensors"), good)
    assert same(train("fills", 4)[0], straight)


def lora_on(run: Run, scene: Scene, train: Train) -> Any:
    lora, _, _ = train("on", 1)
    return run("LoraModelLoader", model=scene.model, lora=lora)[0]


def bypassed(run: Run, scene: Scene, train: Train) -> Any:
    lora, _, _ = train("on", 1)
    return run("LoraModelLoader", model=scene.model, lora=lora, bypass=True)[0]


def compiled(run: Run, scene: Scene, train: Train) -> Any:
    return run("TorchCompileModel", model=scene.model, backend="inductor")[0]


def hooked(run: Run, scene: Scene, train: Train) -> Any:
    """As ComfyUI registers the hooks of a conditioning."""
    import comfy.hooks

    train("on", 1)
    hooks = run("CreateHookLoraModelOnly", lora_name="on.safetensors", strength_model=1.0)[0]
    model = scene.model.clone()
    model.register_all_hook_patches(hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
    assert model.hook_patches
    return model


def hooked_in_low(run: Run, scene: Scene, train: Train) -> Any:
    model = scene.model.clone()
    model.low.hook_patches = hooked(run, scene, train).low.hook_patches
    assert model.low.hook_patches
    assert not model.hook_patches
    return model


def cached(run: Run, scene: Scene, train: Train) -> Any:
    return run("EasyCache", model=scene.model)[0]


def block_patched(run: Run, scene: Scene, train: Train) -> Any:
    model = scene.model.clone()
    model.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    return model


@pytest.mark.parametrize(
    "touched", [lora_on, bypassed, compiled, hooked, hooked_in_low, cached, block_patched], ids=lambda f: f.__name__
)
def test_a_model_that_is_not_as_it_was_loaded_is_refused(
    run: Run, scene: Scene, train: Train, touched: Callable[..., Any]
) -> None:
    with pytest.raises(Exception, match="as it was loaded"):
        train("touched", 2, model=touched(run, scene, train))


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_hook_on_a_module_of_either_expert_is_refused(scene: Scene, train: Train, kind: str) -> None:
    expert = scene.model.low if "pre" in kind else scene.model
    register = getattr(expert.model.diffusion_model.blocks[0].ffn, f"register_{kind}_hook")
    handle = register(lambda *_: None)
    try:
        with pytest.raises(Exception, match="has hooks on its modules"):
            train("hooked", 1)
    finally:
        handle.remove()
    train("hooked", 1)


def test_a_loaders_own_packing_is_refused(run: Run, train: Train) -> None:
    model = run("MOVALoader", folder="tiny", weight_dtype="fp32")[0]
    layer = model.model.diffusion_model.blocks[0].ffn[0]
    layer.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(Exception, match=r"blocks.0.ffn.0.weight is packed as uint8"):
        train("packed", 2, model=model)


def test_too_little_host_memory_is_named_before_the_first_step(
    train: Train, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy.model_management.get_free_memory", lambda *_, **__: 10.0)
    with pytest.raises(Exception, match="of layers' inputs in host memory"):
        train("cramped", 2)


def test_the_low_path_teaches_the_same(train: Train, resident: dict[str, Tensor]) -> None:
    low = train("low", 3, **ALL, memory="low")[0]
    for key in resident:
        torch.testing.assert_close(low[key], resident[key], rtol=2e-2, atol=1e-4)


@dataclass
class Long:
    """A run of 50 steps: at some of them, what is alive then; and losses of the fixed samples at two."""

    tensors: dict[int, int] = field(default_factory=dict)
    shelf: dict[int, int] = field(default_factory=dict)  # bytes of the memory of layers' inputs
    ours: dict[int, Counter[str]] = field(default_factory=dict)  # objects of the pack's own classes
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    trainer: Any = None

    def look(self, trainer: Any) -> None:
        step = trainer.run.step
        if step in (10, 50):
            gc.collect()
            alive = gc.get_objects()
            self.tensors[step] = sum(issubclass(type(each), torch.Tensor) for each in alive)
            kinds = [type(each) for each in alive]
            pack = type(trainer).__module__.removesuffix(".nodes.host.training.loop")
            self.ours[step] = Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith(pack))
            self.shelf[step] = trainer.samples.shelf.memory.nbytes
            self.trainer = trainer
        self.evaluations = trainer.run.evaluations


@pytest.fixture(scope="module")
def long(pack: Pack, run: Run, scene: Scene, data: Any) -> Long:
    found, trainer = Long(), pack.module("nodes.host.training.loop").Trainer
    plain = trainer._between
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(trainer, "_between", lambda self, saved: (plain(self, saved), found.look(self))[0])
        given = {**QUICK, "alternate": 2, "evaluate_every": 25}
        run("MOVATrainLora", model=scene.model, clips=data, name="long", steps=50, **given)
    return found


def test_host_memory_that_others_pinned_is_given_back_for_a_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI fills it with copies of weights; it knows nothing of what else a run needs."""
    import comfy.model_management as management

    free, asked = {"now": 0}, []

    def give_back(size: float, evict_active: bool) -> bool:
        asked.append(evict_active)
        free["now"] = 2**40
        return True

    monkeypatch.setattr(management, "ensure_pin_budget", give_back)
    monkeypatch.setattr(management, "get_free_memory", lambda device: free["now"])
    train("given_back", 1)
    assert asked == [True]
    monkeypatch.setattr(management, "ensure_pin_budget", lambda size, evict_active: False)
    free["now"] = 0
    with pytest.raises(Exception, match=r"layers' inputs in host memory, of which 0\.0 are free"):
        train("not_given_back", 1)


@pytest.mark.parametrize("name", ["", "a/b", "..", "face.v2", "con", "NUL", "com1"])
def test_a_name_that_is_no_name_of_a_file_everywhere_is_refused(train: Train, name: str) -> None:
    with pytest.raises(Exception, match="cannot name a"):
        train(name, 1)


def test_clips_of_other_sizes_share_the_host_memory_of_the_largest(pack: Pack) -> None:
    weights = pack.module("nodes.host.training.weights")
    device = torch.device("cpu")
    shelf = weights.HostShelf(device, 4 * 100 + 2 * weights.SHELF_GRAIN)
    for sizes in ((60, 40), (10, 7), (100,)):
        states = [torch.randn(size) for size in sizes]
        memory = shelf.empty().memory.data_ptr()
        for state in states:
            shelf.put(state)
        for state in reversed(states):
            assert torch.equal(shelf.take(), state)
        assert shelf.memory.data_ptr() == memory


def test_fifty_steps_keep_no_more_than_ten(long: Long) -> None:
    """What a step adds is the record of its losses."""
    assert long.tensors[50] <= long.tensors[10] + 5
    assert long.shelf[50] == long.shelf[10] > 0
    assert long.trainer.samples.shelf.memory.nbytes == 0  # given back at the end
    assert long.ours[50] - long.ours[10] == {"Record": 40}


def test_fixed_samples_get_better(long: Long) -> None:
    first, middle, last = long.evaluations
    assert [each["step"] for each in (first, middle, last)] == [0, 25, 50]
    for expert in ("high", "low"):
        assert sum(last[expert]) < sum(first[expert]), (expert, first, last)


def test_one_expert_alone_trains_itself(run: Run, scene: Scene, train: Train) -> None:
    high, low = run("MOVASplitExperts", model=scene.model)
    lora, _, _ = train("high_alone", 2, model=high, parts="high-noise expert")
    assert parts(lora) == {"video_dit"}
    assert same(lora, train("high_of_both", 2, parts="high-noise expert")[0])
    with pytest.raises(Exception, match="lacks the high-noise expert"):
        train("low_alone", 2, model=low, parts="high-noise expert")


@pytest.mark.parametrize("expert", ["high", "low"])
def test_one_expert_alone_trains_sound_and_bridge_at_its_own_noise(
    run: Run, scene: Scene, train: Train, pack: Pack, expert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, turns = pack.module("nodes.host.training.samples").Samples, []
    plain = samples.learn
    monkeypatch.setattr(samples, "learn", lambda self, who, *given: turns.append(who) or plain(self, who, *given))
    alone = run("MOVASplitExperts", model=scene.model)[expert == "low"]
    assert parts(train(f"sound_of_{expert}", 3, model=alone)[0]) == {"audio_dit", "dual_tower_bridge"}
    assert turns == [expert] * 3


def test_what_is_on_the_model_for_sampling_alone_is_told(run: Run, scene: Scene, train: Train) -> None:
    lora, _, report = train("plain_model", 1)
    assert "of no effect" not in report
    model = run("MOVABridgeStrength", model=scene.model, video_to_audio=0.5)[0]
    model = run("ModelSamplingSD3", model=model, shift=3.0)[0]
    other, _, report = train("set_for_sampling", 1, model=model)
    assert same(lora, other)
    assert "on the MODEL, of no effect in training: bridge strength, another shift" in report


RATE_NAMES = {
    "high_noise_rate": "video_dit",
    "learning_rate": "video_dit_2",
    "audio_rate": "audio_dit",
    "bridge_rate": "dual_tower_bridge",
}


@pytest.mark.parametrize("rate", RATE_NAMES)
def test_each_rate_is_that_of_its_part(train: Train, rate: str) -> None:
    rates = {**dict.fromkeys(RATE_NAMES, 0.0), rate: 1e-2}
    lora, _, _ = train(f"rate_{rate}", 2, **{**ALL, "layers": "attention"}, **rates)
    moved = {key.split(".")[0] for key in lora if "lora_B" in key and lora[key].any()}
    assert moved == {RATE_NAMES[rate]}


def test_captions_and_the_bridge_are_left_out_as_often_as_asked(train: Train, data: Any) -> None:
    from dataclasses import replace

    blank = replace(data, clips=tuple(replace(clip, prompt=data.blank) for clip in data.clips))
    without, _, _ = train("no_captions", 2, caption_dropout=1.0)
    assert same(without, train("blank_captions", 2, clips=blank, caption_dropout=0.0)[0])
    assert not same(without, train("captions", 2, caption_dropout=0.0)[0])
    cut, _, _ = train("no_bridge", 2, parts="bridge", bridge_dropout=1.0)
    assert not any(tensor.any() for key, tensor in cut.items() if "lora_B" in key)
    assert any(tensor.any() for key, tensor in train("bridge", 2, parts="bridge")[0].items() if "lora_B" in key)


def test_each_weight_of_a_layer_is_brought_exactly_twice_a_step(
    scene: Scene, train: Train, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, brought = pack.module("nodes.host.training.weights"), Counter[int]()
    plain = weights._cast
    monkeypatch.setattr(weights, "_cast", lambda module, *given: brought.update([id(module)]) or plain(module, *given))
    train("brought", 1, parts="high-noise expert", layers="all")
    layers = scene.model.model.diffusion_model.layer_modules()
    ours = {
        id(m) for layer in layers for root in layer for m in root.modules() if getattr(m, "weight", None) is not None
    }
    counted = {brought[each] for each in ours if each in brought}
    assert counted == {2}
    assert len([each for each in ours if each in brought]) > 10 * len(layers)


def test_a_step_tells_pace_time_to_go_and_both_losses_of_each_expert(
    train: Train, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pack.module("nodes.host.messages"), "show", lambda text, node_id: told.append(text))
    train("told", 2)
    number = r"[\d.e-]+"
    assert re.fullmatch(
        rf"Step 2 of 2, low: {number} s a step, 0\.0 s to go\nhigh-noise expert: picture {number}, sound {number}\n"
        rf"low-noise expert: picture {number}, sound {number}",
        told[1],
    ), told[1]


def test_another_model_or_data_set_is_refused(run: Run, pack: Pack, scene: Scene, train: Train, data: Any) -> None:
    from dataclasses import replace

    with pytest.raises(Exception, match="name a LoRA"):
        train("../up", 2)
    with pytest.raises(Exception, match="previews need vae"):
        train("p", 2, preview_every=1)
    gone = replace(data, clips=(replace(data.clips[0], media=Path("/nowhere/x.safetensors")),))
    with pytest.raises(Exception, match="run 'MOVA Training Clips' again"):
        train("gone", 2, clips=gone)


def test_previews_losses_and_their_picture(
    run: Run, scene: Scene, train: Train, straight: dict[str, Tensor], comfy_base: Path
) -> None:
    from PIL import Image

    before = sampled(run, scene, scene.model)
    _, loss, report = train(
        "watched", 4, preview_every=2, evaluate_every=2, preview_steps=2, vae=scene.vae, audio_vae=scene.audio_vae
    )
    folder = comfy_base / "output" / "mova_training" / "runs" / "watched"
    assert sorted(p.name for p in folder.glob("*.mp4")) == ["preview-000002.mp4", "preview-000004.mp4"]
    assert "fixed samples before training: high picture" in report
    assert "fixed samples after step 4" in report
    with Image.open(comfy_base / LORAS / "watched.png") as image:
        assert image.size == (960, 540)
    run("LossGraphNode", loss=loss)
    assert equal(sampled(run, scene, scene.model), before)
    assert same(straight, load_file(comfy_base / LORAS / "watched.safetensors"))


def test_a_picture_of_losses_that_cannot_be_written_costs_nothing_else(
    pack: Pack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    record = pack.module("mova_core.training.run").Record(0, "high", 1.0, 2.0, 3.0)
    pack.module("nodes.host.training.views").curve(tmp_path / "file" / "face.png", [record], [])
    assert "the losses of face are not drawn" in caplog.text


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_under_dynamic_vram_the_same_is_learned(
    pack: Pack,
    diffusers: Path,
    train: Train,
    resident: dict[str, Tensor],
    room: float,
    streams: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card(room, streams)
    model = on_card(pack, diffusers, card, monkeypatch)
    model.model_options["transformer_options"].clear()
    found, _, _ = train("streamed", 3, **ALL, model=model, begin_anew=True)
    assert same(found, resident)
    assert not any(+places.pinned for places in card.models)


def test_copied_weights_teach_what_resident_ones_do(
    train: Train, resident: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight is left in host memory, as without dynamic VRAM on a small card: what computes gets a copy."""
    import comfy.model_management

    real = comfy.model_management.cast_to
    monkeypatch.setattr(
        comfy.model_management, "cast_to", lambda weight, *a, **k: real(weight, *a, **{**k, "copy": True})
    )
    assert same(train("copied", 3, **ALL)[0], resident)


@pytest.mark.parametrize("weight_dtype", ["int8", "fp8_e4m3fn"])
def test_quantised_weights_are_unpacked_once_a_window_and_teach_what_they_hold(
    run: Run, pack: Pack, train: Train, weight_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy.quant_ops import QuantizedTensor

    model = run("MOVALoader", folder="tiny", weight_dtype=weight_dtype)[0]
    packed = sum(isinstance(p.data, QuantizedTensor) for p in model.model.diffusion_model.parameters())
    assert packed
    unpacked: list[int] = []
    plain = QuantizedTensor.dequantize
    monkeypatch.setattr(QuantizedTensor, "dequantize", lambda self: unpacked.append(1) or plain(self))
    found, _, _ = train(f"packed_{weight_dtype}", 1, model=model, parts="high-noise expert", caption_dropout=0.0)
    layers = [m for layer in model.model.diffusion_model.layer_modules() for root in layer for m in root.modules()]
    held = {
        id(m)
        for m in layers
        if isinstance(getattr(m, "weight", None), QuantizedTensor)
        or isinstance(getattr(getattr(m, "weight", None), "data", None), QuantizedTensor)
    }
    assert held
    assert len(unpacked) <= 2 * len(held) + 40  # once there, once back; the rest are embeddings and heads
    monkeypatch.undo()
    for each in (model, model.low):
        for module in each.model.diffusion_model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(getattr(weight, "data", None), QuantizedTensor):
                module.weight = torch.nn.Parameter(weight.data.dequantize(), requires_grad=False)
                module.comfy_force_cast_weights = True
    wanted, _, _ = train(f"unpacked_{weight_dtype}", 1, model=model, parts="high-noise expert", caption_dropout=0.0)
    assert same(found, wanted)
