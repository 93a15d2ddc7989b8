"""What is made: prompts, seeds, levels and sizes. They stay as they are, so that results can be compared."""

from dataclasses import dataclass

NEGATIVE = "blurry, distorted, subtitles, noise"
DISTILLED = ("light", "standard", "high")  # levels that want distillation LoRAs
LEVELS = (*DISTILLED, "max", "full")
STEPS = {"light": 8, "standard": 8, "high": 8, "max": 20, "full": 50}
SIZE = {"width": 640, "height": 352, "frames": 193}
TINY_SIZE = {"width": 32, "height": 32, "frames": 25}
FPS, CFG = 24.0, 5.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One prompt and its seed; with a first frame, or from the text alone."""

    name: str
    seed: int
    pictured: bool
    prompt: str


OPENING = "This video has no subtitles. "
SCENES = (
    Scene(
        name="speech-en",
        seed=11,
        pictured=True,
        prompt=OPENING + 'The person looks into the camera and says: "The boat leaves at seven, so do not be late."\n\n'
        "The audio shows a clear, friendly voice in a quiet room.",
    ),
    Scene(
        name="speech-fr",
        seed=12,
        pictured=True,
        prompt=OPENING
        + 'The person looks into the camera and says: "Le bateau part \u00e0 sept heures, ne soyez pas en '
        'retard."\n\nThe audio shows a clear, friendly voice in a quiet room.',
    ),
    Scene(
        name="speech-zh",
        seed=13,
        pictured=True,
        prompt=OPENING + 'The person looks into the camera and says: "\u8239\u4e03\u70b9\u5f00\uff0c\u522b\u8fdf\u5230'
        '\u4e86\u3002"\n\nThe audio shows a clear, friendly voice in a quiet room.',
    ),
    Scene(
        name="speech-text",
        seed=14,
        pictured=False,
        prompt=OPENING + 'A woman in a green coat stands on a pier and says: "I can see the lighthouse from here."\n\n'
        "The audio shows her calm voice, and gulls far away.",
    ),
    Scene(
        name="impacts",
        seed=21,
        pictured=False,
        prompt=OPENING
        + "A hammer strikes an anvil three times, and sparks fly.\n\nThe audio shows three hard, ringing blows.",
    ),
    Scene(
        name="ambience",
        seed=31,
        pictured=False,
        prompt=OPENING + "Rain falls on a pond among reeds.\n\nThe audio shows steady rain and a frog now and then.",
    ),
    Scene(
        name="music",
        seed=41,
        pictured=False,
        prompt=OPENING
        + "Hands play a slow melody on an upright piano.\n\nThe audio shows a solo piano in a small hall.",
    ),
)
