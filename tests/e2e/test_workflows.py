"""The pack's workflows in a real ComfyUI, and in its page, on the tiny checkpoint."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.comfy import needs_browser, needs_comfy
from tests.fixtures.single_files import STOCK_CHANNELS
from tools.comfy.page import Page, differences
from tools.comfy.prompts import PromptRefused, Result
from tools.comfy.server import ComfyServer
from tools.routes.media import describe_mp4
from tools.templates.library import TEMPLATES
from tools.templates.workflows import thumbnail

from .graphs import (
    CLIPS,
    FPS,
    FRAMES,
    NAMES,
    PROMPT,
    SIZE,
    SMALL,
    STEPS,
    Graph,
    api_graph,
    node_of,
    read,
    small,
    tiny_text,
)

pytestmark = needs_comfy

FIRST, TWO, FILES = "mova_image_to_video_audio", "mova_two_samplers", "mova_single_files"
LONGER = dict.fromkeys(("mova_extend", "mova_relay"), 2 * FRAMES - 5)  # frames of a clip that is not one window long
LONGER["mova_smooth"] = 2 * FRAMES - 1
FASTER = {"mova_smooth": 2 * FPS}  # frames a second, where they are not the model's
ENLARGED = ("mova_upscale", "mova_upscale_model", "mova_wan_detail")
LARGER = dict.fromkeys(
    (*ENLARGED, "mova_try_lora"), (2 * SIZE[0], 2 * SIZE[1])
)  # width and height of a clip that is enlarged
SAMPLERS = {"MOVASampler", "KSamplerAdvanced"}


@pytest.fixture(scope="module")
def made(comfy: ComfyServer) -> Callable[[str], Result]:
    """How each workflow, small and with seed 1, ended; it runs once."""
    results: dict[str, Result] = {}

    def run(name: str) -> Result:
        if name not in results:
            results[name] = comfy.wait(comfy.queue(seeded(1, name), workflow=read(name)))
        return results[name]

    return run


def seeded(seed: int, name: str = FIRST, **changes: Any) -> Graph:
    """A small workflow that also saves its pictures one by one: SaveVideo's H.264 is not always the same to the bit."""
    graph = small(tiny_text(api_graph(read(name))), seed=seed, **changes)
    joined = [node["inputs"]["images"] for node in graph.values() if node["class_type"] == "CreateVideo"]
    for images in joined:  # none where the parts go through disk
        graph["pictures"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "picture"}}
    return graph


def clip(result: Result) -> Path:
    assert result.status == "success", result.message
    (path,) = (path for path in result.files if path.suffix == ".mp4")
    return path


def pictures(result: Result) -> np.ndarray:
    """(F, H, W, 3), as they were before encoding."""
    paths = sorted(path for path in result.files if path.suffix == ".png")
    return np.stack([np.asarray(Image.open(path), dtype=int) for path in paths])


def sound(result: Result) -> np.ndarray:
    with av.open(str(clip(result))) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)


def same(one: Result, other: Result) -> bool:
    return np.array_equal(pictures(one), pictures(other)) and np.array_equal(sound(one), sound(other))


# ------------------------------------------------------------------------------------------------------- the server


def test_the_templates_are_listed_with_their_thumbnails(comfy: ComfyServer) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{comfy.url}/api/workflow_templates", timeout=30) as answer:
        assert sorted(json.load(answer)["mova"]) == sorted(template.file for template in TEMPLATES.values())
    for name in NAMES:
        picture = urllib.parse.quote(thumbnail(name).name)
        with opener.open(f"{comfy.url}/api/workflow_templates/mova/{picture}", timeout=30) as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("name", CLIPS)
def test_a_workflow_makes_a_clip_with_sound_of_the_same_length(made: Callable[[str], Result], name: str) -> None:
    path = clip(made(name))
    facts = describe_mp4(path)
    assert (facts["width"], facts["height"]) == LARGER.get(name, SIZE)
    assert facts["frames"] == LONGER.get(name, FRAMES)
    assert facts["sample_rate"] == 48000
    assert round(facts["audio_seconds"] * 48000) == int(48000 * facts["frames"] / FASTER.get(name, FPS))
    assert facts["audio_peak"] > 0.01
    with av.open(str(path)) as file:
        assert file.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("name", CLIPS)
def test_the_clip_keeps_its_workflow(made: Callable[[str], Result], name: str) -> None:
    with av.open(str(clip(made(name)))) as file:
        assert json.loads(file.metadata["workflow"]) == read(name)
        assert json.loads(file.metadata["prompt"]).keys() == seeded(1, name).keys()


