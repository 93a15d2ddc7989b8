"""A prompt in the order the training captions had, and whether its speech fits the clip.

The captions begin "This video has no subtitles.", tell what is seen in the order it happens, quote speech word for
word in double quotes, and end with a paragraph of their own on the sound.
Source: OpenMOSS/MOVA 595a976, the prompt rewriter of its workflow.
"""

import re
from dataclasses import dataclass

from .errors import MovaError

OPENING = "This video has no subtitles."
SOUND_OPENING = "The audio shows"
WORDS_A_SECOND = 3.0  # lively English speech; 2.5 is calm
CHARACTERS_A_SECOND = 5.0  # lively Chinese, Japanese or Korean speech
IDEOGRAPHS = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Someone who speaks: the name used in the lines, how they look, how they sound."""

    name: str
    look: str
    voice: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """Words spoken by someone, verbatim."""

    speaker: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """What is seen and heard in one clip."""

    scene: str
    action: str
    camera: str
    speakers: tuple[Speaker, ...]
    lines: tuple[Line, ...]
    sounds: str
    music: str


def parse_speakers(text: str) -> tuple[Speaker, ...]:
    """One speaker a line: `Name: look; voice`. The voice may be left out.

    Raises:
        MovaError: a line without a name, or a name twice.
    """
    speakers: list[Speaker] = []
    for row in filter(None, map(str.strip, text.splitlines())):
        name, colon, rest = (part.strip() for part in row.partition(":"))
        if not (name and colon and rest):
            raise MovaError(f"speaker {row!r} is not 'Name: look; voice', such as 'Anna: a woman in a red coat; warm'")
        look, _, voice = (part.strip() for part in rest.partition(";"))
        if name in (speaker.name for speaker in speakers):
            raise MovaError(f"there are two speakers called {name!r}; give each a name of their own")
        speakers.append(Speaker(name=name, look=look, voice=voice))
    return tuple(speakers)


def parse_lines(text: str, speakers: tuple[Speaker, ...]) -> tuple[Line, ...]:
    """One line of speech a row: `Name: words`, in the order they are spoken.

    Raises:
        MovaError: a row without a name, or a name that is not among the speakers.
    """
    names = [speaker.name for speaker in speakers]
    lines = []
    for row in filter(None, map(str.strip, text.splitlines())):
        name, colon, words = (part.strip() for part in row.partition(":"))
        words = words.strip("\"'“”").strip()
        if not (colon and words):
            raise MovaError(f"line {row!r} is not 'Name: words', such as 'Anna: Good morning!'")
        if name not in names:
            raise MovaError(
                f"{name!r} speaks but is not among the speakers ({', '.join(names) or 'none'}); add them there"
            )
        lines.append(Line(speaker=name, words=words))
    return tuple(lines)


def compose(script: Script) -> str:
    """The prompt of a script: what is seen and said, then a paragraph on the sound.

    Raises:
        MovaError: there is nothing to see.
    """
    if not script.scene.strip():
        raise MovaError("the scene is empty; say what the first picture shows")
    looks = [f"{speaker.name} is {speaker.look}" for speaker in script.speakers]
    said = [f'{line.speaker} says: "{line.words}"' for line in script.lines]
    seen = [OPENING, script.scene, *looks, script.action, *said, script.camera]
    heard = [f"{speaker.name} speaking in {_voice(speaker.voice)}" for speaker in script.speakers if speaker.voice]
    heard += [part.strip().rstrip(".") for part in (script.sounds, script.music) if part.strip()]
    paragraphs = [" ".join(map(_sentence, filter(str.strip, seen)))]
    if heard:
        paragraphs.append(_sentence(f"{SOUND_OPENING} {_listed(heard)}"))
    return "\n\n".join(paragraphs)


def speech_seconds(lines: tuple[Line, ...]) -> float:
    """How long the lines take when spoken briskly, without pauses."""
    words = " ".join(line.words for line in lines)
    characters = len(re.findall(IDEOGRAPHS, words))
    spaced = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", re.sub(IDEOGRAPHS, " ", words))
    return len(spaced) / WORDS_A_SECOND + characters / CHARACTERS_A_SECOND


def check_speech(lines: tuple[Line, ...], seconds: float) -> str:
    """A sentence on whether the speech fits a clip of so many seconds; empty without speech."""
    if not lines:
        return ""
    needed = speech_seconds(lines)
    verdict = "fits" if needed <= seconds else "is too long: shorten it or lengthen the clip"
    return f"The speech takes about {needed:.1f} s of {seconds:.1f} s and {verdict}."


def _voice(told: str) -> str:
    """ "warm" as "a warm voice"; "a warm voice" and "the voice of a child" as they are."""
    whole = re.search(r"\bvoice\b", told) is not None
    named = re.match(r"(?:an?|the|his|her|their|its) ", told, re.IGNORECASE)
    article = "" if named else "an " if told[0].lower() in "aeiou" else "a "
    return f"{article}{told}" if whole else f"{article}{told} voice"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", '"', "。", "！", "？")) else text + "."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
