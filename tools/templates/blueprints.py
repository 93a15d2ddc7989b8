"""The pack's subgraph blueprints, as code; and the tool that turns them into files.

    python -m tools.templates.blueprints                 # all of them
    python -m tools.templates.blueprints "MOVA Talk"     # one
    python -m tools.templates.blueprints --pictures DIR  # also a picture of each, closed and open

Writes subgraphs/<name>.json, which ComfyUI lists in the node menu under Subgraph Blueprints. The page itself makes
them: a workflow template is laid out, all but the nodes named `outside` become a subgraph, and the widgets named in
`knobs` become its inputs. Needs ComfyUI and Chromium.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.browser import chromium
from tools.comfy.find import REPOSITORY
from tools.comfy.graph_picture import graph_picture
from tools.comfy.page import Page, Workflow
from tools.comfy.page_scripts import CONVERT_TO_SUBGRAPH, SUBGRAPH_TROUBLE
from tools.comfy.server import ComfyServer
from tools.templates.library import changed, graph
from tools.templates.published import FIRST_FRAME, MODEL
from tools.templates.template import Area, Template, ids
from tools.templates.workflows import Press, to_workflow

SUBGRAPHS = REPOSITORY / "subgraphs"
CATEGORY = "Video generation and editing/MOVA"
GET_IT = f"Needs the folder {MODEL} in models/diffusers, and two LoRAs in models/loras for what is faster than max."


@dataclass(frozen=True)
class Blueprint:
    """A template to be folded into one node.

    Attributes:
        outside: nodes left out; links from and to them become inputs and outputs.
        knobs: (node, widget, name of the input), from top to bottom. Widgets of the same name of input share it.
        renamed: names of inputs and outputs instead of those of the slots they lead to.
        aliases: words that find it in the node search.
        after_generate: what becomes of the seed after a run.
    """

    template: Template
    outside: Sequence[str]
    knobs: Sequence[tuple[str, str, str]]
    renamed: Mapping[str, str]
    description: str
    aliases: Sequence[str]
    after_generate: str = "randomize"


KNOBS = [("loader", "folder", "folder"), ("sampler", "seed", "seed"), ("sampler", "quality", "quality")]
DISTILLATION = {
    "type": "MOVADistillation",
    "inputs": {"model": ["loader", 0], "high_noise": "auto", "low_noise": "auto", "strength": 1.0},
}


def any_quality(template: Template, **widgets: Any) -> Template:
    """The template with a choice of quality in place of its sampler, at full; the fast ones read LoRA files."""
    given = {name: list(template.nodes["sampler"].inputs[name]) for name in ("positive", "negative", "latent")}
    inputs = {"model": ["distilled", 0], "teacher": ["loader", 0], **given, "seed": 42, "steps": 8, "quality": "full"}
    sampler = {"type": "MOVAFastSampler", "room": 120, "inputs": {**inputs, **widgets}}
    return with_loras(changed(template, {"nodes": {"sampler": sampler, "distilled": DISTILLATION}}))


def with_loras(template: Template) -> Template:
    """The template with its LoRAs placed under the loader."""

    def placed(area: Area) -> Area:
        stacks = [[*stack, "distilled"] if "loader" in stack else list(stack) for stack in area.stacks]
        return replace(area, stacks=stacks)

    return replace(template, columns=[[placed(area) for area in column] for column in template.columns])


def talk() -> Blueprint:
    unsaid = {"action": "", "sounds": "", "camera": ""}  # what is hidden in the node must fit every scene
    plain = changed(graph("mova_prompt_builder"), {"nodes": {"builder": {"inputs": unsaid}}})
    return Blueprint(
        template=any_quality(plain, bridge_cfg=3.5),
        outside=["picture", "save"],
        knobs=[KNOBS[0], *(("builder", name, name) for name in ("scene", "speakers", "lines")), *KNOBS[1:]],
        renamed={"first_frame": "image"},
        description=f"A person in the picture speaks the lines, with the dual guidance of MOVA's paper. {GET_IT}",
        aliases=["mova", "talking head", "lip sync", "speech", "dialogue"],
    )


def scene() -> Blueprint:
    return Blueprint(
        template=any_quality(graph("mova_image_to_video_audio")),
        outside=["picture", "save"],
        knobs=[KNOBS[0], ("text", "prompt", "prompt"), *KNOBS[1:]],
        renamed={"first_frame": "image"},
        description=f"A clip with its ambience and effects from a prompt, and a first frame if given. {GET_IT}",
        aliases=["mova", "ambience", "sound effects", "image to video with audio"],
    )


def foley() -> Blueprint:
    return Blueprint(
        template=any_quality(graph("foley")),
        outside=["clip", "save"],
        knobs=[KNOBS[0], ("text", "prompt", "prompt"), *KNOBS[1:]],
        renamed={},
        description=f"A sound for a silent clip of at most 8 seconds; MOVA was not trained for this. {GET_IT}",
        aliases=["mova", "foley", "video to audio", "sound effects"],
    )


def extend() -> Blueprint:
    overlap = [(node, "overlap", "overlap") for node in ("extend", "join")]
    return Blueprint(
        template=any_quality(graph("extend")),
        outside=["clip", "save"],
        knobs=[KNOBS[0], ("text", "prompt", "prompt"), *overlap, *KNOBS[1:]],
        renamed={},
        description=f"8 seconds more of a clip with sound; MOVA was not trained for this. {GET_IT}",
        aliases=["mova", "continue video", "longer video"],
    )


def film() -> Blueprint:
    plain = graph("mova_film")
    unseen = plain.nodes["shots"].inputs["text"].replace("picture 1, ", "")  # nothing may be linked
    saved = {"like": "save", "inputs": {"filename_prefix": "video/MOVA_film", "video": ["film", 0]}}
    settings = {"type": "MOVAFilmFastSampler", "inputs": {"teacher": ["loader", 0], "steps": 8, "quality": "full"}}
    others = {"settings": settings, "distilled": DISTILLATION, "film": {"inputs": {"model": ["distilled", 0]}}}
    whole = with_loras(changed(plain, {"nodes": {"shots": {"inputs": {"text": unseen}}, "save": saved, **others}}))
    return Blueprint(
        template=replace(whole, columns=[*whole.columns, [Area("Save", [["save"]])]]),
        outside=["picture", "save"],
        knobs=[
            KNOBS[0],
            ("shots", "text", "text"),
            ("film", "name", "name"),
            ("film", "seed", "seed"),
            ("settings", "quality", "quality"),
        ],
        renamed={},
        description=f"A film of many shots from one text; only shots that changed are made again. {GET_IT}",
        aliases=["mova", "storyboard", "multi shot", "long video"],
        after_generate="fixed",  # another seed makes every shot again
    )


BLUEPRINTS = {"MOVA Talk": talk, "MOVA Scene": scene, "MOVA Foley": foley, "MOVA Extend": extend, "MOVA Film": film}

# ------------------------------------------------------------------------------------------------------------ writing


def apart(blueprint: Blueprint) -> Template:
    """The template with the nodes of `outside` in columns of their own, the first node at the left end."""
    left_out = set(blueprint.outside)

    def kept(area: Area) -> Area:
        stacks = [[name for name in stack if name not in left_out] for stack in area.stacks]
        return replace(area, stacks=[stack for stack in stacks if stack])

    columns = [[area for area in map(kept, column) if area.stacks] for column in blueprint.template.columns]
    first, last = ([Area("Outside", [[name]])] for name in (blueprint.outside[0], blueprint.outside[-1]))
    columns = [first, *filter(None, columns), last]
    return replace(blueprint.template, columns=columns, after_generate=blueprint.after_generate, note="")


def to_blueprint(press: Press, name: str, blueprint: Blueprint) -> Workflow:
    """The blueprint as its file has it, made and checked by the page.

    Raises:
        ValueError: the page shows something red, missing or unconnected in it.
    """
    page = press.page
    to_workflow(press, apart(blueprint))
    number = ids(blueprint.template)
    knobs = [[number[node], widget, called] for node, widget, called in blueprint.knobs]
    outside = [number[node] for node in blueprint.outside]
    made = page.evaluate(CONVERT_TO_SUBGRAPH, name, outside, knobs, dict(blueprint.renamed))
    subgraph = made["definitions"]["subgraphs"][0]
    subgraph |= {"category": CATEGORY, "description": blueprint.description}
    subgraph["groups"] = []  # the page moves the nodes and leaves their boxes behind
    made["extra"] = {"BlueprintDescription": blueprint.description, "BlueprintSearchAliases": list(blueprint.aliases)}
    made = with_lasting_ids(made, name)
    if trouble := opened(page, made):
        raise ValueError(f"the blueprint {name} is not fit to be used: {trouble}")
    return made


def with_lasting_ids(workflow: Workflow, name: str) -> Workflow:
    """The same workflow with ids that depend on the name alone, so that making it again changes nothing."""
    content, pattern = json.dumps(workflow), r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    for index, found in enumerate(dict.fromkeys(re.findall(pattern, content))):
        content = content.replace(found, str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {index}")))
    return json.loads(content)


def opened(page: Page, blueprint: Mapping[str, Any]) -> list[str]:
    """What the page has against a blueprint that is opened as a workflow, inside and out."""
    report = page.load(blueprint)
    inside = page.evaluate(SUBGRAPH_TROUBLE)
    return inside if report.fine else [str(report), *inside]


def write_pictures(page: Page, name: str, folder: Path) -> None:
    """Pictures of the blueprint on the page: the node, and what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    graph_picture(page, 700).save(folder / f"{name}.png")
    page.evaluate("app.canvas.setGraph(app.graph._nodes[0].subgraph)")
    page.fit()
    page.screenshot(folder / f"{name} open.png")
    page.evaluate("app.canvas.setGraph(app.rootGraph)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the subgraph blueprints.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(BLUEPRINTS)}")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also write a picture of each there")
    options = parser.parse_args()
    names = options.names or list(BLUEPRINTS)
    if unknown := set(names) - set(BLUEPRINTS):
        parser.error(f"no blueprint is called {', '.join(sorted(unknown))}; there are {', '.join(BLUEPRINTS)}")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_tiny_checkpoint(base / "models" / "diffusers" / MODEL)
        with chromium() as browser, ComfyServer(base, pack=REPOSITORY) as server:
            shutil.copy(server.comfyui / "input" / FIRST_FRAME, server.input)
            press = Press(browser, server)
            SUBGRAPHS.mkdir(exist_ok=True)
            for name in names:
                content = json.dumps(to_blueprint(press, name, BLUEPRINTS[name]()), ensure_ascii=False, indent=1)
                path = SUBGRAPHS / f"{name}.json"
                path.write_text(content + "\n", encoding="utf-8", newline="\n")
                print(path)
                if options.pictures:
                    write_pictures(press.page, name, options.pictures)


if __name__ == "__main__":
    main()
