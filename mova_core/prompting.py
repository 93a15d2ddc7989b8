"""A prompt in the order the training captions had, and whether its speech fits the clip.

The captions begin "This video has no subtitles.", tell what is seen in the order it happens, quote speech word for
word in double quotes, and end with a paragraph of their own on the sound.
Source: OpenMOSS/MOVA 595a976, the prompt rewriter of its workflow.
"""

import re
import unicodedata
from dataclasses import dataclass

from . import speech
from .errors import MovaError
from .inputs.numbers import told
from .text import is_blank

OPENING = "This video has no subtitles."
SOUND_OPENING = "The audio shows"
PRISM_TAGS = ("speech", "sfx", "music", "text")
COLONS = ":\uff1a\ufe55\ufe13\u2236\ua789"  # also full-width, small, upright, and lookalikes
SEMICOLONS = ";\uff1b\ufe54\ufe14\u061b\u037e"  # also Arabic
INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
QUOTES_CLOSE = {
    '"': '"\u201d',
    "'": "'\u2019",
    "\uff02": "\uff02",
    "\u201c": "\u201d",  # English, Chinese
    "\u201d": "\u201d",  # Swedish
    "\u201e": "\u201c\u201d",  # German, Polish
    "\u2018": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u00ab": "\u00bb",  # French, Russian
    "\u00bb": "\u00ab",  # German, Danish
    "\u2039": "\u203a",
    "\u203a": "\u2039",
    "\u300c": "\u300d",  # corner brackets: Japanese, Chinese
    "\u300e": "\u300f",
    "\uff62": "\uff63",
    "\ufe41": "\ufe42",
    "\ufe43": "\ufe44",
    "\u301d": "\u301e\u301f",
}
"""Quotation marks that open a quote, and those that close it."""

SINGLES = "'\u2018\u2019\u201a\u2039\u203a"
DOUBLES = "".join(sorted(set("".join(QUOTES_CLOSE) + "".join(QUOTES_CLOSE.values())) - set(SINGLES)))
QUOTES_OPEN = {
    mark: [first for first, last in QUOTES_CLOSE.items() if mark in last] for mark in "".join(QUOTES_CLOSE.values())
}
OPENING_ONLY = "".join(mark for mark in QUOTES_CLOSE if mark not in SINGLES)
CLOSING_ONLY = "".join(mark for mark in QUOTES_OPEN if mark not in SINGLES)
APHAERESIS = r"'(tis|twas|twere|twill|til|em|cause|bout|round|n|cos|nuff|fraid|[0-9]0s)\b"  # words that begin with one
STOPS, SENTENCE_ENDS = ".,;\u3002\uff0c\uff1b\uff0e", ".,;!?\u2026\u3002\uff0c\uff1b\uff0e\uff01\uff1f"


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
    for row in _rows(text):
        name, rest = _named(row)
        if not (name and rest):
            raise MovaError(
                f"speaker {told(row)} is not 'Name: look; voice', such as 'Anna: a woman in a red coat; warm'"
            )
        look, voice = _halves(rest, SEMICOLONS)
        if _alike(name) in (_alike(speaker.name) for speaker in speakers):
            raise MovaError(f"there are two speakers called {told(name)}; give each a name of their own")
        speakers.append(Speaker(name=name, look=look, voice=voice))
    return tuple(speakers)


def parse_lines(text: str, speakers: tuple[Speaker, ...]) -> tuple[Line, ...]:
    """One line of speech a row: `Name: words`, in the order they are spoken.

    Raises:
        MovaError: a row without a name, or a name that is not among the speakers.
    """
    names = {_alike(speaker.name): speaker.name for speaker in speakers}
    lines = []
    for row in _rows(text):
        name, words = _named(row)
        words = quotable(words)
        if is_blank(words):
            raise MovaError(f"line {told(row)} is not 'Name: words', such as 'Anna: Good morning!'")
        if _alike(name) not in names:
            raise MovaError(
                f"{told(name)} speaks but is not among the speakers ({', '.join(names.values()) or 'none'}); add them "
                "there"
            )
        lines.append(Line(speaker=names[_alike(name)], words=words))
    return tuple(lines)


def _rows(text: str) -> list[str]:
    """Rows that say something, without byte order marks and the like at their ends."""
    rows = (row.strip(f"{INVISIBLE} \t") for row in text.splitlines())
    return [row for row in rows if not is_blank(row)]


def _halves(row: str, marks: str) -> tuple[str, str]:
    """What stands before and after the first of `marks`; nothing after, where there is none."""
    before, _, after = re.sub(f"[{marks}]", marks[0], row, count=1).partition(marks[0])
    return before.strip(), after.strip()


def _named(row: str) -> tuple[str, str]:
    """Name and the rest of `Name: rest`."""
    name, rest = _halves(row, COLONS)
    return unquoted(name), rest


def _alike(name: str) -> str:
    """A name as it looks: accents composed, full-width letters plain, nothing that is not seen."""
    seen = (one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) != "Cf")
    return " ".join("".join(seen).split())


def quotable(words: str) -> str:
    """Words to be put between double quotes: without quotes of their own around them, and with single ones within."""
    return _single(unquoted(words)).strip()


