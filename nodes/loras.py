"""Nodes that change a model's weights by LoRA."""

from typing import Any

from comfy_api.latest import io

from . import inputs
from .base import MovaNode
from .host import messages
from .host.loras import lora


def _strength(name: str, of: str) -> Any:
    tooltip = f"Multiplies the strength for {of}. 0 leaves that part as it was."
    return io.Float.Input(name, default=1.0, min=-100.0, max=100.0, step=0.01, advanced=True, tooltip=tooltip)


class MovaLoraLoader(MovaNode):
    TELLS_CONTENT = True  # to a film, by fingerprint_inputs

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVALoraLoader",
            display_name="MOVA LoRA Loader",
            category="MOVA/loaders",
            description="Apply a LoRA trained on MOVA, or on Wan 2.2 A14B, to one expert or both, with a strength for each "
            "part, and say what was applied. Reads LoRA, DoRA, LoHa and LoKr of the official trainers (.pt too), PEFT, "
            "DiffSynth-Studio, VideoX-Fun, kohya, LyCORIS and ComfyUI. Chain several to stack them.",
            search_aliases=["MOVA LoRA", "load lora", "lora loader", "high noise lora", "low noise lora"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA: both experts, or one of 'MOVA Split Experts'."),
                inputs.FileChoice(
                    "lora_name", options=lora.files(), tooltip="A .safetensors or .pt file in models/loras."
                ),
                io.Combo.Input(
                    "expert",
                    options=["auto", "high", "low", "both"],
                    default="auto",
                    tooltip="Which video expert it changes. 'auto': the one that its keys name (video_dit, video_dit_2), "
                    "else the one that the file name says (high_noise, LOW, ...), else both. The sound and the bridge are "
                    "changed for both, unless 'high' or 'low' is chosen here: then all of it works in that expert's "
                    "steps alone.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How much of it is added: 1 as trained, 0 nothing, negative the opposite.",
                ),
                _strength("strength_video", "the picture's own layers"),
                _strength("strength_audio", "the sound's own layers"),
                _strength("strength_audio_to_video", "what the picture hears of the sound (lip movement)"),
                _strength("strength_video_to_audio", "what the sound sees of the picture (timing)"),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                io.String.Output(
                    display_name="report", tooltip="What was applied to which part, and every key that was not."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: Any = None, **_: Any) -> Any:
        """What the file holds now: training writes it anew under its name."""
        return lora.contents({"high": lora_name})

    @classmethod
    def run(
        cls,
        model: Any,
        lora_name: str,
        expert: str,
        strength: float,
        strength_video: float,
        strength_audio: float,
        strength_audio_to_video: float,
        strength_video_to_audio: float,
    ) -> io.NodeOutput:
        patched, report = lora.apply(
            model,
            lora_name,
            expert,
            {
                "video": strength * strength_video,
                "audio": strength * strength_audio,
                "audio_to_video": strength * strength_audio_to_video,
                "video_to_audio": strength * strength_video_to_audio,
            },
        )
        messages.show(report.short, cls.hidden.unique_id)
        return io.NodeOutput(patched, report.whole)


class MovaDistillation(MovaNode):
    TELLS_CONTENT = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [lora.AUTOMATIC, *lora.files()]
        return io.Schema(
            node_id="MOVADistillation",
            display_name="MOVA Distillation LoRAs",
            category="MOVA/loaders",
            description="The distillation LoRAs of Wan 2.2 on both experts, for the model of 'MOVA Fast Sampler', found by "
            "themselves in models/loras. A fast sampler that has a teacher asks for them only where its quality needs them: "
            "max and full run without the files.",
            search_aliases=["lightx2v", "turbo", "distilled", "4 steps", "speed", "quality"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA or Prism as its loader gives it."),
                inputs.FileChoice(
                    "high_noise",
                    options=files,
                    default=lora.AUTOMATIC,
                    tooltip="LoRA of the expert of the first steps. 'auto': the pair of lightx2v or Lightning for image to "
                    "video that lies in models/loras, that of 260412 before others.",
                ),
                inputs.FileChoice(
                    "low_noise", options=files, default=lora.AUTOMATIC, tooltip="LoRA of the expert of the last steps."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    advanced=True,
                    tooltip="How much of both is added; 1 as trained.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, high_noise: Any = None, low_noise: Any = None, **_: Any) -> Any:
        """What the files hold now, those of the pair that 'auto' would take."""
        return lora.contents({"high": high_noise, "low": low_noise})

    @classmethod
    def run(cls, model: Any, high_noise: str, low_noise: str, strength: float) -> io.NodeOutput:
        patched, said = lora.distilled(model, {"high": high_noise, "low": low_noise}, strength)
        messages.show(said, cls.hidden.unique_id)
        return io.NodeOutput(patched)
