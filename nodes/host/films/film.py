"""A film in ComfyUI's graph: the recipes of its shots, and the nodes that it expands into.

Two stages. The film compares how the graph above it is written and loads nothing; where a shot may have to be made it
expands into one body, which has the models, compares what they are, and expands each shot that is to be made into the
chain of nodes that anyone would build: text, beginning, sampler, and one node that decodes and keeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import comfy.model_management
import comfyui_version
import folder_paths
import torch
from comfy_execution.graph_utils import GraphBuilder, Node

from ....mova_core.errors import MovaError
from ....mova_core.film.decide import END_BEFORE, Decision, Recipes, report
from ....mova_core.film.shots import Planned
from ....mova_core.film.takes import Take
from ....mova_core.inputs.numbers import told
from ....mova_core.text import is_blank
from ..kept.fingerprints import digest, fingerprint, tensor_digest
from ..kept.graph import UNKNOWN, Graph
from ..loaders import text
from ..patching.patcher import MovaPatcher
from ..sampling import samplers
from ..sampling.mova_sampler import NOT_COMPUTED_WITH
from ..types import Link, Values

FILMS = "mova_films"
PLAIN = "MOVASampler"
CONDITIONS = ("positive", "negative")
MODELS = ("model", "clip", "vae", "audio_vae")
Outputs: TypeAlias = tuple[Link, Link, Link]
"""Of a film's node."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A sampler node and its widgets, as every shot uses them."""

    node: str = PLAIN
    inputs: Values = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """What a film is made of, beside its models."""

    name: str
    planned: Sequence[Planned]
    off: Sequence[str]
    width: int
    height: int
    fps: float
    negative_prompt: str
    settings: Settings
    tile_size: int
    match_sound: str
    match_picture: str
    limit: float
    guider: Values | None = None  # the node whose copies guide the shots: class_type and inputs

    @property
    def folder(self) -> Path:
        return Path(folder_paths.get_output_directory()) / FILMS / self.name

    def numbered(self, name: str) -> Planned:
        for each in self.planned:
            if each.shot.name == name:
                return each
        raise MovaError(f"shot: there is no shot {told(name)} in this film; 'MOVA Film' makes this node itself")


def _own(film: Film, each: Planned) -> dict[str, str]:
    """What of a recipe no graph is needed for."""
    shot, heard = each.shot, each.heard()
    return {
        "seed": str(each.seed),
        "frames": f"{each.frames}, {each.held} held",
        "size": f"{film.width} x {film.height}",
        "fps": repr(film.fps),
        "beginning": shot.begins,
        "picture": "" if shot.picture is None else tensor_digest(shot.picture),
        "recording": "" if heard is None else f"{tensor_digest(heard.waveform)} {heard.rate}",
        "tile_size": str(film.tile_size),
    }


def signatures(film: Film, graph: Graph, links: Mapping[str, Link], salt: str) -> Recipes:
    """Recipes by how the graph is written. `salt` is given where it cannot be compared: one that no other film has."""
    above = {name: graph.above(links[name]) for name in MODELS}
    above |= {"guider": _guider(film, graph, links), "sampler": _sampler(film, graph)}
    above = {name: salt if found == UNKNOWN else found for name, found in above.items()}

    def recipe(each: Planned, end: str) -> dict[str, str]:
        words = {
            "prompt": each.shot.prompt,
            "audio prompt": each.shot.audio_prompt,
            "negative prompt": film.negative_prompt,
        }
        return {**_own(film, each), **{name: digest(text) for name, text in words.items()}, **above, END_BEFORE: end}

    return recipe


def _sampler(film: Film, graph: Graph) -> str:
    """The sampler's settings; a MODEL among them by how the graph above it is written."""
    inputs = {name: value for name, value in film.settings.inputs.items() if name not in NOT_COMPUTED_WITH}
    return graph.told({"class_type": film.settings.node, "inputs": inputs})


def _guider(film: Film, graph: Graph, links: Mapping[str, Link]) -> str:
    """The guider's node but for the prompts that it is given anew, and for a MODEL that is the film's own."""
    if film.guider is None:
        return ""
    same = film.guider["inputs"].get("model") == links["model"]
    return graph.told(film.guider, (*CONDITIONS, "model") if same else CONDITIONS)