def unquoted(text: str) -> str:
    """Text without the quotation marks that enclose all of it, however many pairs; a full stop behind them stays."""
    text = text.strip()
    stop = text[-1:] if text[-1:] in STOPS and _enclosed(text[:-1]) else ""
    text = text.removesuffix(stop) if stop else text
    while _enclosed(text):
        text = text[1:-1].strip()
    if text and text[0] in OPENING_ONLY and not any(mark in text[1:] for mark in QUOTES_CLOSE[text[0]]):
        text = text[1:]  # never closed
    if text and text[-1] in CLOSING_ONLY and not any(mark in text[:-1] for mark in QUOTES_OPEN[text[-1]]):
        text = text[:-1]  # never opened
    return text + (stop if text and text[-1] not in SENTENCE_ENDS else "")


def _enclosed(text: str) -> bool:
    """Whether the first and the last character are one pair of quotation marks: not those of two quotes in a row."""
    if len(text) < 2 or text[-1] not in QUOTES_CLOSE.get(text[0], ""):
        return False
    first, last, inner = text[0], text[-1], text[1:-1]
    if first == "'" and re.match(APHAERESIS, text, re.IGNORECASE):
        return False
    if first != last:
        depth = 1
        for mark in inner:
            depth += (mark == first) - (mark == last)
            if not depth:
                return False
        return True
    within = re.search(rf"(?<!\w){first}|{first}(?!\w)", inner)  # an apostrophe stands between letters
    return within is None or within.start() == 0 or not inner[within.start() - 1].strip()


def _single(words: str) -> str:
    """Quotes within a quote as single ones; a lone double mark behind a digit means inches."""
    if words.count('"') % 2:
        words = re.sub(r'(?<=\d)"', "\u2033", words, count=1)
    return re.sub(f"[{DOUBLES}]", "'", words)


def compose(script: Script) -> str:
    """The prompt of a script: what is seen and said, then a paragraph on the sound.

    Raises:
        MovaError: there is nothing to see.
    """
    if is_blank(script.scene):
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


def compose_for_prism(script: Script) -> str:
    """The same in the order of Prism's captions: what is heard, what is seen, what happens; one paragraph, with tags.

    Raises:
        MovaError: there is nothing to see.
    Source: the caption fields and tags of Tencent-Hunyuan/Prism d8a969b.
    """
    if is_blank(script.scene):
        raise MovaError("the scene is empty; say what the first picture shows")
    music = "No background music" if is_blank(script.music) else _tagged("music", script.music)
    sounds = "" if is_blank(script.sounds) else _tagged("sfx", script.sounds)
    voices = [f"{speaker.name} speaks in {_voice(speaker.voice)}" for speaker in script.speakers if speaker.voice]
    looks = [f"{speaker.name} is {speaker.look}" for speaker in script.speakers]
    said = [f"{line.speaker} says: {_tagged('speech', line.words)}" for line in script.lines]
    parts = [music, sounds, *voices, script.scene, *looks, script.action, *said, script.camera]
    return " ".join(map(_sentence, filter(str.strip, parts)))


def _tagged(tag: str, text: str) -> str:
    """`text` between its tags, which it may have already."""
    inner = re.sub(rf"</?{tag}>", "", text).strip().rstrip("." if tag != "speech" else "")
    return f"<{tag}>{inner}</{tag}>"


def check_tags(prompt: str) -> str:
    """A sentence on Prism's tags where one is not closed, not opened or not known; empty where all are right."""
    wrong, opened = [], ""
    for close, tag in re.findall(r"<(/?)\s*([a-zA-Z_]+)\s*>", prompt):
        if tag not in PRISM_TAGS:
            wrong.append(f"<{close}{tag}> is none of {', '.join(f'<{known}>' for known in PRISM_TAGS)}")
        elif bool(close) != bool(opened) or (close and tag != opened):
            wrong.append(f"<{close}{tag}> {'closes what is not open' if close else f'begins within <{opened}>'}")
        else:
            opened = "" if close else tag
    if opened:
        wrong.append(f"<{opened}> is not closed")
    return f"Tags: {'; '.join(wrong)}." if wrong else ""


def speech_seconds(lines: tuple[Line, ...]) -> float:
    """How long the lines take when read without haste, one after the other."""
    return speech.seconds([(line.speaker, line.words) for line in lines])


def quoted(prompt: str) -> list[str]:
    """What a prompt has between double quotation marks of any kind, in order."""
    pairs = {first: last for first, last in QUOTES_CLOSE.items() if first not in SINGLES}
    found, rest = [], prompt
    while start := re.search(f"[{re.escape(''.join(pairs))}]", rest):
        words, mark, rest = _until(rest[start.end() :], pairs[start[0]])
        if mark:
            found.append(words)
    return found


def _until(text: str, marks: str) -> tuple[str, str, str]:
    end = re.search(f"[{re.escape(marks)}]", text)
    return (text[: end.start()], end[0], text[end.end() :]) if end else (text, "", text)


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
    return text if text.endswith((".", "!", "?", '"', "</speech>", "\u3002", "\uff01", "\uff1f")) else text + "."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
