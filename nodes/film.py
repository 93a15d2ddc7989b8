"""The film: shots made one after the other, only those that changed."""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import InputImpl, io, ui

from ..mova_core.errors import MovaError
from ..mova_core.film import takes
from ..mova_core.film.decide import Decision, Known, decide, report
from ..mova_core.film.seams import MATCHING, colours, joined_sound, matched_colours, references
from ..mova_core.film.shots import AFTER, GOES_ON, OVERLAP, Planned, Shot, plan
from ..mova_core.inputs.numbers import told
from ..mova_core.shapes import check_size
from ..mova_core.text import NEGATIVE_PROMPT
from ..mova_core.waveform import five_one
from . import inputs
from .base import MovaNode
from .conditioning import MovaImageToVideoAudio
from .decode import MovaDecode
from .extend import MovaExtend
from .host import film as host
from .host import messages, resampling, sampling, video
from .host.film import PLAIN, Film, Settings
from .host.film_graph import Graph
from .sampling import MovaSampler
from .shots import SamplerSettings, Shots
from .shots import settings as settings_of
from .streams import MovaSoundToPicture

OfFilm = io.Custom("MOVA_FILM")
Recipe = io.Custom("MOVA_RECIPE")
LINK = {"raw_link": True, "lazy": True}
TILE_OVERLAP = 64  # pixels, the default of 'MOVA Decode'


def _outputs(inner: bool = True) -> list[io.Output]:
    """An inner node gives the clips as one value: a list would be spread over the slots of the node it was expanded from."""
    clips = "Each shot's clip, in order."
    one = io.AnyType.Output(display_name="clips", tooltip=clips)
    return [
        io.Video.Output(display_name="video", tooltip="The whole film."),
        one if inner else io.Video.Output(display_name="clips", is_output_list=True, tooltip=clips),
        io.String.Output(display_name="report", tooltip="What became of each shot."),
    ]


