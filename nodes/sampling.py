"""Nodes that denoise."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.collapse import ACTIONS
from . import inputs
from .base import MovaNode
from .host.experts import pair
from .host.sampling import mova_sampler, samplers
from .host.sampling.long_runs import Node
from .host.sampling.mova_sampler import SamplerSettings


class MovaSampler(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASampler",
            display_name="MOVA Sampler",
            category="MOVA/sampling",
            description="Denoise picture and sound together with ComfyUI's samplers. The video experts change at the "
            "boundary by themselves.",
            search_aliases=["MOVA KSampler", "joint sampler"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA, with any LoRAs and patches."),
                *inputs.prompts(
                    "From 'MOVA Image to Video+Audio'.", "From 'MOVA Image to Video+Audio'; unused at cfg 1."
                ),
                io.Latent.Input("latent", tooltip="Joint latent of picture and sound."),
                inputs.seed("Noise of both streams, video drawn first, then audio. The same seed gives the same clip."),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Steps; 50 is official, 25 is the usual quicker choice.",
                ),
                inputs.scale(
                    "cfg",
                    5.0,
                    "Guidance towards the prompt, for picture and sound. 1 skips the negative prompt and halves the "
                    "time; high values make the sound loud.",
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Shift of the video's noise schedule: more spends more steps on layout and motion. 0 is the "
                    "model's own: 5 for MOVA; 9 for Prism, 7 at 720p, 13 at 1440p.",
                ),
                io.Float.Input(
                    "audio_shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Shift of the sound's own schedule, walked in the same steps. 0 is the model's own: 5 for MOVA, "
                    "7 for Prism.",
                ),
                io.Combo.Input("sampler", options=samplers.SAMPLERS, default="euler", tooltip="euler is official."),
                io.Combo.Input(
                    "scheduler",
                    options=samplers.SCHEDULERS,
                    default=samplers.EXACT,
                    tooltip="'mova' is the official schedule exactly, for any number of steps. 'simple' is the nearest of "
                    "ComfyUI's own.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 the latent is kept in part: only the last share of a longer schedule is run. At shift 5, "
                    "0.5 begins at noise 0.83 of 1, 0.3 at 0.68.",
                ),
                inputs.scale(
                    "bridge_cfg",
                    1.0,
                    "Guidance towards picture and sound that hear each other: lips, impacts. 1 is none; 3.5 gave the "
                    "published lip sync, for half as much time again and less clear words. 'MOVA Guider' has more of it.",
                    optional=True,
                ),
                inputs.scale(
                    "audio_cfg",
                    0.0,
                    "Guidance of the sound towards the prompt, where it is to differ from the picture's. 0 is the "
                    "same as cfg.",
                    optional=True,
                    advanced=True,
                ),
                io.Float.Input(
                    "audio_denoise",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Denoise of the sound, where it is to differ from the picture's: denoise 0.5 with 1 here keeps the "
                    "picture's layout and makes its sound anew, in as many steps. 0 is the same as denoise. Needs euler.",
                ),
                io.Combo.Input(
                    "collapse_guard",
                    options=list(ACTIONS),
                    default="off",
                    optional=True,
                    advanced=True,
                    tooltip="What to do when the picture is turning into flat colour, as many seeds do without a first frame: "
                    "warn in the log, stop, or start again with the next seed (up to 8). A clip that begins with a picture "
                    "is held against that picture. Its thresholds were not measured on real weights: see the help page.",
                ),
                inputs.AudioVae("The audio VAE of 'MOVA Loader', to listen while the clip is made.", optional=True),
                io.Int.Input(
                    "listen_every",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Steps between two previews of the sound: a link under the node plays the clip's sound as it is "
                    "by then, for a browser on the machine that runs ComfyUI; the file is in its temp folder. 0 is none. "
                    "Needs audio_vae, which then shares the memory with the model.",
                ),
                io.Int.Input(
                    "audio_substeps",
                    default=1,
                    min=1,
                    max=100,
                    optional=True,
                    advanced=True,
                    tooltip="Steps of the sound in each step of the picture, for few-step video LoRAs: 8 steps with 4 here give "
                    "the sound 32, at hardly any cost. In the added ones the sound asks the picture of the step anew. "
                    "An untrained shortcut. Needs euler.",
                ),
                *inputs.keeping(),
                inputs.keep_minutes(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent, for 'MOVA Decode' or stock nodes."),
                io.Int.Output(
                    display_name="seed", tooltip="The seed it was made with, where the guard went on to another."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def run(
        cls, model: Any, positive: Any, negative: Any, latent: Any, audio_vae: Any = None, **widgets: Any
    ) -> io.NodeOutput:
        settings = SamplerSettings(**widgets)
        made = mova_sampler.run(
            model,
            positive,
            negative,
            latent,
            settings,
            audio_vae=audio_vae,
            node=Node(cls.hidden.unique_id, cls.hidden.dynprompt),
        )
        return io.NodeOutput(*made)


class MovaSplitExperts(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASplitExperts",
            display_name="MOVA Split Experts",
            category="MOVA/loaders",
            description="The two video experts as two MODELs, for the classic Wan 2.2 graph or a LoRA on one of them.",
            search_aliases=["high noise", "low noise", "two samplers"],
            inputs=[io.Model.Input("model", tooltip="MODEL of 'MOVA Loader'.")],
            outputs=[
                io.Model.Output(display_name="high_noise", tooltip="First steps: layout and motion (video_dit)."),
                io.Model.Output(display_name="low_noise", tooltip="Last steps: detail (video_dit_2)."),
            ],
        )

    @classmethod
    def run(cls, model: Any) -> io.NodeOutput:
        return io.NodeOutput(*pair.split(model))


class MovaJoinExperts(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVAJoinExperts",
            display_name="MOVA Join Experts",
            category="MOVA/loaders",
            description="Two experts behind one MODEL that changes by itself.",
            search_aliases=["high noise", "low noise"],
            inputs=[
                io.Model.Input("high_noise", tooltip="Expert of the first steps."),
                io.Model.Input("low_noise", tooltip="Expert of the last steps."),
                io.Float.Input(
                    "boundary",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Video noise level (sigma, 1 to 0) below which the low-noise expert works. Trained at 0.9.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def run(cls, high_noise: Any, low_noise: Any, boundary: float) -> io.NodeOutput:
        return io.NodeOutput(pair.join(high_noise, low_noise, boundary))
