"""A film: which shots are made again, and what is kept, on the tiny checkpoint in ComfyUI's own executor."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.comfy import needs_comfy
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tests.fixtures.tiny_lora import write_tiny_lora
from tests.in_process import Pack
from tests.nodes.executor import Executor, Graph, Ran
from tests.nodes.graph import Run
from tests.nodes.processes import ended, forked, killed, needs_fork
from tools.routes.media import describe_mp4, write_mp4

pytestmark = needs_comfy

SIX = """Anna: a woman in a red coat; warm
sound: rain
[one] 5 frames
A cat sits.
[two] goes on, 4 frames, overlap 5
It stands up.
[three] 5 frames
A dog barks.
[four] 5 frames
A door opens.
[five] goes on, 4 frames, overlap 5
Someone comes in.
[six] 5 frames
A street.
"""
SMALL = {"width": 32, "height": 32, "fps": 24.0, "seed": 3, "negative_prompt": "blurry"}
FILM = {"match_sound": "no", "match_picture": "no", "tile_size": 0, "size_limit": 50.0}


def graph(text: str, name: str, **changes: Any) -> Graph:
    """Loader, shots, settings and the film; `changes` of the film's inputs."""
    models = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "audio_vae": ["1", 3]}
    settings = {"steps": 1, "cfg": 1.0, "shift": 5.0, "audio_shift": 5.0, "sampler": "euler", "scheduler": "mova"}
    return {
        "1": {"class_type": "MOVALoader", "inputs": {"folder": "tiny", "weight_dtype": "fp32"}},
        "2": {"class_type": "MOVAShotsFromText", "inputs": {"text": text}},
        "3": {"class_type": "MOVAFilmSampler", "inputs": {**settings, "denoise": 1.0}},
        "4": {
            "class_type": "MOVAFilm",
            "inputs": {**models, "shots": ["2", 0], "settings": ["3", 0], "name": name, **SMALL, **FILM, **changes},
        },
    }


class Studio:
    """Runs films and counts the sampler's calls; models and encoded prompts stay cached from test to test."""

    def __init__(self, calls: list[Any], films: Path, *cache: Any, **sizes: float) -> None:
        self.calls, self.films, self.executor = calls, films, Executor(*cache, **sizes)

    def restarted(self, *cache: Any, **sizes: float) -> Studio:
        """The same after a restart: nothing is cached."""
        return Studio(self.calls, self.films, *cache, **sizes)

    def __call__(self, given: Graph) -> Ran:
        self.calls.clear()
        return self.executor(given)

    def made(self, given: Graph) -> int:
        """Calls of the sampler in a run that must succeed."""
        ran = self(given)
        assert not ran.error, ran.error
        return len(self.calls)


@pytest.fixture(scope="module")
def studio(pack: Pack, stock: dict[str, type], diffusers: Path, comfy_base: Path) -> Iterator[Studio]:
    calls: list[Any] = []
    sampler: Any = pack.nodes["MOVASampler"]
    run = sampler.run.__func__

    def counted(cls: Any, **given: Any) -> Any:
        calls.append(given["seed"])
        return run(cls, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "run", classmethod(counted))
        yield Studio(calls, comfy_base / "output" / "mova_films")


@pytest.fixture(scope="module")
def six(studio: Studio) -> Studio:
    """With the film of six shots made."""
    assert studio.made(graph(SIX, "six")) == 6
    return studio


def takes_of(film: Path, shot: str) -> list[Path]:
    """Folders of a shot's takes; what was set aside is not among them."""
    return sorted((film / shot).glob("[!.]*"))


def test_a_changed_shot_and_what_goes_on_from_it_are_made_again_and_no_other(six: Studio) -> None:
    assert six.made(graph(SIX, "six")) == 0
    changed = SIX.replace("A door opens.", "A gate opens.")
    assert six.made(graph(changed, "six")) == 2
    assert six.made(graph(SIX, "six")) == 0


