"""What newer versions of ComfyUI ask and give, by stand-ins of their signatures where the one at hand is older."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy import needs_comfy
from tests.fixtures.clips import write_clip
from tests.in_process import Pack
from tests.nodes import graph
from tests.nodes.conftest import PROMPT
from tests.nodes.graph import FPS, Run, Scene, equal, error, streams

pytestmark = needs_comfy


sampled = partial(graph.sampled, cfg=5.0)


@pytest.mark.parametrize("newer", [{"memory_efficient_attention": None}, {"model_options": {}}, {"of_tomorrow": 1}])
def test_an_estimate_of_memory_may_be_asked_with_more(scene: Scene, newer: dict[str, Any]) -> None:
    model, shape = scene.model.model, [2, 1, 4096]
    assert model.memory_required(shape, cond_shapes={}, **newer) == model.memory_required(shape)


@pytest.fixture
def disks(comfy_nodes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A ComfyUI that asks of each patcher whether its files lie on a fast disk; what it was told."""
    from comfy.model_patcher import ModelPatcher

    told: list[bool] = []
    real = ModelPatcher.__init__

    def init(self: Any, model: Any, load_device: Any, offload_device: Any, *rest: Any, **more: Any) -> None:
        told.append(more.pop("fast_disk", False))
        real(self, model, load_device, offload_device, *rest, **more)

    storage = ModuleType("comfy.storage")
    storage.state_dict_fast_disk = lambda tensors: all(isinstance(t, Tensor) for t in tensors.values())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy.storage", storage)
    monkeypatch.setattr(ModelPatcher, "__init__", init)
    return told


def test_experts_and_codec_are_read_again_from_a_fast_disk(run: Run, diffusers: Any, disks: list[bool]) -> None:
    run("MOVALoader", folder="tiny", weight_dtype="default")
    assert sum(disks) >= 3  # two experts and the codec; the video VAE's and the CLIP's patchers are ComfyUI's to make
    disks.clear()
    run("MOVALoader", folder="tiny", weight_dtype="fp16")
    assert sum(disks) == 1  # converted experts lie on no disk


