"""A LoRA from a data set."""

import re
from typing import Any

from comfy_api.latest import io, ui

from ..mova_core.errors import MovaError
from ..mova_core.inputs.numbers import told
from ..mova_core.training.adapters import TARGETS
from ..mova_core.training.optim import Rates
from ..mova_core.training.run import Settings
from . import inputs, training_inputs
from .base import MovaNode
from .host import messages
from .host.media import video
from .host.training import checks, data_set, loop, run_files, views

NAMINGS = ("official", "diffsynth")


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
                training_inputs.CLIPS.Input("clips", tooltip="Of 'MOVA Training Clips'."),
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
                training_inputs.rank(),
                training_inputs.parts(),
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
                training_inputs.optimizer(),
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
                    tooltip="Steps between losses of fixed samples, which can be compared over time and with those before "
                    "training; 0: none.",
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
                    options=list(checks.MEMORY),
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
            raise MovaError(f"name: {told(name)} cannot name a LoRA; use letters, digits, - and _")
        video.check_name(name)
        values = _with_defaults(cls.define_schema(), given)
        settings = _settings(values)
        saving = run_files.Saving(
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
            previews = views.Previews(
                model=model,
                data=clips,
                coders=data_set.Coders(vae, audio_vae, None),
                folder=saving.folder,
                steps=values["preview_steps"],
                cfg=values["preview_cfg"],
                seed=settings.seed,
            )
        watching = loop.Watching(
            evaluate_every=values["evaluate_every"],
            preview_every=values["preview_every"],
            preview=previews,
            node_id=cls.hidden.unique_id,
        )
        lora, loss, report = loop.train(model, clips, settings, saving, watching, values["memory"])
        messages.show(report, cls.hidden.unique_id)
        shown = ui.PreviewText(report).as_dict()
        if previews is not None and previews.made:
            newest = ui.SavedResult(previews.made[-1].name, saving.shown.as_posix(), io.FolderType.output)
            shown |= ui.PreviewVideo([newest]).as_dict()
        return io.NodeOutput(lora, loss, report, ui=shown)


def _with_defaults(schema: io.Schema, given: dict[str, Any]) -> dict[str, Any]:
    """Every widget's value: optional inputs that an old workflow does not have are at their defaults."""
    known = {each.id: each.default for each in schema.inputs if getattr(each, "default", None) is not None}
    return {**known, **given}


def _settings(values: dict[str, Any]) -> Settings:
    rate = values["learning_rate"]
    return Settings(
        parts=training_inputs.PARTS_BY_CHOICE[values["parts"]],
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
