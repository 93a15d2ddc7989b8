"""Prompts and pictures -> conditioning and an empty joint latent."""

import logging
import re
from typing import Any

from comfy_api.latest import io

from ..mova_core.checkpoint.variants import PLAIN_MOVA
from ..mova_core.errors import MovaError, ShapeError
from ..mova_core.inputs.numbers import told
from ..mova_core.shapes import VideoShape
from ..mova_core.text import CONTEXT_ROWS, NEGATIVE_PROMPT, is_blank
from . import clips, inputs
from .base import MovaNode
from .host import joint_latents, messages
from .host.loaders import text
from .host.model.base_model import model_variant

log = logging.getLogger("mova")
FIT_TOOLTIP = (
    "The MODEL that will sample: pictures are brought to size by its own filter, bicubic for MOVA, Lanczos for \
Prism; cropped in the middle, never stretched. Without it as for MOVA."
)
SEPARATORS = "[,;\uff0c\u3001\uff1b]"  # as Chinese keyboards write them too


class MovaTextEncode(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVATextEncode",
            display_name="MOVA Text Encode",
            category="MOVA/conditioning",
            description="Both prompts as MOVA was trained to read them: cleaned, at most 512 tokens, padding attended to, "
            "no (word:1.2) weights.",
            search_aliases=["MOVA prompt", "umt5"],
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="UMT5-XXL: from 'MOVA Loader', or 'Load CLIP' with a umt5_xxl file, type wan."
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What is seen and heard, in prose. Spoken lines in double quotes, in their own language; end "
                    "with a paragraph 'The audio shows ...'. Beyond 512 tokens it is cut, with a warning.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default=NEGATIVE_PROMPT,
                    tooltip="What to steer away from; used when cfg is above 1. The default is the official one.",
                ),
                io.String.Input(
                    "audio_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    optional=True,
                    tooltip="A prompt that only the sound reads, in place of the one above; empty is one prompt for both. The "
                    "picture knows it through the bridge alone. MOVA was not trained with two prompts; for its relative "
                    "Prism a second one was optional. The negative prompt serves both.",
                ),
            ],
            outputs=[
                *inputs.prompt_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def run(cls, clip: Any, prompt: str, negative_prompt: str, audio_prompt: str = "") -> io.NodeOutput:
        if is_blank(prompt):
            raise MovaError("the prompt is empty; say what is seen and heard")
        prompts = {"prompt": prompt, "negative prompt": negative_prompt}
        if not is_blank(audio_prompt):
            prompts["audio prompt"] = audio_prompt
        encoded, notes = [], []
        for name, words in prompts.items():
            ids, cut = text.prompt_ids(clip, words)
            if cut:
                notes.append(f"The {name} is {cut} tokens too long for {CONTEXT_ROWS}; its end was cut.")
                log.warning(notes[-1])
            encoded.append(text.encode(clip, ids))
        if notes:
            messages.show("\n".join(notes), cls.hidden.unique_id)
        positive, negative, *sound = encoded
        return io.NodeOutput(text.with_audio_prompt(positive, sound[0]) if sound else positive, negative)


class MovaImageToVideoAudio(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAImageToVideoAudio",
            display_name="MOVA Image to Video+Audio",
            category="MOVA/conditioning",
            description="Put the first frame into the conditioning and make the empty joint latent of picture and sound.",
            search_aliases=["MOVA latent", "empty MOVA latent", "first frame", "I2V", "T2V"],
            inputs=[
                *inputs.prompts("From 'MOVA Text Encode'."),
                io.Vae.Input("vae", tooltip="The video VAE: of 'MOVA Loader', or wan_2.1_vae."),
                *inputs.size(
                    height="Pixels, a multiple of 16. Trained sizes: 640 x 352 and 352 x 640 (MOVA-360p), 1280 x 720 and "
                    "720 x 1280 (MOVA-720p).",
                ),
                inputs.frames(
                    "Pictures, 4n + 1. 193 at 24 a second are the 8 seconds the model was trained on; time grows "
                    "with the square."
                ),
                inputs.fps(
                    "Pictures a second. Sets the sound's length and its alignment with the picture; trained at 24."
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="Clips made at once, from different noise."
                ),
                io.Image.Input(
                    "first_frame",
                    optional=True,
                    tooltip="The clip's first picture, cropped to the size in the middle and resized. Without it the white "
                    "frame that stands for 'no picture' in training; some seeds then collapse to flat colour, a generated "
                    "first frame is the surer way.",
                ),
                io.Image.Input(
                    "last_frame",
                    optional=True,
                    tooltip="The clip's last picture, fitted like the first. Not trained: an experiment.",
                ),
                inputs.OtherCodec(),
                io.Model.Input("model", optional=True, tooltip=FIT_TOOLTIP),
                io.Boolean.Input(
                    "own_length",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="As many frames as *model* is run with, whatever stands at frames: 193 for MOVA, 205 for Prism.",
                ),
            ],
            outputs=[
                *inputs.prompt_outputs(),
                io.Latent.Output(display_name="latent", tooltip="Joint latent of picture and sound, empty."),
            ],
        )

    @classmethod
    def run(
        cls,
        positive: Any,
        negative: Any,
        vae: Any,
        width: int,
        height: int,
        frames: int,
        fps: float,
        batch_size: int,
        first_frame: Any = None,
        last_frame: Any = None,
        audio_vae: Any = None,
        model: Any = None,
        own_length: bool = False,
    ) -> io.NodeOutput:
        if own_length and model is None:
            raise MovaError("own_length is the model's own: connect the loader's MODEL to 'model', or turn it off")
        variant = PLAIN_MOVA if model is None else model_variant(model)
        frames = variant.frames if own_length else frames
        shape = VideoShape(batch=batch_size, frames=frames, height=height, width=width)
        guides = {0: clips.white(height, width) if first_frame is None else first_frame}
        if last_frame is not None:
            guides[frames - 1] = last_frame
        latent = clips.empty_latent(vae, shape, fps, audio_vae)
        return io.NodeOutput(*clips.guided((positive, negative), vae, guides, shape, latent, variant.fit), latent)


class MovaGuideFrames(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAGuideFrames",
            display_name="MOVA Guide Frames",
            category="MOVA/conditioning",
            description="Pictures at chosen frames of the clip, in place of the first frame alone. The model was trained "
            "with a first frame only: more of them is an experiment.",
            search_aliases=["keyframes", "first last frame", "guide"],
            is_experimental=True,
            inputs=[
                *inputs.prompts("From 'MOVA Image to Video+Audio'."),
                io.Vae.Input("vae", tooltip="The video VAE."),
                io.Latent.Input("latent", tooltip="The joint latent whose size and length the pictures are fitted to."),
                io.Image.Input("images", tooltip="The pictures, in the order of their positions."),
                io.String.Input(
                    "positions",
                    default="0",
                    tooltip="Frames the pictures stand at, counted from 0 and separated by commas; negative ones count from "
                    "the end, so '0, -1' is first and last.",
                ),
                io.Model.Input("model", optional=True, tooltip=FIT_TOOLTIP),
            ],
            outputs=[
                *inputs.prompt_outputs(),
            ],
        )

    @classmethod
    def run(
        cls, positive: Any, negative: Any, vae: Any, latent: Any, images: Any, positions: str, model: Any = None
    ) -> io.NodeOutput:
        fit = (PLAIN_MOVA if model is None else model_variant(model)).fit
        shape = joint_latents.video_shape(latent)
        frames = _positions(positions, len(images), shape.frames)
        guides = {frame: images[index : index + 1] for index, frame in enumerate(frames)}
        return io.NodeOutput(*clips.guided((positive, negative), vae, guides, shape, latent, fit))


def _positions(text: str, pictures: int, frames: int) -> list[int]:
    """Frames named in `text`, one a picture.

    Raises:
        ShapeError: not whole numbers, or not as many as there are pictures.
    """
    try:
        named = [int(part) for part in re.split(SEPARATORS, text.strip(f"{SEPARATORS} \n"))]
    except ValueError:
        raise ShapeError(
            f"positions are {told(text)}; give whole numbers separated by commas, such as 0, 96, -1"
        ) from None
    at = [frame + frames if frame < 0 else frame for frame in named]
    if len(set(at)) != pictures or len(at) != pictures:
        raise ShapeError(f"{len(set(at))} positions for {pictures} pictures; give one position a picture, each once")
    return at