class Scopes:
    """The stack of a compiler of allocations: what `prefetch_queue_pop` of newer versions tells it."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.seen: list[str] = []

    def iterate(self, scope: str | None) -> None:
        if scope is None:
            del self.open[-1:]
            return
        if self.open[-1:] == [scope]:
            self.open.pop()
        self.open.append(scope)
        self.seen.append(scope)
        assert len(self.open) == 1, "layers of one kind within layers of another"


def test_the_compiler_of_allocations_hears_which_layers_are_alike(
    run: Run, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes, calls = Scopes(), []

    def pop(
        queue: Any, device: Any, module: Any, dtype: Any = None, core: Any = None, malloc_scope: str | None = None
    ) -> None:
        assert malloc_scope is not None
        calls.append(module)
        scopes.iterate(malloc_scope if module is not None else None)

    expected = sampled(run, scene, cfg=1.0)
    monkeypatch.setattr("comfy.model_prefetch.prefetch_queue_pop", pop)
    assert equal(sampled(run, scene, cfg=1.0), expected)
    layers = scene.model.model.diffusion_model.layer_modules()
    assert scopes.open == []
    assert len(scopes.seen) == 2 * len(layers)
    assert len(set(scopes.seen)) == len({len(layer) for layer in layers}) > 1
    assert scopes.seen[: len(layers)] == scopes.seen[len(layers) :]  # each forward alike


def test_the_low_noise_expert_belongs_to_the_prompt_that_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.model_patcher import ModelPatcher, PromptModelTracker

    marked = []
    monkeypatch.setattr(ModelPatcher, "is_dynamic", lambda self: True)
    monkeypatch.setattr(
        ModelPatcher, "set_in_use_by_current_prompt", lambda self, used: marked.append((self, used)), raising=False
    )
    tracker = PromptModelTracker()
    tracker.add([scene.model])
    assert (scene.model, True) in marked
    assert (scene.model.low, True) in marked
    tracker.end()
    assert (scene.model.low, False) in marked


def test_it_waits_for_its_first_step_all_the_same(scene: Scene) -> None:
    with scene.model.preparing():
        assert scene.model.low not in scene.model.get_nested_additional_models()
    assert scene.model.low in scene.model.get_nested_additional_models()


def test_a_device_that_an_expert_is_sent_to_is_registered(pack: Pack, scene: Scene) -> None:
    on_device, registered = pack.module("nodes.host.newer").on_device, []
    patcher = scene.model.clone()
    patcher.register_load_device = registered.append
    on_device(patcher, "there", "here")
    assert (patcher.load_device, patcher.offload_device, registered) == ("there", "here", ["there"])


def test_a_preview_may_scale_the_picture_back_by_itself(scene: Scene) -> None:
    from comfy.latent_formats import Wan21

    video = streams(scene.latent)[0]
    assert torch.equal(
        scene.model.model.latent_format.process_out(video[:1, :, :1]), Wan21().process_out(video[:1, :, :1])
    )


@pytest.mark.parametrize("newest", [True, False], ids=["asked", "measured"])
def test_a_video_that_was_cropped_is_what_is_left_of_it(pack: Pack, tmp_path: Path, newest: bool) -> None:
    """Newer 'Load Video' crops without touching the file; a VIDEO says so only in the newest."""
    from comfy_api.latest import InputImpl

    left = write_clip(tmp_path / "left.mp4", size=(48, 32))

    class Cropped(InputImpl.VideoFromFile):  # type: ignore[misc]
        def as_cropped(self, x: int, y: int, width: int, height: int) -> Cropped:
            raise NotImplementedError

        def get_dimensions(self) -> tuple[int, int]:
            return 32, 48

        def save_to(self, path: Any, **how: Any) -> None:
            path.write(left.read_bytes())

    class Whole(InputImpl.VideoFromFile):  # type: ignore[misc]
        as_cropped = None

    if newest:
        Cropped.has_pending_frame_edits = lambda self: True  # type: ignore[attr-defined]
        Whole.has_pending_frame_edits = lambda self: False  # type: ignore[attr-defined]
    path = str(write_clip(tmp_path / "whole.mp4"))
    from_lists = pack.module("nodes.host.training.data_set").from_lists
    probe = pack.module("nodes.host.media.recordings").probe
    (cropped, _), (whole, _) = from_lists([Cropped(path, start_time=0.25), Whole(path, start_time=0.25)], [], "a ball")
    assert (probe(cropped).width, probe(whole).width) == (32, 80)
    assert (cropped.start, whole.start, whole.name) == (0.0, 0.25, "whole.mp4")


class TestPrism:
    """Conditioning and latents as the nodes of core's Prism branch make them, on a MOVA MODEL."""

    @pytest.fixture
    def texts(self, run: Run, scene: Scene) -> Iterator[Any]:
        return run("MOVATextEncode", clip=scene.clip, prompt=PROMPT, negative_prompt="blurry", audio_prompt="Rain.")

    def branch(self, scene: Scene, text: Any, sound: Tensor, fps: float = FPS) -> Any:
        """What `PrismPrepareAV` adds to a CONDITIONING."""
        from comfy.latent_formats import Wan21

        raw = scene.positive[0][1]["concat_latent_image"]
        reference = Wan21().process_in(raw)
        mask = torch.zeros_like(reference[:, :4])
        mask[:, :, 0] = 1
        values = {
            "prism_reference": torch.cat((mask, reference), dim=1),
            "prism_audio_context": sound,
            "prism_fps": fps,
        }
        return [[context, {**options, **values}] for context, options in text]

    def test_first_frame_audio_prompt_and_rate_are_understood(self, run: Run, scene: Scene, texts: Any) -> None:
        ours = run(
            "MOVAImageToVideoAudio",
            positive=texts[0],
            negative=texts[1],
            vae=scene.vae,
            width=80,
            height=48,
            frames=9,
            first_frame=torch.rand(1, 60, 90, 3, generator=torch.Generator().manual_seed(3)),
            fps=FPS,
        )
        expected = sampled(run, scene, positive=ours[0], negative=ours[1], latent=ours[2])
        plain = run("MOVATextEncode", clip=scene.clip, prompt=PROMPT, negative_prompt="blurry")
        sound = texts[0][0][1]["mova_audio_context"]
        theirs = [self.branch(scene, plain[0], sound), self.branch(scene, plain[1], plain[1][0][0])]
        without = [[[c, {**o, "prism_audio_context": c}] for c, o in text] for text in theirs]
        assert error(sampled(run, scene, positive=theirs[0], negative=theirs[1]), expected) < 1e-4
        assert error(sampled(run, scene, positive=without[0], negative=without[1]), expected) > 1e-2

    def test_its_rate_places_the_pictures(self, run: Run, scene: Scene, texts: Any) -> None:
        made = []
        for fps in (12.0, 24.0):
            pair = [self.branch(scene, text, text[0][0], fps) for text in texts]
            made.append(sampled(run, scene, positive=pair[0], negative=pair[1]))
        assert not equal(*made)

    @pytest.mark.parametrize("fps", [24.0, 23.976, 30.0])
    def test_a_joint_latent_of_its_lasts_as_many_samples_as_it_says(self, run: Run, scene: Scene, fps: float) -> None:
        samples = int(48000 * 9 / fps)
        latent = {"samples": scene.latent["samples"], "sample_rate": 48000, "num_samples": samples}
        images, audio, rate = run("MOVADecode", latent=latent, vae=scene.vae, audio_vae=scene.audio_vae)
        assert (len(images), audio["waveform"].shape[-1]) == (9, samples)
        assert rate == pytest.approx(fps, rel=1e-3)

    def test_a_batch_that_does_not_fit_is_refused(self, run: Run, scene: Scene, texts: Any) -> None:
        pair = [self.branch(scene, text, text[0][0]) for text in texts]
        for text in pair:
            text[0][1]["prism_reference"] = text[0][1]["prism_reference"].repeat(3, 1, 1, 1, 1)
        with pytest.raises(ValueError, match="first frames for a batch of 3"):
            sampled(run, scene, positive=pair[0], negative=pair[1])