def _models(**options: Any) -> list[io.Input]:
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
                *_models(**LINK),
                Shots.Input("shots", tooltip="From 'MOVA Shots from Text' or 'MOVA Shot'."),
                io.String.Input(
                    "name",
                    default="film",
                    tooltip="Its folder in output/mova_films. Letters, digits, - and _.",
                ),
                io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
                io.Int.Input("height", default=352, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
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
                SamplerSettings.Input(
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
            outputs=_outputs(inner=False),
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
            messages.show(_report(film, decisions), cls.hidden.unique_id)
            outputs, expanded = host.body(film, links)
            return io.NodeOutput(*outputs, expand=expanded)
        said = _report(film, decisions)
        outputs, expanded = host.join(film, decisions, said)
        return io.NodeOutput(*outputs, expand=expanded, ui=ui.PreviewText(said))


def _film(
    shots: Sequence[Shot],
    settings: Settings,
    guider: Mapping[str, Any] | None,
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


def _report(film: Film, decisions: Sequence[Decision]) -> str:
    return report(decisions, film.off, film.folder, film.limit)


class MovaFilmBody(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmBody",
            display_name="MOVA Film: Compare",
            category="MOVA/film",
            description="A part of 'MOVA Film', which makes it: compares what the models hold, and expands the shots that are "
            "to be made.",
            is_dev_only=True,
            enable_expand=True,
            inputs=[*_models(), OfFilm.Input("film", tooltip="The film.")],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")

    @classmethod
    def run(cls, film: Film, **values: Any) -> io.NodeOutput:
        dynprompt, own = cls.hidden.dynprompt, cls.hidden.unique_id
        links = {name: dynprompt.get_node(own)["inputs"][name] for name in host.MODELS}
        graph, salt = Graph(dynprompt), uuid.uuid4().hex
        signature = host.signatures(film, graph, links, salt)
        content = host.contents(film, graph, links, values, salt)
        decisions = decide(film.planned, Known.of(takes.takes(film.folder)), signature, content)
        if salt not in signature(film.planned[0], "").values():  # how it is written can be compared
            for decision in decisions:
                decision.remember(decisions, signature)
        said = _report(film, decisions)
        notes = video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        outputs, expanded = host.shots(film, decisions, links, (signature, content), said, notes)
        return io.NodeOutput(*outputs, expand=expanded, ui=ui.PreviewText(said))


class MovaFilmBegin(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmBegin",
            display_name="MOVA Film: Begin a Shot",
            category="MOVA/film",
            description="A part of 'MOVA Film', which makes it: begins a shot as 'MOVA Image to Video+Audio', 'MOVA Extend' and "
            "'MOVA Sound to Picture' do.",
            is_dev_only=True,
            inputs=[
                io.Conditioning.Input("positive", tooltip="From 'MOVA Text Encode'."),
                io.Conditioning.Input("negative", tooltip="From 'MOVA Text Encode'."),
                *_models()[2:],
                OfFilm.Input("film", tooltip="The film."),
                io.String.Input("shot", tooltip="Name of the shot."),
                io.String.Input("before", tooltip="The take that it begins with; empty for none."),
                io.String.Input("after", tooltip="The take that is made before it; empty for none."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls, positive: Any, negative: Any, vae: Any, audio_vae: Any, film: Film, shot: str, before: str, after: str
    ) -> io.NodeOutput:
        each = film.numbered(shot)
        messages.show(f"{shot} begins", cls.hidden.unique_id)
        given = {"positive": positive, "negative": negative, "vae": vae}
        if each.shot.begins == GOES_ON:
            images, audio = _end(film, before, each.held, vae)
            begun = MovaExtend.run(
                **given,
                audio_vae=audio_vae,
                images=images,
                audio=audio,
                fps=film.fps,
                frames=each.frames,
                overlap=each.held,
            )
        else:
            first = _end(film, before, 1, vae)[0] if each.shot.begins == AFTER else each.shot.picture
            size = {"width": film.width, "height": film.height, "frames": each.frames, "fps": film.fps}
            begun = MovaImageToVideoAudio.run(**given, **size, batch_size=1, first_frame=first)
        positive, negative, latent = begun.result
        heard = each.heard()
        if heard is not None:
            driven = MovaSoundToPicture.run(latent, heard, audio_vae).result[0]
            latent = sampling.masked_as(driven, latent)
        return io.NodeOutput(positive, negative, latent)


def _end(film: Film, before: str, count: int, vae: Any) -> tuple[Any, Any]:
    """The last `count` pictures of a take, (F, H, W, 3) in 0..1, and the sound of what they are the end of."""
    take = takes.find(film.folder, before)
    pictures = takes.as_light(take.pictures())
    if len(pictures) < count:  # it was made for a shorter overlap
        pictures = takes.as_light(_as_bytes(vae.decode(take.latents()[0].to(sampling.device())).flatten(0, 1)))
    return pictures[-count:], take.sound_of(count)


def _as_bytes(pictures: Any) -> Any:
    return (pictures.float().clamp(0, 1) * 255).round().byte().cpu()


class MovaFilmTake(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmTake",
            display_name="MOVA Film: Keep a Take",
            category="MOVA/film",
            description="A part of 'MOVA Film', which makes it: decodes a shot and puts it on disk, in one step, so that memory "
            "holds one shot.",
            is_dev_only=True,
            is_output_node=True,
            inputs=[
                io.Latent.Input("latent", tooltip="The sampled shot."),
                *_models()[2:],
                OfFilm.Input("film", tooltip="The film."),
                io.String.Input("shot", tooltip="Name of the shot."),
                io.String.Input("before", tooltip="The take that it began with; empty for none."),
                Recipe.Input("signature", tooltip="How what it was made from is written."),
                Recipe.Input("content", tooltip="What it was made from."),
                Recipe.Input("workflow", tooltip="What goes into the MP4."),
            ],
            outputs=[io.String.Output(display_name="take", tooltip="Its name.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls,
        latent: Any,
        vae: Any,
        audio_vae: Any,
        film: Film,
        shot: str,
        before: str,
        signature: Any,
        content: Any,
        workflow: Any,
    ) -> io.NodeOutput:
        each = film.numbered(shot)
        images, audio, _ = MovaDecode.run(latent, vae, audio_vae, film.tile_size, TILE_OVERLAP).result
        pictures, heard = _as_bytes(images), each.heard()
        sound = audio["waveform"][0].float().cpu() if heard is None else heard.waveform[0]
        rate = audio["sample_rate"] if heard is None else heard.rate
        end = takes.find(film.folder, before).end if before else ""
        tail = pictures[-_kept(film, each) :].clone()
        mean, spread = colours(pictures)
        take = takes.Take(
            shot=shot,
            number=0,
            frames=len(pictures),
            held=each.held,
            height=film.height,
            width=film.width,
            fps=film.fps,
            sample_rate=rate,
            end=takes.end_digest(tail, sound),
            content=host.ending(content, end),
            signatures=[host.ending(signature, end)],
            mean=mean,
            spread=spread,
            made_with=host.made_with(),
        )
        streams = sampling.streams(latent)
        stored = {name: part.float().cpu().contiguous() for name, part in zip(("video", "audio"), streams)}
        played, played_rate = _for_player([takes.Sound(waveform=sound[None], rate=rate)])

        def write_clip(path: Any) -> None:
            size = film.width, film.height
            video.write(
                path,
                size,
                [pictures],
                played,
                film.fps,
                played_rate,
                workflow,
                frames=len(pictures),
                quality=video.MASTER,
            )

        made = takes.write_take(film.folder, take, stored, {"pictures": tail, "sound": sound.contiguous()}, write_clip)
        messages.show(f"{shot} is on disk, take {made.digest[:8]}", cls.hidden.unique_id)
        shown = ui.SavedResult(made.clip.name, video.in_output(made.clip), io.FolderType.output)
        return io.NodeOutput(made.id, ui=ui.PreviewVideo([shown]))


def _kept(film: Film, each: Planned) -> int:
    """Pictures of its end that a shot keeps: as many as any that goes on from it holds, or as are usual."""
    wanted = [other.held for other in film.planned if other.needs == each.shot.name]
    return min(max([OVERLAP, *wanted]), each.frames)


def _for_player(sounds: Sequence[Any]) -> tuple[Any, int]:
    """(C, S) of one sound at a rate that players take."""
    rate = video.player_rate([sound.rate for sound in sounds])
    return five_one(resampling.resampled(sounds[0].waveform, sounds[0].rate, rate))[0], rate


class MovaFilmJoin(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAFilmJoin",
            display_name="MOVA Film: Join",
            category="MOVA/film",
            description="A part of 'MOVA Film', which makes it: writes the film from its takes, if it is not there yet.",
            is_dev_only=True,
            accept_all_inputs=True,
            inputs=[
                OfFilm.Input("film", tooltip="The film."),
                io.String.Input("report", tooltip="What became of each shot."),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")  # the file may have been deleted

    @classmethod
    def run(cls, film: Film, report: str, **named: str) -> io.NodeOutput:
        parts = [takes.find(film.folder, named[f"take{each.number}"]) for each in film.planned]
        _check_alike(film, parts)
        path = film.folder / f"film_{host.film_digest(film, parts)}.mp4"
        if not path.is_file():
            _write_film(path, film, parts, video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo))
        clips = [InputImpl.VideoFromFile(str(part.clip)) for part in parts]
        shown = ui.SavedResult(path.name, video.in_output(path), io.FolderType.output)
        whole = InputImpl.VideoFromFile(str(path))
        return io.NodeOutput(whole, clips, report, ui=ui.PreviewVideo([shown]))


def _check_alike(film: Film, parts: Sequence[takes.Take]) -> None:
    for each, part in zip(film.planned, parts):
        if (part.width, part.height, part.fps) != (film.width, film.height, film.fps):
            raise MovaError(
                f"{each.place}: its take {part.digest[:8]} is {part.width} x {part.height} at {part.fps:g} a second, the film "
                f"{film.width} x {film.height} at {film.fps:g}; take away its lock or chosen take, or make the film like it"
            )


def _write_film(path: Any, film: Film, parts: Sequence[takes.Take], notes: Mapping[str, Any]) -> None:
    held = [0, *(part.held for part in parts[1:])]
    rate = video.player_rate([part.sample_rate for part in parts])
    sound = five_one(joined_sound(parts, held, film.match_sound, rate, resampling.resampled))[0]
    firsts = references(held, film.match_picture)
    pieces = (
        matched_colours(piece, part, parts[first])
        for part, overlap, first in zip(parts, held, firsts)
        for piece in video.read(part.clip, overlap)
    )
    frames = sum(part.frames for part in parts) - sum(held)
    video.write(path, (film.width, film.height), pieces, sound, film.fps, rate, notes, frames=frames)