def test_after_a_restart_in_another_order_and_renamed_nothing_is_made_again(six: Studio) -> None:
    again = six.restarted()
    assert again.made(graph(SIX, "six")) == 0
    blocks = SIX.split("[")
    moved = "[".join([blocks[0], *(blocks[n] for n in (6, 4, 5, 1, 2, 3))])
    assert again.made(graph(moved, "six")) == 0
    assert again.made(graph(SIX.replace("[one]", "[first]"), "six")) == 0
    changed = SIX.replace("A door opens.", "A wall falls.")
    assert six.restarted().made(graph(changed, "six")) == 2


def test_a_film_whose_file_was_cut_off_is_put_together_again(six: Studio) -> None:
    for file in (six.films / "six").glob("film_*.mp4"):
        file.unlink()
    assert six.restarted().made(graph(SIX, "six")) == 0
    (file,) = (six.films / "six").glob("film_*.mp4")
    whole = describe_mp4(file)
    for length in (0, 500, file.stat().st_size - 100):
        os.truncate(file, length)
        assert six.restarted().made(graph(SIX, "six")) == 0
        assert describe_mp4(file) == whole


def test_a_film_that_is_kept_loads_nothing(six: Studio, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.nodes["MOVALoader"], "run", classmethod(lambda cls, **_: pytest.fail("it loads")))
    again = six.restarted()
    assert again.made(graph(SIX, "six")) == 0
    report = again(graph(SIX, "six")).shown["4"]["text"][0]
    assert report.count("kept") == 6


def test_a_folder_copied_to_another_name_is_a_film_whose_takes_are_kept(six: Studio) -> None:
    shutil.copytree(six.films / "six", six.films / "copied", copy_function=shutil.copyfile)
    assert six.restarted().made(graph(SIX, "copied")) == 0


@pytest.mark.parametrize(
    ("cache", "sizes"), [("NONE", {}), ("LRU", {"lru": 2}), ("RAM_PRESSURE", {"ram": 1e6, "ram_inactive": 1e6})]
)
def test_whatever_comfyui_caches_each_shot_is_made_once_and_the_same(
    six: Studio, cache: str, sizes: dict[str, float]
) -> None:
    """RAM_PRESSURE with more asked for than any machine has: everything is let go."""
    three, name = SIX.split("[four]")[0], f"cached_{cache}"
    studio = six.restarted(cache, **sizes)
    assert studio.made(graph(three, name)) == 3
    assert studio.made(graph(three, name)) == 0
    assert studio.made(graph(three.replace("A cat sits.", "A cow sits."), name)) == 2
    for shot in ("one", "two", "three"):
        known = _first(six.films / "six" / shot)
        made = six.films / name / shot / known.name
        for file in ("latents.safetensors", "end.safetensors"):
            one, other = load_file(known / file), load_file(made / file)
            assert all(torch.equal(one[key], other[key]) for key in one)


def _first(shot: Path) -> Path:
    """The take of a shot that was made first."""
    return min(
        takes_of(shot.parent, shot.name), key=lambda take: json.loads((take / "take.json").read_text())["number"]
    )


def test_the_latents_of_a_take_are_opened_as_any_others(six: Studio, run: Run) -> None:
    take = _first(six.films / "six" / "one")
    name = (take / "latents.safetensors").relative_to(six.films.parent).as_posix()
    latent = run("MOVALoadLatent", file=f"{name} [output]")[0]
    kept = load_file(take / "latents.safetensors")
    assert all(torch.equal(part, kept[key]) for part, key in zip(latent["samples"].unbind(), ("video", "audio")))
    assert latent["frame_rate"] == 24.0


TWO = "[one] 5 frames\nA cat sits.\n[two] 5 frames\nA dog barks."


@pytest.mark.parametrize("file", ["take.json", "latents.safetensors", "end.safetensors", "clip.mp4", ""])
def test_a_take_deleted_behind_its_back_is_made_again(studio: Studio, file: str) -> None:
    studio.made(graph(TWO, "gone"))
    (take,) = takes_of(studio.films / "gone", "two")
    (take / file).unlink() if file else shutil.rmtree(take)
    assert studio.made(graph(TWO, "gone")) == 1
    assert studio.made(graph(TWO, "gone")) == 0


