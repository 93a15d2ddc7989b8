"""Nodes that say what the shots of a film are, and how each is sampled."""

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..mova_core.errors import MovaError
from ..mova_core.film.grammar import BREATH, Given, parse_shots
from ..mova_core.film.shots import AFTER, BEGINNINGS, CUT, PICTURE, Shot, check_shot_name
from ..mova_core.prompting import Line, quoted, speech_seconds
from ..mova_core.text import is_blank
from . import inputs
from .base import MovaNode
from .fast import MovaFastSampler
from .host.films.film import Settings
from .sampling import MovaSampler

Shots = io.Custom("MOVA_SHOTS")
SamplerSettingsSocket = io.Custom("MOVA_SAMPLER_SETTINGS")
SECONDS, FRAMES, SPEECH = LENGTHS = ("seconds", "frames", "as long as the speech")
OF_A_SHOT = {"model", "positive", "negative", "latent", "seed", "audio_vae", "listen_every"}
EXAMPLE = """Anna: a woman in a red coat; warm and low
scene: A small kitchen at dawn, a table by the window.
sound: rain on a tin roof

[door] speech
Anna opens the door and shakes out an umbrella.
Anna: It has not stopped since Tuesday.

[table] goes on, 5 s
She sits down at the table and warms her hands on a cup.

[street] 6 s
scene: A wet street with cobbles, early light.
A tram passes from left to right."""


class MovaShot(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAShot",
            display_name="MOVA Shot",
            category="MOVA/film",
            description="A shot of a film, put after those that are linked. Many at once are quicker written with 'MOVA Shots "
            "from Text'.",
            search_aliases=["storyboard", "multi shot", "scene"],
            is_experimental=True,
            inputs=[
                io.String.Input(
                    "name", default="shot1", tooltip="Its name, and its folder's: letters, digits, - and _."
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    tooltip="What is seen and heard in this shot, as for 'MOVA Text Encode'.",
                ),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default=SECONDS,
                    tooltip="What says how long it is. The speech is what the prompt has in quotation marks, with a second "
                    "beside it.",
                ),
                io.Float.Input(
                    "seconds",
                    default=6.0,
                    min=0.1,
                    max=60.0,
                    step=0.1,
                    tooltip="Of what is new; up to 8, or 7 where it goes on.",
                ),
                io.Int.Input(
                    "frames",
                    default=145,
                    min=1,
                    max=193,
                    advanced=True,
                    tooltip="Of what is new; rounded up to what can be made.",
                ),
                io.Combo.Input(
                    "begins",
                    options=list(BEGINNINGS),
                    default=CUT,
                    tooltip="'goes on': with the last pictures and sound of the shot before. 'after': a cut whose first picture "
                    "is the last of the shot that 'source' names. 'picture': with the one that is connected.",
                ),
                io.String.Input("source", default="", tooltip="For 'after': the name of an earlier shot."),
                inputs.overlap("For 'goes on': pictures taken over from the shot before, 4n + 1."),
                io.Int.Input(
                    "seed",
                    default=-1,
                    min=-1,
                    max=0xFFFFFFFFFFFFFFF,
                    tooltip="Its own seed; -1 is the film's.",
                ),
                io.Boolean.Input("lock", default=False, tooltip="Its newest take is used as it is, never made again."),
                io.Boolean.Input("off", default=False, tooltip="It is left out of the film."),
                io.String.Input(
                    "take",
                    default="",
                    advanced=True,
                    tooltip="The first digits of a take on disk, to use that one. Empty is the one that fits.",
                ),
                Shots.Input("shots", optional=True, tooltip="The shots before it."),
                io.Image.Input("picture", optional=True, tooltip="Its first picture, for 'picture'."),
                io.String.Input(
                    "audio_prompt",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="A prompt that the sound alone reads. Untrained.",
                ),
            ],
            outputs=[Shots.Output(display_name="shots")],
        )

    @classmethod
    def run(
        cls,
        name: str,
        prompt: str,
        length: str,
        seconds: float,
        frames: int,
        begins: str,
        source: str,
        overlap: int,
        seed: int,
        lock: bool,
        off: bool,
        take: str,
        shots: Any = (),
        picture: Any = None,
        audio_prompt: str = "",
    ) -> io.NodeOutput:
        where = f"shot {check_shot_name(name, 'name')!r}"
        if is_blank(prompt):
            raise MovaError(f"{where}: the prompt is empty; say what is seen and heard")
        said: dict[str, dict[str, Any]] = {SECONDS: {"seconds": seconds}, FRAMES: {"frames": frames}}
        long = said.get(length) or _speech(prompt, where)
        shot = Shot(
            name=check_shot_name(name, "name"),
            where=where,
            prompt=prompt,
            audio_prompt=audio_prompt,
            begins=begins,
            source=source.strip() if begins == AFTER else "",
            picture=picture[:1] if begins == PICTURE and picture is not None else None,
            overlap=overlap,
            seed=None if seed < 0 else seed,
            take=take.strip().lower(),
            lock=lock,
            off=off,
            **long,
        )
        return io.NodeOutput((*shots, shot))