def contents(film: Film, graph: Graph, links: Mapping[str, Link], values: Values, salt: str) -> Recipes:
    """Recipes by what the values are. What of a value cannot be read is told by how the graph above it is written."""
    told = {name: fingerprint(_as_sampled(film, values[name]) if name == "model" else values[name]) for name in MODELS}
    written = {name: graph.above(links[name]) if told[name].opaque else "" for name in MODELS}
    what = {
        name: digest([told[name].digest, list(told[name].opaque), salt if written[name] == UNKNOWN else written[name]])
        for name in MODELS
    }
    for name, found in (("guider", _guider(film, graph, links)), ("sampler", _sampler(film, graph))):
        what[name] = salt if found == UNKNOWN else found

    def ids(words: str) -> str:
        return "" if is_blank(words) else digest(text.prompt_ids(values["clip"], words)[0])

    def recipe(each: Planned, end: str) -> dict[str, str]:
        words = {"prompt": ids(each.shot.prompt), "audio prompt": ids(each.shot.audio_prompt)}
        words["negative prompt"] = ids(film.negative_prompt)
        return {**_own(film, each), **words, **what, END_BEFORE: end}

    return recipe


def _as_sampled(film: Film, model: MovaPatcher) -> MovaPatcher:
    """The MODEL with the shifts that 'MOVA Sampler' will set: those it came with do not matter then."""
    inputs = film.settings.inputs
    if film.settings.node != PLAIN or film.guider is not None or not {"shift", "audio_shift"} <= inputs.keys():
        return model
    return samplers.with_shifts(model, *samplers.shifts_of(model, inputs["shift"], inputs["audio_shift"]))


def report_of(film: Film, decisions: Sequence[Decision]) -> str:
    """What becomes of each shot of a film, a line each, and which takes could go."""
    return report(decisions, film.off, film.folder, film.limit)


# --- the nodes that a film expands into


def body(film: Film, links: Mapping[str, Link]) -> tuple[Outputs, Values]:
    """Outputs and nodes of the second stage."""
    builder = GraphBuilder()
    node = builder.node("MOVAFilmBody", "body", **links, film=film)
    return _outputs(node), builder.finalize()


def join(film: Film, decisions: Sequence[Decision], report: str) -> tuple[Outputs, Values]:
    """Outputs and nodes of a film whose takes are all there."""
    return _joined(GraphBuilder(), film, {d.planned.shot.name: d.take.id for d in decisions if d.take}, report)


def shots(
    film: Film,
    decisions: Sequence[Decision],
    links: Mapping[str, Link],
    recipes: tuple[Recipes, Recipes],
    report: str,
    workflow: Mapping[str, object],
) -> tuple[Outputs, Values]:
    """Outputs and nodes that make what is to be made, one shot after the other, and join all."""
    builder = GraphBuilder()
    last: Link = ""
    done: Values = {d.planned.shot.name: d.take.id for d in decisions if d.take}
    for decision in decisions:
        if decision.take is None:
            each = decision.planned
            last = _shot(builder, film, each, links, done.get(each.needs, ""), last, recipes, workflow)
            done[each.shot.name] = last
    return _joined(builder, film, done, report)


def _joined(builder: GraphBuilder, film: Film, done: Mapping[str, object], report: str) -> tuple[Outputs, Values]:
    named = {f"take{each.number}": done[each.shot.name] for each in film.planned}
    return _outputs(builder.node("MOVAFilmJoin", "join", film=film, report=report, **named)), builder.finalize()


def _outputs(node: Node) -> Outputs:
    return node.out(0), node.out(1), node.out(2)


