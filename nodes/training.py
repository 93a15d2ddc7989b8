"""Nodes that train: recordings to a data set, a LoRA from it, and what that will take."""

import re
from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.errors import MovaError
from ..mova_core.shapes import VideoShape
from ..mova_core.training.adapters import LARGEST_RANK, TARGETS
from ..mova_core.training.clips import CUTS, SIZES
from ..mova_core.training.optim import Rates
from ..mova_core.training.run import OPTIMIZERS, Settings
from . import inputs
from .base import MovaNode
from .host import messages, training, training_budget, training_clips, training_views

CLIPS = io.Custom("MOVA_CLIPS")
PARTS = {
    "both experts, sound and bridge": ("high", "low", "audio", "bridge"),
    "both experts": ("high", "low"),
    "high-noise expert": ("high",),
    "low-noise expert": ("low",),
    "high-noise expert, sound and bridge": ("high", "audio", "bridge"),
    "low-noise expert, sound and bridge": ("low", "audio", "bridge"),
    "sound and bridge": ("audio", "bridge"),
    "sound": ("audio",),
    "bridge": ("bridge",),
}
NAMINGS = ("official", "diffsynth")


class _Listed:
    """Inputs that arrive as whole lists, not one value at a time."""

    def checked(self, value: Any) -> list[Any]:
        return list(value) if isinstance(value, list | tuple) else [value]


class VideoList(_Listed, io.Video.Input):
    """VIDEOs."""


class CaptionList(_Listed, io.String.Input):
    """Captions, one a video."""


def _rank(default: int = 16) -> io.Int.Input:
    return io.Int.Input(
        "rank",
        default=default,
        min=1,
        max=LARGEST_RANK,
        tooltip="How much a layer can learn. 16 is the usual one; 32 for many clips, 4 to 8 for one simple thing. Memory and "
        "the file grow with it.",
    )


def _parts() -> io.Combo.Input:
    return io.Combo.Input(
        "parts",
        options=list(PARTS),
        default="both experts, sound and bridge",
        tooltip="What learns. High noise is layout and motion, low noise faces and detail; sound is the voice; the bridge is "
        "how both hear each other. What is not chosen is not in the file.",
    )


def _optimizer() -> io.Combo.Input:
    return io.Combo.Input(
        "optimizer",
        options=list(OPTIMIZERS),
        default="adamw",
        optional=True,
        advanced=True,
        tooltip="adamw8bit keeps its moments in a quarter of the memory: at rank 32 it saves 1.4 GiB of VRAM.",
    )


