"""Inputs that the training nodes have in common."""

from comfy_api.latest import io

from ..mova_core.training.adapters import LARGEST_RANK
from ..mova_core.training.run import OPTIMIZERS

CLIPS = io.Custom("MOVA_CLIPS")
PARTS_BY_CHOICE = {
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


def rank() -> io.Int.Input:
    """`rank` of the LoRA."""
    return io.Int.Input(
        "rank",
        default=16,
        min=1,
        max=LARGEST_RANK,
        tooltip="How much a layer can learn. 16 is the usual one; 32 for many clips, 4 to 8 for one simple thing. Memory and "
        "the file grow with it.",
    )


def parts() -> io.Combo.Input:
    """`parts` that learn, a key of PARTS_BY_CHOICE."""
    return io.Combo.Input(
        "parts",
        options=list(PARTS_BY_CHOICE),
        default="both experts, sound and bridge",
        tooltip="What learns. High noise is layout and motion, low noise faces and detail; sound is the voice; the bridge is "
        "how both hear each other. What is not chosen is not in the file.",
    )


def optimizer() -> io.Combo.Input:
    """`optimizer`, optional."""
    return io.Combo.Input(
        "optimizer",
        options=list(OPTIMIZERS),
        default="adamw",
        optional=True,
        advanced=True,
        tooltip="adamw8bit keeps its moments in a quarter of the memory: at rank 32 it saves 1.4 GiB of VRAM.",
    )
