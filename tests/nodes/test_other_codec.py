"""A checkpoint whose codec has another rate and hop: every node counts the sound as audio_vae/config.json says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from safetensors.torch import load_file

from mova_core.checkpoint.convert import convert
from mova_core.config import AudioVAEConfig
from tests.comfy import needs_comfy
from tests.fixtures.clips import write_folder
from tests.fixtures.tiny_checkpoint import TINY, write_tiny_checkpoint
from tests.in_process import Pack
from tests.nodes.executor import Executor
from tests.nodes.graph import Run, Scene, streams

pytestmark = needs_comfy

FRAMES, FPS, RATE, HOP = 9, 24.0, 16000, 30
STEPS, SAMPLES = 200, 6000  # 0.375 s
CODEC = AudioVAEConfig(
    encoder_width=2, encoder_rates=(5, 6), decoder_width=8, decoder_rates=(6, 5), latent_channels=8, sample_rate=RATE
)


@pytest.fixture(scope="module")
def loaded(run: Run, diffusers: Path) -> tuple[Any, ...]:
    write_tiny_checkpoint(diffusers / "other_codec", sizes=replace(TINY, audio_vae=CODEC))
    with torch.inference_mode():
        return run("MOVALoader", folder="other_codec", weight_dtype="default")


@pytest.fixture(scope="module")
def clip(run: Run, loaded: tuple[Any, ...], scene: Scene) -> Any:
    size = {"width": 80, "height": 48, "frames": FRAMES, "fps": FPS, "batch_size": 1}
    pair = {"positive": scene.positive, "negative": scene.negative}
    with torch.inference_mode():
        return run("MOVAImageToVideoAudio", vae=loaded[2], **pair, **size)[-1]


def test_a_clip_begins_with_as_many_sound_steps_as_the_codec_needs(clip: Any, loaded: tuple[Any, ...]) -> None:
    assert streams(clip)[1].shape[-1] == STEPS
    empty = loaded[0].model.latent_format.fix_empty_latent(torch.zeros(1, 16, 3, 6, 10))
    assert empty.unbind()[1].shape[-1] == STEPS  # a stock video latent too


def test_the_sound_comes_out_at_the_codecs_rate_and_at_the_pictures_length(
    run: Run, clip: Any, loaded: tuple[Any, ...]
) -> None:
    _, sound, fps = run("MOVADecode", latent=clip, vae=loaded[2], audio_vae=loaded[3], tile_size=0, overlap=64)
    assert (sound["sample_rate"], sound["waveform"].shape[-1], fps) == (RATE, SAMPLES, FPS)


def test_a_span_of_the_sound_is_counted_in_the_codecs_steps(run: Run, clip: Any) -> None:
    (masked,) = run("MOVAMask", latent=clip, picture="nothing", sound="span", start=0.1, end=0.2)
    assert masked["noise_mask"].unbind()[1].flatten().nonzero().flatten().tolist() == list(range(53, 107))


def test_a_given_sound_is_held_whole(run: Run, clip: Any, loaded: tuple[Any, ...]) -> None:
    sound = {"waveform": torch.rand(1, 1, SAMPLES) - 0.5, "sample_rate": RATE}
    kept, heard = run("MOVASoundToPicture", latent=clip, audio=sound, audio_vae=loaded[3])
    assert streams(kept)[1].shape[-1] == STEPS
    assert heard["waveform"].shape[-1] == SAMPLES


def test_the_latent_of_one_codec_and_another_codec_are_refused_together(
    run: Run, clip: Any, loaded: tuple[Any, ...], scene: Scene, pack: Pack
) -> None:
    with pytest.raises(pack.module("mova_core.errors").ShapeError, match="Make the latent with the VAE of the same"):
        run("MOVADecode", latent=clip, vae=loaded[2], audio_vae=scene.audio_vae, tile_size=0, overlap=64)


def test_converted_files_know_the_codec_too(
    run: Run, loaded: tuple[Any, ...], comfy_base: Path, diffusers: Path
) -> None:
    (file,) = convert(diffusers / "other_codec", comfy_base / "models", parts=["merged"])
    same = "in the high-noise file"
    (model,) = run("MOVAModelLoader", high_noise=file.path.name, low_noise=same, shared=same, weight_dtype="default")
    assert model.model.latent_format.audio_grid == loaded[0].model.latent_format.audio_grid


def test_a_video_vae_that_knows_no_codec_is_told_of_it(run: Run, loaded: tuple[Any, ...], scene: Scene) -> None:
    pair = {"positive": scene.positive, "negative": scene.negative, "vae": loaded[2], "fps": FPS}
    size = {"width": 80, "height": 48, "frames": FRAMES, "batch_size": 1}
    shown = torch.rand(FRAMES, 48, 80, 3)
    kept = {name: loaded[2].__dict__.pop(name) for name in ("audio_grid", "audio_latent_channels")}
    try:
        for node, inputs in (("MOVAImageToVideoAudio", size), ("MOVAPictureToSound", {"images": shown})):
            published = run(node, **pair, **inputs)[2]
            told = run(node, **pair, **inputs, audio_vae=loaded[3])[2]
            assert streams(published)[1].shape[-1] == 19
            assert streams(told)[1].shape[-1] == STEPS
    finally:
        loaded[2].__dict__.update(kept)


def test_clips_to_learn_from_and_the_lora_know_the_codec(
    run: Run, loaded: tuple[Any, ...], comfy_base: Path, tmp_path: Path
) -> None:
    model, clip, vae, audio_vae = loaded
    write_folder(tmp_path, 1)
    size = {"width": 80, "height": 48, "frames": FRAMES}
    coders = {"clip": clip, "vae": vae, "audio_vae": audio_vae}
    with torch.inference_mode():
        clips, _, heard, _ = run("MOVATrainingClips", **coders, folder=str(tmp_path), **size)
        assert (heard["sample_rate"], heard["waveform"].shape[-1]) == (RATE, SAMPLES)
        assert load_file(clips.clips[0].media)["audio"].shape[-1] == STEPS
        few = {"rank": 2, "parts": "sound and bridge", "layers": "attention", "evaluate_every": 0}
        lora, _, report = run("MOVATrainLora", model=model, clips=clips, name="other_codec", steps=1, **few)
    assert lora
    assert report.startswith("1 step")


def test_a_film_knows_the_codec(
    run: Run, loaded: tuple[Any, ...], pack: Pack, stock: dict[str, type], comfy_base: Path
) -> None:
    models = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "audio_vae": ["1", 3]}
    shots = "sound: rain\n[one] 9 frames\nIt purrs.\n[two] goes on, 8 frames, overlap 5\nIt sleeps."
    steps = {"steps": 1, "cfg": 1.0, "shift": 5.0, "audio_shift": 5.0, "sampler": "euler", "scheduler": "mova"}
    film = {"width": 32, "height": 32, "fps": FPS, "seed": 3, "negative_prompt": "", "tile_size": 0}
    film |= {"size_limit": 50.0, "match_sound": "no", "match_picture": "no"}
    ran = Executor()(
        {
            "1": {"class_type": "MOVALoader", "inputs": {"folder": "other_codec", "weight_dtype": "default"}},
            "2": {"class_type": "MOVAShotsFromText", "inputs": {"text": shots}},
            "3": {"class_type": "MOVAFilmSampler", "inputs": {**steps, "denoise": 1.0}},
            "4": {
                "class_type": "MOVAFilm",
                "inputs": {**models, "shots": ["2", 0], "settings": ["3", 0], "name": "other_codec", **film},
            },
        }
    )
    assert not ran.error, ran.error
    (file,) = (comfy_base / "output" / "mova_films" / "other_codec").glob("film_*.mp4")
    with av.open(str(file)) as container:
        (sound,) = container.streams.audio
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / sound.rate
    assert sound.rate == RATE
    assert seconds == pytest.approx(17 / FPS, abs=0.07)
