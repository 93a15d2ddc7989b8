"""The film: shots made one after the other, only those that changed. The nodes it is made of are in film_steps.py."""

import re
import uuid
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.errors import MovaError
from ..mova_core.film import takes
from ..mova_core.film.decide import Known, decide
from ..mova_core.film.seams import MATCHING
from ..mova_core.film.shots import Shot, plan
from ..mova_core.inputs.numbers import told
from ..mova_core.shapes import check_size
from ..mova_core.text import NEGATIVE_PROMPT
from . import inputs
from .base import MovaNode
from .host import messages
from .host.films import film as host
from .host.films.film import PLAIN, Film, Settings
from .host.kept.graph import Graph
from .host.media import video
from .host.types import Values
from .sampling import MovaSampler
from .shots import SamplerSettingsSocket, Shots
from .shots import settings as settings_of

LINK = {"raw_link": True, "lazy": True}


def outputs(inner: bool = True) -> list[io.Output]:
    """An inner node gives the clips as one value: a list would be spread over the slots of the node it was expanded from."""
    clips = "Each shot's clip, in order."
    one = io.AnyType.Output(display_name="clips", tooltip=clips)
    return [
        io.Video.Output(display_name="video", tooltip="The whole film."),
        one if inner else io.Video.Output(display_name="clips", is_output_list=True, tooltip=clips),
        io.String.Output(display_name="report", tooltip="What became of each shot."),
    ]


def models(**options: Any) -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="MOVA, with any LoRAs and patches.", **options),
        io.Clip.Input("clip", tooltip="UMT5-XXL.", **options),
        io.Vae.Input("vae", tooltip="The video VAE.", **options),
        inputs.AudioVae("The audio VAE of 'MOVA Loader'.", **options),
    ]


class MovaFilm(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilm",
            display_name="MOVA Film",
            category="MOVA/film",
            description="Make a film shot by shot. Each shot is kept on disk; run it again, and only what changed is made "
            "again, whatever was closed, moved or crashed in between. Nothing is loaded where nothing changed.",
            search_aliases=["storyboard", "multi shot", "long video", "takes", "story"],
            is_experimental=True,
            is_output_node=True,
            enable_expand=True,
            inputs=[
                *models(**LINK),
                Shots.Input("shots", tooltip="From 'MOVA Shots from Text' or 'MOVA Shot'."),
                io.String.Input(
                    "name",
                    default="film",
                    tooltip="Its folder in output/mova_films. Letters, digits, - and _.",
                ),
                *inputs.size(),
                inputs.fps("Pictures a second; trained at 24."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="Of every shot that names none of its own. Another one makes all of these again.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default=NEGATIVE_PROMPT,
                    tooltip="What to steer away from, in every shot.",
                ),
                io.Combo.Input(
                    "match_sound",
                    options=list(MATCHING),
                    default=MATCHING[0],
                    tooltip="Whether a shot is made as loud as the first: of those that it goes on from, or of all. 'no' matches "
                    "neighbours over what they share.",
                ),
                io.Combo.Input(
                    "match_picture",
                    options=list(MATCHING),
                    default=MATCHING[0],
                    tooltip="Whether colours are brought back to those of the first shot, from which they drift: mean and spread "
                    "of red, green and blue. Changes the film, not the takes.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    step=64,
                    advanced=True,
                    tooltip="As in 'MOVA Decode': 256 lets 720p decode in 8 GB.",
                ),
                io.Float.Input(
                    "size_limit",
                    default=50.0,
                    min=0.0,
                    max=100000.0,
                    step=1.0,
                    advanced=True,
                    tooltip="GB in the film's folder above which the report lists takes that could go; 0 never. Nothing is "
                    "deleted.",
                ),
                SamplerSettingsSocket.Input(
                    "settings",
                    optional=True,
                    tooltip="From 'MOVA Film Sampler'; without it the official settings.",
                ),
                io.Guider.Input(
                    "guider",
                    optional=True,
                    tooltip="'MOVA Guider' or another with positive and negative: copied for each shot, with that shot's prompts.",
                    **LINK,
                ),
            ],
            outputs=outputs(inner=False),
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")  # takes may have been deleted; to look is cheap

    @classmethod
    def run(
        cls, shots: Sequence[Shot], guider: Any = None, settings: Settings | None = None, **given: Any
    ) -> io.NodeOutput:
        links = {name: given.pop(name) for name in host.MODELS}
        graph = Graph(cls.hidden.dynprompt)
        film = _film(shots, settings or Settings(), guider and host.guider_of(graph, guider), **given)
        signature = host.signatures(film, graph, links, uuid.uuid4().hex)
        decisions = decide(film.planned, Known.of(takes.takes(film.folder)), signature)
        if any(decision.take is None for decision in decisions):
            messages.show(host.report_of(film, decisions), cls.hidden.unique_id)
            out, expanded = host.body(film, links)
            return io.NodeOutput(*out, expand=expanded)
        said = host.report_of(film, decisions)
        out, expanded = host.join(film, decisions, said)
        return io.NodeOutput(*out, expand=expanded, ui=ui.PreviewText(said))


def _film(
    shots: Sequence[Shot],
    settings: Settings,
    guider: Values | None,
    *,
    name: str,
    width: int,
    height: int,
    fps: float,
    seed: int,
    size_limit: float,
    **given: Any,
) -> Film:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise MovaError(f"name: {told(name)} cannot name a film; use letters, digits, - and _")
    for each in (name, *(shot.name for shot in shots)):
        video.check_name(each)
    check_size(width, height)
    if guider is not None and settings.node != PLAIN:
        raise MovaError(
            "guider: a linked guider goes with 'MOVA Film Sampler', and the settings are of another sampler"
        )
    if not settings.inputs:
        settings = settings_of(MovaSampler)
    return Film(
        name=name,
        planned=plan(shots, fps, seed),
        off=[shot.name for shot in shots if shot.off],
        width=width,
        height=height,
        fps=fps,
        settings=settings,
        guider=guider,
        limit=size_limit,
        **given,
    )