@pytest.mark.parametrize("name", [FIRST, TWO])
def test_every_step_is_reported_and_previewed(comfy: ComfyServer, name: str) -> None:
    graph = seeded(19, name)  # a seed of its own: what another test has sampled would not be sampled again
    result = comfy.wait(comfy.queue(graph, workflow=read(name)))
    samplers = {node for node, content in graph.items() if content["class_type"] in SAMPLERS}
    steps = [data["value"] for data in result.of("progress") if data["node"] in samplers and data["value"]]
    assert steps == [step for _ in samplers for step in range(1, STEPS // len(samplers) + 1)]
    assert {preview.node for preview in result.previews} >= samplers


def test_the_same_seed_gives_the_same_clip_and_another_seed_another(
    comfy: ComfyServer, made: Callable[[str], Result]
) -> None:
    first, other, again = made(FIRST), comfy.run(seeded(2)), comfy.run(seeded(1))
    assert node_of(seeded(1), "MOVASampler") in again.executed()  # not from the cache
    assert same(first, again)
    assert not same(first, other)


def test_single_files_make_the_clip_that_the_folder_makes_in_their_precision(
    comfy: ComfyServer, made: Callable[[str], Result]
) -> None:
    folder = {"folder": STOCK_CHANNELS}
    assert same(made(FILES), comfy.run(seeded(1, weight_dtype="fp8_e4m3fn", **folder)))
    assert not same(made(FILES), comfy.run(seeded(1, **folder)))


@pytest.mark.parametrize("name", ENLARGED)
def test_what_follows_the_decoder_leaves_the_sound_alone(made: Callable[[str], Result], name: str) -> None:
    assert np.array_equal(sound(made(name)), sound(made(FIRST)))


def test_the_frames_of_the_model_stay_and_others_come_between_them(made: Callable[[str], Result]) -> None:
    smooth, plain = pictures(made("mova_smooth")), pictures(made(FIRST))
    assert np.array_equal(smooth[::2], plain)
    assert all((between != one).any() and (between != other).any() for between, one, other in triples(smooth))


def triples(frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each picture in between, and its two neighbours."""
    return [(frames[i], frames[i - 1], frames[i + 1]) for i in range(1, len(frames), 2)]


def test_wan_redraws_the_enlarged_picture(made: Callable[[str], Result]) -> None:
    assert not np.array_equal(pictures(made("mova_wan_detail")), pictures(made("mova_upscale")))


def test_the_clip_begins_with_the_picture_that_wan_made(comfy: ComfyServer, made: Callable[[str], Result]) -> None:
    name = "mova_wan_first_frame"
    other = seeded(1, name)
    other[node_of(other, "KSamplerAdvanced")]["inputs"]["noise_seed"] = 2  # of the still, not of the clip
    assert not same(made(name), comfy.run(other))


def test_a_cancelled_run_ends_within_a_step_and_leaves_nothing_behind(
    comfy: ComfyServer, made: Callable[[str], Result]
) -> None:
    first = made(FIRST)
    running = comfy.queue(seeded(3, steps=1000))
    comfy.wait_event("progress", prompt_id=running, value=2)
    comfy.interrupt(running)
    cancelled = comfy.wait(running, timeout=60)
    assert cancelled.status == "interrupted"
    assert max(data["value"] for data in cancelled.of("progress")) < 100
    assert same(first, comfy.run(seeded(1)))


def test_two_stock_samplers_make_the_clip_that_the_joint_sampler_makes(
    comfy: ComfyServer, made: Callable[[str], Result]
) -> None:
    one, two = comfy.run(seeded(1, scheduler="simple")), made(TWO)
    assert np.abs(pictures(one) - pictures(two)).max() <= 1


# ------------------------------------------------------------------------------------------------------ wrong input


def error_of(comfy: ComfyServer, graph: Graph) -> str:
    result = comfy.run(graph)
    assert result.status == "error"
    return result.message


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"width": 650}, "640x64 and 656x64"),
        ({"height": 100}, "80x96 and 80x112"),
        ({"frames": 10}, "9 and 13"),
        ({"prompt": "  "}, "the prompt is empty"),
    ],
)
def test_an_impossible_value_is_refused_with_the_nearest_possible(
    comfy: ComfyServer, changes: dict[str, Any], remedy: str
) -> None:
    assert remedy in error_of(comfy, seeded(1, **changes))


def test_a_plain_video_latent_is_refused_with_the_node_that_makes_a_joint_one(comfy: ComfyServer) -> None:
    graph = seeded(1)
    sizes = {"width": SIZE[0], "height": SIZE[1], "length": FRAMES, "batch_size": 1}
    graph["plain"] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": sizes}
    graph[node_of(graph, "MOVASampler")]["inputs"]["latent"] = ["plain", 0]
    assert "Make it with 'MOVA Image to Video+Audio'" in error_of(comfy, graph)


@pytest.mark.parametrize(
    ("node", "slot", "output", "remedy"),
    [
        ("MOVADecode", "vae", 3, "connect the VAE output of 'MOVA Loader'"),
        ("MOVADecode", "audio_vae", 2, "connect the AUDIO VAE output of 'MOVA Loader'"),
        ("MOVAImageToVideoAudio", "vae", 3, "connect the VAE output of 'MOVA Loader'"),
    ],
)
def test_a_vae_in_the_wrong_slot_is_refused_with_the_right_one(
    comfy: ComfyServer, node: str, slot: str, output: int, remedy: str
) -> None:
    graph = seeded(1)
    graph[node_of(graph, node)]["inputs"][slot] = [node_of(graph, "MOVALoader"), output]
    assert remedy in error_of(comfy, graph)


def test_a_folder_that_is_not_there_is_refused_by_name(comfy: ComfyServer) -> None:
    with pytest.raises(PromptRefused, match="folder: 'MOVA-1080p' not in"):
        comfy.queue(seeded(1, folder="MOVA-1080p"))


# --------------------------------------------------------------------------------------------------------- the page


@needs_browser
@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_whole_and_would_run_what_its_file_says(page: Page, name: str) -> None:
    page.messages.clear()
    report = page.load(read(name))
    assert report.fine, report
    assert page.overlaps() == []
    sent = {node: {key: content[key] for key in ("class_type", "inputs")} for node, content in page.api_graph().items()}
    assert differences(api_graph(read(name)), sent) == []
    assert [error for error in page.errors() if "view?filename=&" not in error] == []  # of a file not yet chosen


@needs_browser
def test_widgets_of_our_nodes_show_their_defaults_and_every_input_has_a_tooltip(page: Page, comfy: ComfyServer) -> None:
    page.load(read(FIRST), FIRST)
    ours = {node: info for node, info in comfy.object_info().items() if info["python_module"].endswith("mova")}
    for node, content in api_graph(read(FIRST)).items():
        if content["class_type"] in ours:
            inputs = ours[content["class_type"]]["input"]
            values = page.widgets(node)
            for name, (_, options, *_) in {**inputs["required"], **inputs.get("optional", {})}.items():
                if name in values and "default" in options and name != "seed":
                    assert values[name] == options["default"], f"{content['class_type']} {name}"
    untold = [
        f"{node} {name}"
        for node, info in ours.items()
        for group in ("required", "optional")
        for name, (_, options, *_) in info["input"].get(group, {}).items()
        if not options.get("tooltip")
    ]
    assert untold == []


@needs_browser
def test_the_page_offers_the_templates(page: Page) -> None:
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates').then(() => true)")
    try:
        page.wait_for("document.body.innerText.toLowerCase().includes('mova')", timeout=30)
    finally:
        page.close_dialogs()


@needs_browser
def test_run_in_the_page_ends_with_a_playable_clip(page: Page) -> None:
    workflow = read(FIRST)
    page.load(workflow, FIRST)
    for node, content in small(api_graph(workflow)).items():
        for name in content["inputs"].keys() & SMALL.keys():
            if not isinstance(content["inputs"][name], list):
                page.set_widget(node, name, SMALL[name])
    run = page.run()
    assert (run.status, run.message) == ("success", "")
    assert run.previews >= STEPS
    assert page.report().fine
    page.wait_for("document.querySelector('video')?.readyState >= 2", timeout=30)
    clip = page.evaluate("""(async () => {
        const video = document.querySelector('video');
        video.muted = true;
        await video.play();
        await new Promise((done) => { video.ontimeupdate = done; });
        return [video.videoWidth, video.videoHeight, video.duration, video.currentTime, video.error?.message ?? ''];
    })()""")
    assert clip[:2] == list(SIZE)
    assert clip[2] == pytest.approx(FRAMES / FPS, abs=0.03)
    assert clip[3] > 0
    assert clip[4] == ""


@needs_browser
def test_the_page_shows_a_refusal_on_the_node_that_made_it(page: Page) -> None:
    workflow = read(FIRST)
    graph = api_graph(workflow)
    page.load(workflow, FIRST)
    node = node_of(graph, "MOVATextEncode")
    page.set_widget(node, "prompt", " ")
    run = page.run()
    assert (run.status, run.node) == ("error", node)
    assert "the prompt is empty" in run.message
    page.set_widget(node, "prompt", PROMPT)


@needs_browser
def test_text_boxes_say_what_they_are_where_the_canvas_draws_them(page: Page) -> None:
    page.load(read(FIRST), FIRST)
    boxes = page.evaluate("""(() => {
        const node = app.graph._nodes.find((each) => each.type === 'MOVATextEncode');
        return node.widgets.map(({name, element}) => [name, decodeURIComponent(element.style.backgroundImage)]);
    })()""")
    assert [name for name, _ in boxes] == ["prompt", "negative_prompt", "audio_prompt"]
    assert all(f">{name}</text>" in shown for name, shown in boxes)
