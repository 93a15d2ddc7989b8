"""The nodes that 'MOVA Film' expands into: what is compared, how a shot begins, how it is kept, and how all are joined."""

import uuid
from typing import Any

from comfy_api.latest import InputImpl, io, ui

from ..mova_core.errors import MovaError
from ..mova_core.film import takes
from ..mova_core.film.decide import Known, decide
from ..mova_core.film.shots import AFTER, GOES_ON
from ..mova_core.inputs.sounds import Sound
from . import inputs
from .base import MovaNode
from .conditioning import MovaImageToVideoAudio
from .decode import MovaDecode
from .extend import MovaExtend
from .film import models, outputs
from .host import joint_latents, messages
from .host.films import film as host
from .host.films import take_files
from .host.films.film import Film
from .host.kept.graph import Graph
from .host.media import video
from .streams import MovaSoundToPicture

OfFilm = io.Custom("MOVA_FILM")
Recipe = io.Custom("MOVA_RECIPE")
TILE_OVERLAP = 64  # pixels, the default of 'MOVA Decode'


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
            inputs=[*models(), OfFilm.Input("film", tooltip="The film.")],
            outputs=outputs(),
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
        said = host.report_of(film, decisions)
        notes = video.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        out, expanded = host.shots(film, decisions, links, (signature, content), said, notes)
        return io.NodeOutput(*out, expand=expanded, ui=ui.PreviewText(said))


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
                *inputs.prompts("From 'MOVA Text Encode'."),
                *models()[2:],
                OfFilm.Input("film", tooltip="The film."),
                io.String.Input("shot", tooltip="Name of the shot."),
                io.String.Input("before", tooltip="The take that it begins with; empty for none."),
                io.String.Input("after", tooltip="The take that is made before it; empty for none."),
                io.Model.Input(
                    "model",
                    tooltip="The MODEL that will sample: a first picture is fitted by its filter.",
                    optional=True,
                ),
            ],
            outputs=[
                *inputs.prompt_outputs(),
                io.Latent.Output(display_name="latent"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        audio_vae: Any,
        film: Film,
        shot: str,
        before: str,
        after: str,
        model: Any = None,
    ) -> io.NodeOutput:
        each = film.numbered(shot)
        messages.show(f"{shot} begins", cls.hidden.unique_id)
        given = {"positive": positive, "negative": negative, "vae": vae}
        if each.shot.begins == GOES_ON:
            images, audio = take_files.end_of(film, before, each.held, vae)
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
            first = take_files.end_of(film, before, 1, vae)[0] if each.shot.begins == AFTER else each.shot.picture
            size: dict[str, Any] = {"width": film.width, "height": film.height, "frames": each.frames, "fps": film.fps}
            begun = MovaImageToVideoAudio.run(**given, **size, batch_size=1, first_frame=first, model=model)
        positive, negative, latent = begun.result
        heard = each.heard()
        if heard is not None:
            driven = MovaSoundToPicture.run(latent, heard, audio_vae).result[0]
            latent = joint_latents.masked_as(driven, latent)
        return io.NodeOutput(positive, negative, latent)


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
                *models()[2:],
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
        images, audio, _ = MovaDecode.run(latent, vae, audio_vae, film.tile_size, TILE_OVERLAP).result
        decoded = images, Sound(waveform=audio["waveform"], rate=audio["sample_rate"])
        recipes = signature, content
        made = take_files.keep(film, film.numbered(shot), before, latent, decoded, recipes, workflow)
        messages.show(f"{shot} is on disk, take {made.digest[:8]}", cls.hidden.unique_id)
        shown = ui.SavedResult(made.clip.name, video.in_output(made.clip), io.FolderType.output)
        return io.NodeOutput(made.id, ui=ui.PreviewVideo([shown]))


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
            outputs=outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        return float("nan")  # the file may have been deleted

    @classmethod
    def run(cls, film: Film, report: str, **named: str) -> io.NodeOutput:
        lacking = [name for name in (f"take{each.number}" for each in film.planned) if name not in named]
        if lacking:
            raise MovaError(f"nothing is connected to {lacking[0]}; 'MOVA Film' makes this node itself")
        parts = [takes.find(film.folder, named[f"take{each.number}"]) for each in film.planned]
        path = take_files.written(film, parts, cls.hidden.prompt, cls.hidden.extra_pnginfo)
        clips = [InputImpl.VideoFromFile(str(part.clip)) for part in parts]
        shown = ui.SavedResult(path.name, video.in_output(path), io.FolderType.output)
        whole = InputImpl.VideoFromFile(str(path))
        return io.NodeOutput(whole, clips, report, ui=ui.PreviewVideo([shown]))