class MovaTrainingClips(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATrainingClips",
            display_name="MOVA Training Clips",
            category="MOVA/training",
            description="Turn a folder of video clips with captions into a data set: pictures, sound and prompts encoded "
            "once and kept. Shows what will really be learned from, decoded back.",
            search_aliases=["dataset", "data set", "LoRA training", "captions", "finetune"],
            is_input_list=True,
            inputs=[
                io.Clip.Input("clip", tooltip="UMT5-XXL: the CLIP of 'MOVA Loader'."),
                io.Vae.Input("vae", tooltip="The video VAE."),
                inputs.AudioVae("The audio VAE of 'MOVA Loader'."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder of the clips: a whole path, or one in ComfyUI's input folder. Beside each clip a .txt of "
                    "the same name with its caption, or one captions.csv with the columns file and caption. Not used where "
                    "videos are connected.",
                ),
                io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
                io.Int.Input(
                    "height",
                    default=352,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16. 640 x 352 is what MOVA-360p was trained at; 432 x 240 trains three "
                    "times as fast.",
                ),
                io.Int.Input(
                    "frames",
                    default=97,
                    min=5,
                    max=2001,
                    step=4,
                    tooltip="Most pictures of a clip, 4n + 1, at 24 a second: 97 are 4 s, 193 are 8 s. Memory grows with "
                    "it, time faster. Shorter clips keep their length.",
                ),
                io.Combo.Input(
                    "sizes",
                    options=list(SIZES),
                    default="crop",
                    tooltip="'crop' cuts every clip to width x height. 'buckets' keeps each clip's proportions at about the "
                    "same area.",
                ),
                io.Combo.Input(
                    "cut",
                    options=list(CUTS),
                    default="start",
                    tooltip="Of a clip longer than that: 'start' takes its beginning, 'windows' one piece after the other.",
                ),
                io.String.Input(
                    "caption_prefix",
                    default="",
                    optional=True,
                    tooltip="Put before every caption: the word that is to call the LoRA.",
                ),
                io.String.Input(
                    "default_caption",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Caption of clips that have none. Empty: such clips are named, and nothing is trained.",
                ),
                io.Boolean.Input(
                    "even_loudness",
                    default=False,
                    optional=True,
                    tooltip="Bring every clip's sound to the same loudness. For a voice of many recordings; not for an "
                    "ambience whose loudness is its nature.",
                ),
                io.Float.Input(
                    "loudness",
                    default=-20.0,
                    min=-60.0,
                    max=0.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="That loudness: root mean square in dB below full scale, as far as peaks allow.",
                ),
                io.Int.Input(
                    "preview_clips",
                    default=4,
                    min=0,
                    max=32,
                    optional=True,
                    advanced=True,
                    tooltip="Clips decoded back for the contact sheet and the sound.",
                ),
                VideoList(
                    "videos",
                    optional=True,
                    tooltip="VIDEOs instead of a folder, as of 'Load Video Dataset from Folder'. A trim is kept.",
                ),
                CaptionList(
                    "captions", optional=True, force_input=True, tooltip="One for each of the videos, in order."
                ),
            ],
            outputs=[
                CLIPS.Output(display_name="clips"),
                io.Image.Output(display_name="contact_sheet", tooltip="Six pictures of each of the first clips."),
                io.Audio.Output(display_name="sound", tooltip="Of the first clips, one after the other."),
                io.String.Output(
                    display_name="report", tooltip="Sizes and lengths; which clips are short, silent or without sound."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Every input comes as a list; all but videos and captions are of one value."""
        lists = ("videos", "captions")
        single = {k: v[0] if isinstance(v, list) and k not in lists and v else v for k, v in values.items()}
        return super().execute(**single)

    @classmethod
    def fingerprint_inputs(cls, folder: Any = None, **_: Any) -> Any:
        name = folder[0] if isinstance(folder, list) and folder else folder
        if not isinstance(name, str) or not name.strip():
            return ""
        place = training_clips.input_folder(name)
        if not place.is_dir():
            return float("nan")
        return sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in place.iterdir() if p.is_file())

    @classmethod
    def run(
        cls,
        clip: Any,
        vae: Any,
        audio_vae: Any,
        folder: str,
        width: int,
        height: int,
        frames: int,
        sizes: str,
        cut: str,
        caption_prefix: str = "",
        default_caption: str = "",
        even_loudness: bool = False,
        loudness: float = -20.0,
        preview_clips: int = 4,
        videos: list[Any] | None = None,
        captions: list[str] | None = None,
    ) -> io.NodeOutput:
        shape = VideoShape(batch=1, frames=frames, height=height, width=width)
        wishes = training_clips.Wishes(
            frames=shape.frames,
            height=height,
            width=width,
            cut=cut,
            sizes=sizes,
            level=loudness if even_loudness else None,
        )
        sources = (
            training_clips.from_lists(videos, captions or [], default_caption)
            if videos
            else training_clips.from_folder(folder, default_caption)
        )
        coders = training_clips.Coders(vae, audio_vae, clip)
        made = training_clips.build(sources, caption_prefix, wishes, coders)
        messages.show(made.report, cls.hidden.unique_id)
        return io.NodeOutput(made, *training_clips.preview(made, coders, preview_clips), made.report)


class MovaTrainLora(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATrainLora",
            display_name="MOVA Train LoRA",
            category="MOVA/training",
            description="Train a LoRA of picture and sound on one card. Saves as it goes, can be cancelled at any time, and "
            "goes on where it stopped when it is run again.",
            search_aliases=["LoRA training", "finetune", "train character", "train voice"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="MOVA as a loader gives it, without LoRAs or patches."),
                CLIPS.Input("clips", tooltip="Of 'MOVA Training Clips'."),
                io.String.Input(
                    "name",
                    default="my_lora",
                    tooltip="Name of the LoRA and of its run: a file of that name in models/loras. Letters, digits, - and _.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=1000000,
                    tooltip="Optimizer steps in all. Raise it and run again to go on.",
                ),
                _rank(),
                _parts(),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    tooltip="Of the low-noise expert, the sound and the bridge. Too high: flat colours, noise, shouting. Too "
                    "low: nothing is learned.",
                ),
                io.Float.Input(
                    "high_noise_rate",
                    default=5e-5,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    tooltip="Of the high-noise expert, which learns its few noise levels sooner and spoils sooner.",
                ),
                io.Int.Input(
                    "draw_seed",  # the page changes an input named seed after each run, and this one must stay
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    advanced=True,
                    tooltip="Seed of all draws and of the start. A run that goes on keeps it.",
                ),
                io.Int.Input(
                    "save_every",
                    default=200,
                    min=0,
                    max=100000,
                    advanced=True,
                    tooltip="Steps between saves on the way; 0: none.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Steps between clips made with the LoRA as it is; 0: none. Needs vae and audio_vae.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The video VAE, for previews."),
                inputs.AudioVae("The audio VAE, for previews.", optional=True),
                io.Float.Input(
                    "audio_rate",
                    default=1e-4,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    optional=True,
                    advanced=True,
                    tooltip="Learning rate of the audio tower.",
                ),
                io.Float.Input(
                    "bridge_rate",
                    default=1e-4,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    optional=True,
                    advanced=True,
                    tooltip="Learning rate of the bridge.",
                ),
                io.Float.Input(
                    "audio_weight",
                    default=0.2,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Weight of the sound's loss beside the picture's. 0.2 is the paper's, 1 the official trainer's: "
                    "take more for a voice.",
                ),
                io.Int.Input(
                    "accumulate",
                    default=1,
                    min=1,
                    max=256,
                    optional=True,
                    advanced=True,
                    tooltip="Samples an optimizer step, all of the same expert.",
                ),
                io.Int.Input(
                    "alternate",
                    default=10,
                    min=1,
                    max=10000,
                    optional=True,
                    advanced=True,
                    tooltip="Steps an expert takes before the other has its turn.",
                ),
                io.Float.Input(
                    "alpha",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Scale is alpha / rank. 0 is the rank, a scale of 1.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(TARGETS),
                    default="all",
                    optional=True,
                    advanced=True,
                    tooltip="'all': attention and feed-forward, as officially. 'attention' alone is smaller and milder.",
                ),
                _optimizer(),
                io.Int.Input(
                    "warmup",
                    default=50,
                    min=0,
                    max=100000,
                    optional=True,
                    advanced=True,
                    tooltip="Steps of each expert over which the rate rises.",
                ),
                io.Float.Input(
                    "clip_norm",
                    default=1.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Largest norm of the gradients; 0: no limit.",
                ),
                io.Float.Input(
                    "caption_dropout",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Share of samples shown with an empty prompt, so that guidance keeps working. Officially none.",
                ),
                io.Float.Input(
                    "bridge_dropout",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Share of samples with the bridge cut, as guidance by the bridge needs. No released code trains "
                    "it: an experiment.",
                ),
                io.Boolean.Input(
                    "separate_noise",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Draw the sound's noise level apart from the picture's, as the paper says. The released code "
                    "shares one.",
                ),
                io.Int.Input(
                    "strata",
                    default=8,
                    min=1,
                    max=100,
                    optional=True,
                    advanced=True,
                    tooltip="Noise levels are drawn so that each of so many parts of the range comes once in as many samples.",
                ),
                io.Int.Input(
                    "evaluate_every",
                    default=100,
                    min=0,
                    max=100000,
                    optional=True,
                    advanced=True,
                    tooltip="Steps between losses of fixed samples, which can be compared over time; 0: none.",
                ),
                io.Int.Input(
                    "keep",
                    default=3,
                    min=0,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Saves on the way that are kept, the newest; 0: all.",
                ),
                io.Combo.Input(
                    "naming",
                    options=list(NAMINGS),
                    default="official",
                    optional=True,
                    advanced=True,
                    tooltip="Key names. 'official' is one file, read by 'MOVA LoRA Loader' and ComfyUI's own; 'diffsynth' a "
                    "file a component.",
                ),
                io.Combo.Input(
                    "memory",
                    options=list(training.MEMORY),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="'low' keeps less within a layer and takes 6 % more time: 24 GB becomes 20. 'auto' takes it where "
                    "it is needed.",
                ),
                io.Boolean.Input(
                    "begin_anew",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Begin again though there is a run of this name, which is then written over.",
                ),
                io.Int.Input(
                    "preview_steps",
                    default=20,
                    min=1,
                    max=200,
                    optional=True,
                    advanced=True,
                    tooltip="Sampling steps of a preview.",
                ),
                io.Float.Input(
                    "preview_cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="Its guidance; 1 halves its time.",
                ),
            ],
            outputs=[
                io.LoraModel.Output(display_name="lora", tooltip="For 'Load LoRA Model'."),
                io.LossMap.Output(display_name="loss", tooltip="For 'Plot Loss Graph'."),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls, model: Any, clips: Any, name: str, vae: Any = None, audio_vae: Any = None, **given: Any
    ) -> io.NodeOutput:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
            raise MovaError(f"{name!r} cannot name a LoRA; use letters, digits, - and _")
        values = _with_defaults(cls.define_schema(), given)
        settings = _settings(values)
        saving = training.Saving(
            name=name,
            every=values["save_every"],
            keep=values["keep"],
            naming=values["naming"],
            again=values["begin_anew"],
        )
        previews = None
        if values["preview_every"]:
            if vae is None or audio_vae is None:
                raise MovaError("previews need vae and audio_vae: connect both, or set preview_every to 0")
            previews = training_views.Previews(
                model=model,
                data=clips,
                coders=training_clips.Coders(vae, audio_vae, None),
                folder=saving.folder,
                steps=values["preview_steps"],
                cfg=values["preview_cfg"],
                seed=settings.seed,
            )
        watching = training.Watching(
            evaluate_every=values["evaluate_every"],
            preview_every=values["preview_every"],
            preview=previews,
            node_id=cls.hidden.unique_id,
        )
        lora, loss, report = training.train(model, clips, settings, saving, watching, values["memory"])
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(lora, loss, report, ui=ui.PreviewText(report))


def _with_defaults(schema: io.Schema, given: dict[str, Any]) -> dict[str, Any]:
    """Every widget's value: optional inputs that an old workflow does not have are at their defaults."""
    known = {each.id: each.default for each in schema.inputs if getattr(each, "default", None) is not None}
    return {**known, **given}


def _settings(values: dict[str, Any]) -> Settings:
    rate = values["learning_rate"]
    return Settings(
        parts=PARTS[values["parts"]],
        rank=values["rank"],
        alpha=values["alpha"] or values["rank"],
        steps=values["steps"],
        rates=Rates(
            high=values["high_noise_rate"],
            low=rate,
            audio=values["audio_rate"],
            bridge=values["bridge_rate"],
            warmup=values["warmup"],
            clip=values["clip_norm"],
        ),
        layers=values["layers"],
        optimizer=values["optimizer"],
        seed=values["draw_seed"],
        accumulate=values["accumulate"],
        alternate=values["alternate"],
        audio_weight=values["audio_weight"],
        caption_dropout=values["caption_dropout"],
        bridge_dropout=values["bridge_dropout"],
        separate=values["separate_noise"],
        strata=values["strata"],
    )


class MovaTrainingBudget(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATrainingBudget",
            display_name="MOVA Training Budget",
            category="MOVA/training",
            description="What training will take on this machine before anything is loaded: VRAM, RAM, disk, seconds a step, "
            "hours, and what would make it fit.",
            search_aliases=["VRAM", "how long", "estimate", "will it fit", "LoRA training"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="MOVA as it would be trained."),
                io.Int.Input(
                    "width", default=640, min=16, max=4096, step=16, tooltip="Of the largest clips, in pixels."
                ),
                io.Int.Input(
                    "height", default=352, min=16, max=4096, step=16, tooltip="Of the largest clips, in pixels."
                ),
                io.Int.Input("frames", default=97, min=5, max=2001, step=4, tooltip="Of the longest clips, 4n + 1."),
                io.Int.Input("clip_count", default=30, min=1, max=100000, tooltip="Clips of the data set."),
                io.Int.Input("steps", default=1000, min=1, max=1000000, tooltip="Optimizer steps."),
                _rank(),
                _parts(),
                _optimizer(),
                io.Int.Input(
                    "accumulate", default=1, min=1, max=256, optional=True, advanced=True, tooltip="Samples a step."
                ),
                io.Boolean.Input(
                    "measure",
                    default=True,
                    optional=True,
                    tooltip="Time one block with random weights on this device, for some seconds. Off, memory alone is told.",
                ),
                CLIPS.Input("clips", optional=True, tooltip="A data set, in place of sizes and count."),
            ],
            outputs=[io.String.Output(display_name="report")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Made anew each time, since nothing equals nan: memory in use changes."""
        return float("nan")

    @classmethod
    def run(
        cls,
        model: Any,
        width: int,
        height: int,
        frames: int,
        clip_count: int,
        steps: int,
        rank: int,
        parts: str,
        optimizer: str = "adamw",
        accumulate: int = 1,
        measure: bool = True,
        clips: Any = None,
    ) -> io.NodeOutput:
        shape = VideoShape(batch=1, frames=frames, height=height, width=width)
        rates = Rates(high=1e-4, low=1e-4, audio=1e-4, bridge=1e-4)
        settings = Settings(
            parts=PARTS[parts],
            rank=rank,
            alpha=rank,
            steps=steps,
            rates=rates,
            optimizer=optimizer,
            accumulate=accumulate,
        )
        if clips is not None:
            shape, clip_count = training.largest(clips), len(clips.clips)
        report = training_budget.report(model, settings, shape, clip_count, measure)
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
