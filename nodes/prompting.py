"""A node that writes the prompt."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.prompting import (
    Script,
    check_speech,
    check_tags,
    compose,
    compose_for_prism,
    parse_lines,
    parse_speakers,
)
from ..mova_core.shapes import clip_seconds
from ..mova_core.text import CONTEXT_ROWS
from . import inputs
from .base import MovaNode
from .host import messages
from .host.loaders import text


class MovaPromptBuilder(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAPromptBuilder",
            display_name="MOVA Prompt Builder",
            category="MOVA/conditioning",
            description="Write a prompt in the order of the training captions, and check that its speech fits the clip.",
            search_aliases=["dialogue", "script", "prompt"],
            inputs=[
                io.String.Input(
                    "scene",
                    multiline=True,
                    tooltip="What the first picture shows: place, light, people, how they stand.",
                ),
                io.String.Input(
                    "action",
                    multiline=True,
                    default="",
                    tooltip="What happens, in order. Avoid words like 'still' or 'static'.",
                ),
                io.String.Input(
                    "speakers",
                    multiline=True,
                    default="",
                    tooltip="One a line, 'Name: look; voice', such as 'Anna: a woman in a red coat; warm and low'.",
                ),
                io.String.Input(
                    "lines",
                    multiline=True,
                    default="",
                    tooltip="What is said, one line each, 'Name: words', in the order spoken and in its own language.",
                ),
                io.String.Input(
                    "sounds", multiline=True, default="", tooltip="Sounds and ambience: 'rain on a tin roof'."
                ),
                io.String.Input(
                    "music", default="", tooltip="Music, if any. Singing and complex music are weak points."
                ),
                io.String.Input("camera", default="", tooltip="What the camera does: 'The camera moves in slowly'."),
                inputs.frames("Pictures of the clip, for the check of the speech."),
                inputs.fps("Pictures a second, for the same check."),
                io.Clip.Input("clip", optional=True, tooltip="UMT5-XXL, to count tokens; the limit is 512."),
                io.Combo.Input(
                    "captions",
                    options=["MOVA", "Prism"],
                    default="MOVA",
                    optional=True,
                    advanced=True,
                    tooltip="Whose captions the prompt is written like. Prism's begin with the sound and have tags: "
                    "speech, sfx, music, and text for writing in the picture.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="For 'MOVA Text Encode'."),
                io.String.Output(display_name="report", tooltip="Whether speech and tokens fit."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(
        cls,
        scene: str,
        action: str,
        speakers: str,
        lines: str,
        sounds: str,
        music: str,
        camera: str,
        frames: int,
        fps: float,
        clip: Any = None,
        captions: str = "MOVA",
    ) -> io.NodeOutput:
        people = parse_speakers(speakers)
        said = parse_lines(lines, people)
        script = Script(
            scene=scene, action=action, camera=camera, speakers=people, lines=said, sounds=sounds, music=music
        )
        prism = captions == "Prism"
        prompt = compose_for_prism(script) if prism else compose(script)
        notes = [check_speech(said, clip_seconds(frames, fps)), check_tags(prompt) if prism else ""]
        if clip is not None:
            ids, cut = text.prompt_ids(clip, prompt)
            notes.append(f"{len(ids) + cut} of {CONTEXT_ROWS} tokens{'; the end will be cut' if cut else ''}.")
        report = "\n".join(filter(None, notes))
        messages.show(report, cls.hidden.unique_id)
        return io.NodeOutput(prompt, report)
