"""Recordings to a data set for training, and what will really be fed of it."""

from typing import Any

from comfy_api.latest import Input, io, ui

from ..mova_core.checkpoint.whole_file import file_state, listed
from ..mova_core.errors import MovaError
from ..mova_core.inputs.numbers import told, words
from ..mova_core.shapes import VideoShape
from ..mova_core.training.clips import CUTS, SIZES
from . import inputs
from .base import MovaNode
from .host import messages
from .host.training import data_set, views
from .training_inputs import CLIPS


def _list(value: Any) -> list[Any]:
    """What arrives as a whole list, not one value at a time."""
    return list(value) if isinstance(value, list | tuple) else [value]


class VideoList(io.Video.Input):
    """VIDEOs."""

    def checked(self, value: Any) -> list[Input.Video]:
        for number, each in enumerate(_list(value), 1):
            if not isinstance(each, Input.Video):
                raise MovaError(f"{told(each)}, number {number}, is no VIDEO; connect 'Load Video'")
        return _list(value)


class CaptionList(io.String.Input):
    """Captions, one a video."""

    def checked(self, value: Any) -> list[str]:
        return [words(each) for each in _list(value)]


class MovaTrainingClips(MovaNode):
    LISTS = ("videos", "captions")

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
                *inputs.size(
                    height="Pixels, a multiple of 16. 640 x 352 is what MOVA-360p was trained at; 432 x 240 trains three "
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
                    tooltip="Clips decoded back for the contact sheet and the sound, spread over the data set.",
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
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="Six pictures of each of a few clips, spread over the data set.",
                ),
                io.Audio.Output(display_name="sound", tooltip="Of the same clips, one after the other."),
                io.String.Output(
                    display_name="report", tooltip="Sizes and lengths; which clips are short, silent or without sound."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: Any = None, **_: Any) -> Any:
        name = folder[0] if isinstance(folder, list) and folder else folder
        if not isinstance(name, str) or not name.strip():
            return ""
        place = data_set.input_folder(name)
        if not place.is_dir():
            return float("nan")
        return sorted((path.name, *told) for path in listed(place) if (told := file_state(path)))

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
        wishes = data_set.Wishes(
            frames=shape.frames,
            height=height,
            width=width,
            cut=cut,
            sizes=sizes,
            level=loudness if even_loudness else None,
        )
        sources = (
            data_set.from_lists(videos, captions or [], default_caption)
            if videos
            else data_set.from_folder(folder, default_caption)
        )
        coders = data_set.Coders(vae, audio_vae, clip)
        others = [] if videos else data_set.not_trained_on(folder)
        made = data_set.build(sources, caption_prefix, wishes, coders, others)
        messages.show(made.report, cls.hidden.unique_id)
        sheet, sound, film = views.preview(made, coders, preview_clips)
        # Under the node: ComfyUI may run 'Preview Image' and 'Preview Audio' after hours of training.
        shown = film and ui.PreviewVideo([ui.SavedResult(film.name, "", io.FolderType.temp)])
        return io.NodeOutput(made, sheet, sound, made.report, ui=shown)