def test_a_damaged_header_is_made_again_and_what_it_was_stays_beside_it(studio: Studio) -> None:
    studio.made(graph(TWO, "gone"))
    (take,) = takes_of(studio.films / "gone", "one")
    (take / "take.json").write_text("{")
    assert studio.made(graph(TWO, "gone")) == 1
    assert takes_of(studio.films / "gone", "one") == [take]
    assert len(list(take.parent.iterdir())) == 2


# --- what is asked for and cannot be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[one] 5 frames, lock\nA cat.", ["line 1: shot 'one' is locked, and there is no take"]),
        ("[one] 5 frames, take abcd\nA cat.", ["line 1: shot 'one': take abcd names none"]),
        ("[one] 5 frames, picture 1\nA cat.", ["line 1: shot 'one' wants picture 1; none are connected"]),
        ("[one] 5 frames\nA cat.\n[two] 9 s\nA dog.", ["line 3: shot 'two' lasts 217 frames", "193"]),
        ("[one] goes on\nA cat.", ["line 1: shot 'one' goes on, but it is the first"]),
        ("[one] 5 frames\nA cat.\n[two] goes on, 4 frames\nIt runs.", ["shot 'two': an overlap of 25", "5"]),
        ("[one] 5 frames, off\nA cat.\n[two] after one\nA dog.", ["shot 'two' begins after 'one'", "off"]),
        ("[one] 5 frames, off\nA cat.", ["no shot to make"]),
        ("[one] 5 frames, overlap 24\nA.\n[two] goes on, overlap 24\nB", ["shot 'two': overlap 24", "21 and 25"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_shot_before_anything_is_loaded(
    studio: Studio, pack: Pack, monkeypatch: pytest.MonkeyPatch, text: str, parts: list[str]
) -> None:
    monkeypatch.setattr(pack.nodes["MOVALoader"], "run", classmethod(lambda cls, **_: pytest.fail("it loads")))
    error = studio.restarted()(graph(text, "refused")).error
    assert all(part in error for part in parts), error
    assert not (studio.films / "refused").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "C:", "con", "a b", "x" * 101, "na\u00efve"])
def test_a_name_that_is_no_folder_everywhere_is_refused(studio: Studio, name: str) -> None:
    assert "name" in studio(graph("[one] 5 frames\nA cat.", name)).error


@pytest.mark.parametrize("name", ["NUL", "com1", "aux"])
def test_a_shot_named_as_a_device_is_refused(studio: Studio, name: str) -> None:
    assert "device" in studio(graph(f"[{name}] 5 frames\nA cat.", "devices")).error