def _shot(
    builder: GraphBuilder,
    film: Film,
    each: Planned,
    links: Mapping[str, Link],
    before: Link,
    last: Link,
    recipes: tuple[Recipes, Recipes],
    workflow: Mapping[str, object],
) -> Link:
    """The chain of one shot; the name of its take. It begins when the take `last` is on disk."""
    key = f"shot{each.number}of{each.of}."
    given = {"prompt": each.shot.prompt, "audio_prompt": each.shot.audio_prompt}
    encoded = builder.node(
        "MOVATextEncode", f"{key}text", clip=links["clip"], negative_prompt=film.negative_prompt, **given
    )
    models = {"vae": links["vae"], "audio_vae": links["audio_vae"]}
    begun = builder.node(
        "MOVAFilmBegin",
        f"{key}begin",
        positive=encoded.out(0),
        negative=encoded.out(1),
        film=film,
        shot=each.shot.name,
        before=before,
        after=last,
        model=links["model"],
        **models,
    )
    latent = _sampled(builder, key, film, each, links, begun)
    take = builder.node(
        "MOVAFilmTake",
        f"{key}take",
        latent=latent,
        film=film,
        shot=each.shot.name,
        before=before,
        signature=recipes[0](each, ""),
        content=recipes[1](each, ""),
        workflow=workflow,
        **models,
    )
    return take.out(0)


def _sampled(
    builder: GraphBuilder, key: str, film: Film, each: Planned, links: Mapping[str, Link], begun: Node
) -> Link:
    if film.guider is not None:
        return _guided(builder, key, film, each, begun)
    given = {"model": links["model"], "positive": begun.out(0), "negative": begun.out(1), "latent": begun.out(2)}
    return builder.node(film.settings.node, f"{key}sample", **film.settings.inputs, **given, seed=each.seed).out(0)


def _guided(builder: GraphBuilder, key: str, film: Film, each: Planned, begun: Node) -> Link:
    """A copy of the linked guider with the shot's prompts, in ComfyUI's own sampler."""
    assert film.guider is not None
    inputs, settings = film.guider["inputs"], film.settings.inputs
    guider = builder.node(
        film.guider["class_type"],
        f"{key}guider",
        **{**inputs, "positive": begun.out(0), "negative": begun.out(1)},
    )
    scheduler = "simple" if settings["scheduler"] == samplers.EXACT else settings["scheduler"]
    steps = {"steps": settings["steps"], "denoise": settings["denoise"], "scheduler": scheduler}
    walk = {
        "noise": builder.node("RandomNoise", f"{key}noise", noise_seed=each.seed).out(0),
        "guider": guider.out(0),
        "sampler": builder.node("KSamplerSelect", f"{key}sampler", sampler_name=settings["sampler"]).out(0),
        "sigmas": builder.node("BasicScheduler", f"{key}sigmas", model=inputs["model"], **steps).out(0),
        "latent_image": begun.out(2),
    }
    return builder.node("SamplerCustomAdvanced", f"{key}sample", **walk).out(0)


def guider_of(graph: Graph, link: Link) -> Values:
    """The node of a linked guider, to be copied.

    Raises:
        MovaError: one that takes no prompts or no MODEL of its own.
    """
    node = graph.node(link)
    lacking = [name for name in ("model", *CONDITIONS) if name not in node["inputs"]]
    if lacking:
        raise MovaError(
            f"guider: {node['class_type']} has no input {' and '.join(lacking)}, so it cannot be given the prompts of each "
            "shot; use 'MOVA Guider' or 'CFGGuider', or leave the guider out"
        )
    return {"class_type": node["class_type"], "inputs": dict(node["inputs"])}


def ending(recipe: Mapping[str, str], end: str) -> dict[str, str]:
    """A recipe with the digest of the end that the shot began with, known when the shot before is there."""
    return {**recipe, END_BEFORE: end}


def film_digest(film: Film, parts: Sequence[Take]) -> str:
    """What names the file of a film: its takes and how they are put together."""
    joined = [[part.digest, part.end, part.held] for part in parts]
    return digest([joined, film.match_sound, film.match_picture])[:16]


def made_with() -> dict[str, str]:
    """What a take does not depend on by rule, and may all the same: kept to be read."""
    return {
        "comfyui": str(comfyui_version.__version__),
        "torch": torch.__version__,
        "device": comfy.model_management.get_torch_device_name(comfy.model_management.get_torch_device()),
    }