def _speech(prompt: str, where: str) -> dict[str, float]:
    said = tuple(Line(speaker="", words=words) for words in quoted(prompt))
    if not said:
        raise MovaError(f"{where} is as long as its speech, and its prompt quotes none; give it seconds")
    return {"seconds": speech_seconds(said) + BREATH}


class MovaShotsFromText(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAShotsFromText",
            display_name="MOVA Shots from Text",
            category="MOVA/film",
            description="The shots of a film from one text: a block a shot, begun by its name in brackets. The help page shows "
            "all of the grammar.",
            search_aliases=["storyboard", "script", "multi shot", "screenplay"],
            is_experimental=True,
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default=EXAMPLE,
                    tooltip="[name] and options begin a shot; the rows below it say what happens. Rows above the first shot "
                    "hold for all.",
                ),
                io.Image.Input("pictures", optional=True, tooltip="First pictures: 'picture 2' is the second of them."),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="A recording that shots are made to: 'recording' cuts it at its pauses, 0:12-0:20 is a stretch.",
                ),
                Shots.Input("shots", optional=True, tooltip="Shots before these."),
            ],
            outputs=[Shots.Output(display_name="shots")],
        )

    @classmethod
    def run(cls, text: str, pictures: Any = None, audio: Any = None, shots: Any = ()) -> io.NodeOutput:
        each = () if pictures is None else tuple(pictures.split(1))
        return io.NodeOutput((*shots, *parse_shots(text, Given(pictures=each, recording=audio))))


def shared(sampler: type[MovaNode]) -> list[io.Input]:
    """The inputs of a sampler that are the same for every shot; a MODEL as its link, so that it is loaded for a shot only."""
    chosen = [given for given in sampler.define_schema().inputs if given.id not in OF_A_SHOT]
    return [
        io.Model.Input(given.id, optional=True, tooltip=given.tooltip, raw_link=True, lazy=True)
        if isinstance(given, io.Model.Input)
        else given
        for given in chosen
    ]


def settings(sampler: type[MovaNode], widgets: Mapping[str, Any] | None = None) -> Settings:
    """Of every shot: the sampler's widgets, as given or by default."""
    default = {given.id: given.default for given in shared(sampler) if hasattr(given, "default")}
    return Settings(node=sampler.define_schema().node_id, inputs=default | dict(widgets or {}))


class MovaFilmSampler(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmSampler",
            display_name="MOVA Film Sampler",
            category="MOVA/film",
            description="How every shot of a film is sampled: the widgets of 'MOVA Sampler'. Without it a film is sampled with "
            "their defaults.",
            is_experimental=True,
            inputs=shared(MovaSampler),
            outputs=[SamplerSettingsSocket.Output(display_name="settings", tooltip="For 'MOVA Film'.")],
        )

    @classmethod
    def run(cls, **widgets: Any) -> io.NodeOutput:
        return io.NodeOutput(settings(MovaSampler, widgets))


class MovaFilmFastSampler(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmFastSampler",
            display_name="MOVA Film Fast Sampler",
            category="MOVA/film",
            description="How every shot of a film is sampled in few steps: the widgets of 'MOVA Fast Sampler'.",
            is_experimental=True,
            inputs=shared(MovaFastSampler),
            outputs=[SamplerSettingsSocket.Output(display_name="settings", tooltip="For 'MOVA Film'.")],
        )

    @classmethod
    def run(cls, **widgets: Any) -> io.NodeOutput:
        return io.NodeOutput(settings(MovaFastSampler, widgets))