def test_an_error_of_a_node_within_names_the_shot(studio: Studio, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = pack.module("mova_core.errors")

    def full(*_: Any, **__: Any) -> None:
        raise errors.CheckpointError("the disk is full")

    studio.made(graph(TWO.split("[two]")[0], "within"))
    monkeypatch.setattr(pack.module("nodes.host.media.video"), "write", full)
    assert studio(graph(TWO, "within")).error.startswith("shot 2 of 2: the disk is full")
    assert list((studio.films / "within" / "two").iterdir()) == []
    monkeypatch.undo()
    assert studio(graph(TWO, "within")).error == ""


def test_a_first_picture_is_fitted_as_the_model_of_the_film_takes_it(
    studio: Studio, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = pack.module("nodes.film_steps").MovaImageToVideoAudio
    plain, asked = begins.run, []

    def run(**given: Any) -> Any:
        asked.append(given["model"])
        return plain(**given)

    monkeypatch.setattr(begins, "run", run)
    assert studio.made(graph("[one] 5 frames\nA cat sits.", "fitted")) == 1
    (model,) = asked
    assert pack.module("nodes.host.model.base_model").model_variant(model).name == "MOVA"


# --- locked, chosen, off ---------------------------------------------------------------------------------------------


def test_a_locked_shot_is_never_made_and_an_older_take_can_be_chosen_again(studio: Studio) -> None:
    old, new = "[one] 5 frames{}\nA cat sits.", "[one] 5 frames{}\nA dog barks."
    assert studio.made(graph(old.format(""), "locked")) == 1
    (first,) = (studio.films / "locked" / "one").iterdir()
    assert studio.made(graph(new.format(", lock"), "locked")) == 0
    assert studio.made(graph(new.format(""), "locked")) == 1
    chosen = graph(new.format(f", take {first.name[:6]}"), "locked")
    assert studio.made(chosen) == 0
    assert first.name[:8] in studio(chosen).shown["4"]["text"][0]
    assert len(list((studio.films / "locked" / "one").iterdir())) == 2


def test_what_goes_on_from_a_chosen_take_is_made_from_that_one(studio: Studio) -> None:
    text = "[one] 5 frames{}\n{}\n[two] goes on, 4 frames, overlap 5\nIt runs."
    studio.made(graph(text.format("", "A cat sits."), "chosen"))
    (first,) = (studio.films / "chosen" / "one").iterdir()
    assert studio.made(graph(text.format("", "A dog barks."), "chosen")) == 2
    assert studio.made(graph(text.format(f", take {first.name}", "A dog barks."), "chosen")) == 0


def test_a_shot_that_is_off_is_left_out(studio: Studio) -> None:
    two = "[one] 5 frames\nA cat sits.\n[two] 5 frames{}\nA dog barks."
    assert studio.made(graph(two.format(", off"), "off")) == 1
    assert "two: off" in studio(graph(two.format(", off"), "off")).shown["4"]["text"][0]
    assert studio.made(graph(two.format(""), "off")) == 1


def test_the_report_says_why_before_the_models_are_asked(six: Studio) -> None:
    changed = SIX.replace("[four] 5 frames", "[four] 9 frames, seed 8")
    report = six(graph(changed, "six")).shown["4.0.0.body"]["text"][0].splitlines()
    assert report[3] == "4 four: to be made: seed, frames changed"
    assert report[4] == "5 five: to be made: depends on shot 4"
    assert [line for line in report if "kept" in line] == [report[n] for n in (0, 1, 2, 5)]


def test_what_could_go_is_listed_and_nothing_is_deleted(studio: Studio) -> None:
    texts = [f"[one] 5 frames\nA cat, {n}." for n in range(2)]
    for text in texts:
        studio.made(graph(text, "large"))
    report = studio(graph(texts[0], "large", size_limit=1e-6)).shown["4"]["text"][0]
    assert "These takes are not used and could go: one/" in report
    assert len(list((studio.films / "large" / "one").iterdir())) == 2


# --- what is stale ---------------------------------------------------------------------------------------------------

ONE = "[one] 5 frames, picture 1\nA cat sits."
Edit = Callable[[Graph], None]


def single(name: str) -> Graph:
    """One shot with a picture and room for what edits put on the model."""
    made = graph(ONE, name)
    made["5"] = {"class_type": "LoadImage", "inputs": {"image": "told.png"}}
    made["2"]["inputs"]["pictures"] = ["5", 0]
    made["6"] = {"class_type": "MOVABridgeStrength", "inputs": STRONG | {"model": ["1", 0]}}
    made["4"]["inputs"]["model"] = ["6", 0]
    return made


STRONG = {"audio_to_video": 0.5, "video_to_audio": 1.0, "start_percent": 0.0, "end_percent": 1.0}


def put(node: str, **inputs: Any) -> Edit:
    """Set inputs of a node."""
    return lambda made: made[node]["inputs"].update(inputs)


def over(kind: str, **inputs: Any) -> Edit:
    """Put a node on the model, above the film."""

    def edit(made: Graph) -> None:
        below = made["4"]["inputs"]["model"]
        made[f"9{len(made)}"] = {"class_type": kind, "inputs": {"model": below, **inputs}}
        made["4"]["inputs"]["model"] = [f"9{len(made) - 1}", 0]

    return edit


def chain(*edits: Edit) -> Edit:
    return lambda made: [edit(made) for edit in edits] and None


def renumbered(made: Graph) -> None:
    new = {old: f"1{old}" for old in made}
    for node in made.values():
        node["inputs"] = {k: [new[v[0]], v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}
    for old in list(made):
        made[new[old]] = made.pop(old)


def split_and_joined(made: Graph) -> None:
    made["7"] = {"class_type": "MOVASplitExperts", "inputs": {"model": ["1", 0]}}
    joined = {"high_noise": ["7", 0], "low_noise": ["7", 1], "boundary": 0.9}
    made["8"] = {"class_type": "MOVAJoinExperts", "inputs": joined}
    made["6"]["inputs"]["model"] = ["8", 0]


def loose(made: Graph) -> None:
    made["77"] = {"class_type": "PreviewAny", "inputs": {"source": "nothing"}}


LORA = {"lora_name": "a.safetensors", "strength": 1.0, "expert": "auto"} | dict.fromkeys(
    ("strength_video", "strength_audio", "strength_audio_to_video", "strength_video_to_audio"), 1.0
)
CACHED = {"reuse_threshold": 0.5, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}


def hooked(made: Graph) -> None:
    hook = {"lora_name": "a.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
    made["7"] = {"class_type": "CreateHookLora", "inputs": hook}
    made["8"] = {
        "class_type": "SetClipHooks",
        "inputs": {"clip": ["1", 1], "hooks": ["7", 0], "apply_to_conds": True, "schedule_clip": False},
    }
    made["4"]["inputs"]["clip"] = ["8", 0]


EDITS: dict[str, Edit] = {
    "nothing": lambda made: None,
    "renumbered": renumbered,
    "a loose node": loose,
    "spaces in the prompt": put("2", text=ONE.replace("A cat", "A   cat")),
    "a remark": put("2", text=f"# remark\n{ONE}"),
    "another name": put("2", text=ONE.replace("[one]", "[uno]")),
    "the same picture, saved again": put("5", image="told_again.png"),
    "split and joined": split_and_joined,
    "a model folder renamed": put("1", folder="renamed"),
    "size limit": put("4", size_limit=1.0),
    "match": put("4", match_sound="all shots", match_picture="all shots"),
    "how a run is kept": put("3", resume="off", keep_every=3),
    "steps": put("3", steps=2),
    "cfg": put("3", cfg=2.0),
    "shift": put("3", shift=4.0),
    "audio shift": put("3", audio_shift=4.0),
    "sampler": chain(put("3", sampler="dpmpp_2m", steps=3)),
    "scheduler": put("3", scheduler="simple", steps=2),
    "denoise": put("3", denoise=0.4),
    "bridge cfg": put("3", bridge_cfg=3.0),
    "audio cfg": put("3", audio_cfg=3.0),
    "sub-steps": put("3", audio_substeps=2),
    "seed": put("4", seed=4),
    "own seed": put("2", text=ONE.replace("picture 1", "picture 1, seed 9")),
    "width": put("4", width=48),
    "height": put("4", height=48),
    "fps": put("4", fps=12.0),
    "length": put("2", text=ONE.replace("5 frames", "9 frames")),
    "prompt": put("2", text=ONE.replace("cat", "dog")),
    "sound of the prompt": put("2", text=f"{ONE}\nsound: rain"),
    "a prompt for the sound": put("2", text=f"{ONE}\nhears: rain"),
    "negative prompt with cfg": chain(put("3", cfg=2.0), put("4", negative_prompt="sharp")),
    "picture": put("5", image="other.png"),
    "no picture": put("2", text=ONE.replace(", picture 1", "")),
    "bridge strength": put("6", audio_to_video=0.6),
    "bridge from": put("6", start_percent=0.5, audio_to_video=0.0),
    "dtype": put("1", weight_dtype="bf16"),
    "other weights": put("1", folder="other"),
    "lora": over("MOVALoraLoader", **LORA),
    "lora strength": over("MOVALoraLoader", **LORA | {"strength": 0.5}),
    "lora on one expert": over("MOVALoraLoader", **LORA | {"expert": "high"}),
    "other lora": over("MOVALoraLoader", **LORA | {"lora_name": "b.safetensors"}),
    "two loras": chain(over("MOVALoraLoader", **LORA), over("MOVALoraLoader", **LORA | {"lora_name": "b.safetensors"})),
    "APG": chain(put("3", cfg=3.0), over("APG", eta=0.5, norm_threshold=5.0, momentum=0.0)),
    "CFG zero star": chain(put("3", cfg=3.0), over("CFGZeroStar")),
    "bypass lora": over("LoraLoaderBypassModelOnly", lora_name="a.safetensors", strength_model=0.5),
    "NAG": chain(put("3", cfg=3.0), over("NAGuidance", nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)),
    "TCFG": chain(put("3", cfg=3.0), over("TCFG")),
    "EasyCache": chain(put("3", steps=6), over("EasyCache", **CACHED)),
    "LazyCache": chain(put("3", steps=6), over("LazyCache", **CACHED)),
    "hooks": hooked,
    "compute dtype": over("ModelComputeDtype", dtype="bf16"),
}
KEPT = {
    *(
        "nothing",
        "renumbered",
        "a loose node",
        "spaces in the prompt",
        "a remark",
        "another name",
        "size limit",
        "match",
        "how a run is kept",
    ),
    *("the same picture, saved again", "split and joined", "a model folder renamed"),
}


CAREFUL = {"dtype"}  # made again although the clip is the same: on a CPU that computes both alike


@pytest.fixture(scope="module")
def materials(comfy_base: Path, diffusers: Path) -> None:
    """Pictures, LoRAs and checkpoints that the edits name."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    for name, picture, level in (("told", pixels[0], 1), ("told_again", pixels[0], 9), ("other", pixels[1], 1)):
        Image.fromarray(picture.numpy()).save(comfy_base / "input" / f"{name}.png", compress_level=level)
    for seed, name in enumerate("ab"):
        write_tiny_lora(comfy_base / "models" / "loras" / f"{name}.safetensors", seed)
    shutil.copytree(diffusers / "tiny", diffusers / "renamed")
    write_tiny_checkpoint(diffusers / "other", seed=5)


def streams(films: Path, name: str) -> list[Tensor]:
    """Latents of the newest take of a film's one shot."""
    headers = sorted((films / name).glob("*/*/take.json"), key=lambda path: json.loads(path.read_text())["number"])
    return list(load_file(headers[-1].parent / "latents.safetensors").values())


@pytest.fixture(scope="module")
def told(studio: Studio, materials: None) -> list[Tensor]:
    """Latents of the film as no edit has changed it; its take stays on disk."""
    assert studio.made(single("told")) == 1
    return streams(studio.films, "told")


@pytest.mark.parametrize("name", EDITS)
def test_no_changed_clip_counts_as_kept(studio: Studio, told: list[Tensor], name: str) -> None:
    """Each edit is really sampled: where the film keeps its take, in a film of its own, so that what would have come
    out is known."""
    edited = single("told")
    EDITS[name](edited)
    before = set((studio.films / "told").glob("*/*"))
    made = studio.made(edited)
    new = set((studio.films / "told").glob("*/*")) - before
    if not made:
        film = next(node for node in edited.values() if node["class_type"] == "MOVAFilm")
        film["inputs"]["name"] = "truth"
        assert studio.made(edited) == 1
    truth = streams(studio.films, "told" if made else "truth")
    same = all(torch.equal(a, b) for a, b in zip(truth, told)) and len(truth) == len(told)
    shutil.rmtree(studio.films / "truth", ignore_errors=True)
    for take in new:
        shutil.rmtree(take)
    assert made == (name not in KEPT) == len(new)
    assert same == (not made or name in CAREFUL)


def test_a_lora_whose_file_changed_under_its_name_is_another(
    studio: Studio, told: list[Tensor], comfy_base: Path
) -> None:
    file = comfy_base / "models" / "loras" / "own.safetensors"
    made = single("own")
    over("MOVALoraLoader", **LORA | {"lora_name": "own.safetensors"})(made)
    for seed, count in ((0, 1), (1, 1), (0, 0), (2, 1)):
        write_tiny_lora(file, seed)
        assert studio.made(made) == count, seed


def test_where_comfyui_still_holds_what_a_file_was_before_the_take_is_not_told_by_the_file(
    studio: Studio, told: list[Tensor], comfy_base: Path
) -> None:
    """The stock loaders do not look whether a file has changed under its name."""
    file = comfy_base / "models" / "loras" / "stock.safetensors"
    made = single("stock")
    over("LoraLoaderModelOnly", lora_name="stock.safetensors", strength_model=0.5)(made)
    write_tiny_lora(file, 0)
    again = studio.restarted()
    assert again.made(made) == 1
    write_tiny_lora(file, 1)
    assert again.made(made) == 0, "ComfyUI gave the MODEL that it had"
    assert studio.restarted().made(made) == 1


# --- samplers, guiders, recordings -----------------------------------------------------------------------------------


def test_a_guider_is_copied_for_each_shot_with_its_prompts(studio: Studio) -> None:
    two = graph("[one] 5 frames\nA cat sits.\n[two] goes on, 4 frames, overlap 5\nIt runs.", "guided")
    encoded = {"clip": ["1", 1], "prompt": "none of the shots", "negative_prompt": ""}
    two["7"] = {"class_type": "MOVATextEncode", "inputs": encoded}
    scales = {"text_cfg": 2.0, "audio_text_cfg": 0.0, "bridge_cfg": 3.5, "bridge_start": 0.0, "bridge_end": 1.0}
    given = {"model": ["1", 0], "positive": ["7", 0], "negative": ["7", 1], **scales, "rescale": 0.0}
    two["8"] = {"class_type": "MOVAGuider", "inputs": given}
    two["4"]["inputs"]["guider"] = ["8", 0]
    studio.made(two)
    first = [path.name for path in (studio.films / "guided").glob("*/*")]
    assert len(first) == 2
    encoded["prompt"] = "still none of the shots"
    studio.made(two)
    assert len(list((studio.films / "guided").glob("*/*"))) == 2
    given["bridge_cfg"] = 2.0
    studio.made(two)
    assert len(list((studio.films / "guided").glob("*/*"))) == 4


def test_a_guider_that_takes_no_prompts_is_refused(studio: Studio) -> None:
    two = graph("[one] 5 frames\nA cat sits.", "unguided")
    two["7"] = {"class_type": "MOVATextEncode", "inputs": {"clip": ["1", 1], "prompt": "x", "negative_prompt": ""}}
    basic = {"model": ["1", 0], "conditioning": ["7", 0]}
    two["8"] = {"class_type": "BasicGuider", "inputs": basic}
    two["4"]["inputs"]["guider"] = ["8", 0]
    assert "BasicGuider has no input positive and negative" in studio(two).error


def test_the_fast_sampler_makes_films_too(studio: Studio) -> None:
    two = graph("[one] 5 frames\nA cat sits.", "fast")
    two["3"] = {"class_type": "MOVAFilmFastSampler", "inputs": {"steps": 2, "quality": "light"}}
    assert studio(two).error == ""
    assert studio(two).shown["4"]["text"][0].startswith("1 one: kept")
    two["3"]["inputs"]["steps"] = 3
    assert "sampler changed" in studio(two).shown["4.0.0.body"]["text"][0]


def test_a_recording_drives_all_shots_and_is_heard_as_it_was(studio: Studio, comfy_base: Path) -> None:
    wave = 0.3 * torch.sin(torch.arange(48000) * 0.05)[None]
    wave[:, 20000:28000] = 0
    soundfile = comfy_base / "input" / "told.mp4"
    write_mp4(soundfile, torch.zeros(24, 32, 32, 3), 24, wave, 48000)
    voice = graph("[one] recording\nA cat sits.\n[two] goes on, recording, overlap 5\nIt runs.", "voice")
    voice["5"] = {"class_type": "LoadAudio", "inputs": {"audio": "told.mp4"}}
    voice["2"]["inputs"]["audio"] = ["5", 0]
    assert studio.made(voice) == 2
    headers = [json.loads(path.read_text()) for path in sorted((studio.films / "voice").glob("*/*/take.json"))]
    frames = [header["frames"] for header in headers]
    assert abs(frames[0] / 24 - 0.5) < 0.15
    assert headers[1]["held"] == 5
    sounds = [load_file(path)["sound"] for path in sorted((studio.films / "voice").glob("*/*/end.safetensors"))]
    held = int(headers[0]["sample_rate"] * 5 / 24)
    assert torch.equal(sounds[0][..., -held:], sounds[1][..., :held])
    (film,) = (studio.films / "voice").glob("film_*.mp4")
    facts = describe_mp4(film)
    assert facts["frames"] == frames[0] + frames[1] - 5


def test_two_films_that_are_joined_otherwise_share_their_takes(six: Studio) -> None:
    before = set((six.films / "six").glob("film_*.mp4"))
    assert six.made(graph(SIX, "six", match_sound="all shots", match_picture="all shots")) == 0
    assert len(set((six.films / "six").glob("film_*.mp4")) - before) == 1


def test_takes_can_be_read_by_others_and_nothing_half_written_is_left(six: Studio) -> None:
    files = [path for path in (six.films / "six").rglob("*") if path.is_file()]
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
    whole = {"take.json", "latents.safetensors", "end.safetensors", "clip.mp4"}
    assert {path.name for path in files if not path.name.startswith("film_")} == whole
    assert len(files) == len(list((six.films / "six").glob("film_*"))) + 4 * len(list((six.films / "six").glob("*/*")))


@needs_fork
def test_two_processes_on_one_film_make_it_once_each_and_both_have_it_whole(six: Studio) -> None:
    two, film = SIX.split("[three]")[0], six.films / "shared"

    def make() -> None:
        assert six.restarted()(graph(two, "shared")).error == ""

    assert [ended(child) for child in [forked(make), forked(make)]] == [0, 0]
    takes = sorted(film.glob("*/*"))
    assert [take.parent.name for take in takes] == ["one", "two"], "the same take of both"
    for take in takes:
        known = six.films / "six" / take.parent.name / take.name
        for file in ("latents.safetensors", "end.safetensors"):
            one, other = load_file(known / file), load_file(take / file)
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(list(film.glob("*.mp4"))) == 1
    assert six.made(graph(two, "shared")) == 0


@needs_fork
def test_killed_within_any_write_of_a_take_it_is_there_whole_or_not_at_all(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, sync = studio.films / "killed", os.fsync

    def die(number: int) -> None:
        writes = iter(range(number + 1))
        monkeypatch.setattr("os.fsync", lambda file: sync(file) if next(writes) < number else killed())
        studio.restarted()(graph(TWO, "killed"))

    for number in range(4):
        code = ended(forked(partial(die, number)))
        assert code == -signal.SIGKILL
        assert len(takes_of(film, "one")) == (number == 3)  # latents, end and header of a take
    assert studio.restarted().made(graph(TWO, "killed")) == 1
    assert studio.restarted().made(graph(TWO, "killed")) == 0


def test_shots_are_linked_one_after_the_other_too(studio: Studio) -> None:
    made = graph("[one] 5 frames\nA cat sits.", "linked")
    plain = {"length": "frames", "seconds": 6.0, "frames": 4, "source": "", "seed": -1, "lock": False, "off": False}
    goes_on = {"name": "two", "prompt": "It runs.", "begins": "goes on", "overlap": 5, "take": "", "shots": ["2", 0]}
    made["5"] = {"class_type": "MOVAShot", "inputs": plain | goes_on}
    made["4"]["inputs"]["shots"] = ["5", 0]
    assert studio.made(made) == 2
    made["5"]["inputs"]["seed"] = 7
    assert studio.made(made) == 1
    assert studio.calls == [7]
    made["5"]["inputs"]["length"] = "as long as the speech"
    assert "shot 'two' is as long as its speech, and its prompt quotes none" in studio(made).error
