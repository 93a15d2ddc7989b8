"""Shots from one text. A block a shot; what stands above the first holds for all of them.

    Anna: a woman in a red coat; warm and low      who speaks: Name: look; voice
    scene: / camera: / sound: / music:             for all shots; the same row in a shot replaces it
    hears:                                         a prompt that the sound alone reads
    [name] options                                 begins a shot
    Anna: words                                    speech
    anything else                                  what happens
    # a remark

Options, with commas between them: a length `6 s`, `144 frames`, `speech`, `0:12-0:20` (a stretch of the recording),
`recording` (a share of it, cut at pauses); a beginning `cut`, `goes on`, `after NAME`, `picture 2`; `seed 7`,
`overlap 25`, `take 3fa2`, `lock`, `off`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..errors import MovaError
from ..inputs.numbers import told
from ..inputs.sounds import Sound
from ..prompting import COLONS, INVISIBLE, SEMICOLONS, Line, Script, Speaker, compose, quotable, speech_seconds
from ..text import is_blank
from .shots import AFTER, CUT, GOES_ON, PICTURE, Recording, Shot, check_shot_name

SCRIPT_ROWS = ("scene", "camera", "sound", "music", "hears")
BREATH = 1.0  # seconds that a shot as long as its speech has beside it
COMMAS = ",\uff0c\u3001"
BRACKETS_OPEN, BRACKETS_CLOSE = "[\u3010\uff3b", "]\u3011\uff3d"
COLON = f"[{re.escape(COLONS)}]"
LENGTHS = "a length (6 s, 144 frames, speech, 0:12-0:20, recording)"
OPTIONS = f"{LENGTHS}, a beginning (cut, goes on, after NAME, picture 2), seed 7, overlap 25, take 3fa2, lock or off"
MOST_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is connected beside the text: (N, H, W, 3) pictures in 0..1, and a recording."""

    pictures: Sequence[Tensor] = ()
    recording: Sound | None = None


@dataclass(kw_only=True)
class TextBlock:
    """A shot while it is read."""

    name: str
    line: int
    options: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    action: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"line {self.line}: shot {self.name!r}"


def parse_shots(text: str, given: Given | None = None) -> list[Shot]:
    """The shots of a text.

    Raises:
        MovaError: what cannot be read; the message names the line and, in a shot, the shot.
    """
    reader = _Reader(given or Given())
    for number, raw in enumerate(text.splitlines(), 1):
        row = raw.strip(f"{INVISIBLE} \t")
        if not is_blank(row) and not row.startswith("#"):
            reader.read(number, row)
    if not reader.blocks:
        raise MovaError("there is no shot; a shot begins with a line such as: [kitchen] 6 s")
    return [reader.shot(block) for block in reader.blocks]


class _Reader:
    def __init__(self, given: Given) -> None:
        self.given = given
        self.cast: dict[str, Speaker] = {}
        self.head: dict[str, str] = {}
        self.blocks: list[TextBlock] = []

    def read(self, number: int, row: str) -> None:
        if row[0] in BRACKETS_OPEN:
            self._begin(number, row)
            return
        key, rest = _named(row)
        if key.casefold() in SCRIPT_ROWS:
            self._row(number, key.casefold(), rest)
        elif not self.blocks:
            self._speaker(number, row, key, rest)
        elif key and (key in self.cast or _is_name(key)):
            self._speech(number, key, rest)
        else:
            self.blocks[-1].action.append(row)

    def _begin(self, number: int, row: str) -> None:
        opens, closes = re.escape(BRACKETS_OPEN), re.escape(BRACKETS_CLOSE)
        found = re.fullmatch(f"[{opens}]([^{closes}]*)[{closes}](.*)", row)
        if not found:
            raise MovaError(f"line {number}: a shot begins with [name], and this bracket is not closed")
        name = check_shot_name(found[1].strip() or str(len(self.blocks) + 1), f"line {number}")
        if name.casefold() in (block.name.casefold() for block in self.blocks):
            raise MovaError(f"line {number}: there are two shots called {name!r}; give each a name of its own")
        block = TextBlock(name=name, line=number)
        for part in filter(None, map(str.strip, re.split(f"[{COMMAS}]", found[2]))):
            self._option(block, part)
        self.blocks.append(block)

    def _option(self, block: TextBlock, part: str) -> None:
        for pattern, read in WORD_PATTERNS:
            if found := re.fullmatch(pattern, part, re.IGNORECASE):
                name, value = read(found)
                break
        else:
            raise MovaError(f"{block.where}: {told(part)} is no option; use {OPTIONS}")
        if name in block.options:
            raise MovaError(f"{block.where}: {told(part)} is its second {name}; give one")
        block.options[name] = value
        self._check(block, name, value, part)

    def _check(self, block: TextBlock, name: str, value: Any, part: str) -> None:
        if name == "beginning" and value[0] == PICTURE and not 1 <= value[1] <= len(self.given.pictures):
            count = len(self.given.pictures)
            raise MovaError(
                f"{block.where} wants picture {value[1]}; {count or 'none'} {'is' if count == 1 else 'are'} connected"
            )
        if name == "length" and value[0] in ("stretch", "recording") and self.given.recording is None:
            raise MovaError(f"{block.where}: {told(part)} is of the recording, and none is connected; connect audio")
        if name == "length" and value[0] == "stretch" and value[1][1] <= value[1][0]:
            raise MovaError(f"{block.where}: {told(part)} ends before it begins")
        if name == "seed" and value > MOST_SEED:
            raise MovaError(f"{block.where}: seed {value} is out of range; the largest is {MOST_SEED}")

    def _row(self, number: int, key: str, rest: str) -> None:
        target = self.blocks[-1].rows if self.blocks else self.head
        where = self.blocks[-1].name if self.blocks else ""
        if is_blank(rest):
            raise MovaError(
                f"line {number}: {key} is empty{f' in shot {where!r}' if where else ''}; write it or leave it out"
            )
        if key in target:
            raise MovaError(
                f"line {number}: a second {key}{f' in shot {where!r}' if where else ' above the shots'}; give one"
            )
        target[key] = rest

    def _speaker(self, number: int, row: str, key: str, rest: str) -> None:
        if not (key and rest):
            raise MovaError(
                f"line {number}: {told(row)} is neither a shot ([name]), nor 'Name: look; voice', nor one of "
                f"{', '.join(f'{each}:' for each in SCRIPT_ROWS)}"
            )
        if key in self.cast:
            raise MovaError(f"line {number}: there are two speakers called {told(key)}; give each a name of their own")
        look, _, voice = re.sub(f"[{SEMICOLONS}]", ";", rest, count=1).partition(";")
        self.cast[key] = Speaker(name=key, look=look.strip(), voice=voice.strip())

    def _speech(self, number: int, key: str, rest: str) -> None:
        block = self.blocks[-1]
        if key not in self.cast:
            raise MovaError(
                f"line {number}: {told(key)} speaks in shot {block.name!r} but is not among the speakers "
                f"({', '.join(self.cast) or 'none'}); add 'Name: look; voice' above the first shot, or begin the row "
                "in small letters"
            )
        words = quotable(rest)
        if is_blank(words):
            raise MovaError(
                f"line {number}: {key} says nothing in shot {block.name!r}; write the words or leave it out"
            )
        block.lines.append(Line(speaker=key, words=words))

    def shot(self, block: TextBlock) -> Shot:
        rows = self.head | block.rows
        if "scene" not in rows and not block.action:
            raise MovaError(f"{block.where} says nothing of what is seen; write what happens, or a row 'scene:'")
        begins, source = block.options.get("beginning", (CUT, ""))
        plain = {key: block.options[key] for key in ("seed", "overlap", "take", "lock", "off") if key in block.options}
        shot = Shot(
            name=block.name,
            where=block.where,
            prompt=self._prompt(block, rows),
            audio_prompt=rows.get("hears", ""),
            begins=begins,
            **plain,
        )
        if begins == PICTURE:
            shot = replace(shot, picture=self.given.pictures[source - 1])
        elif begins == AFTER:
            shot = replace(shot, source=source)
        return replace(shot, **self._length(block))

    def _prompt(self, block: TextBlock, rows: dict[str, str]) -> str:
        action = block.action if "scene" in rows else block.action[1:]
        speaking = {line.speaker for line in block.lines}
        named = [p for p in self.cast.values() if p.name in speaking or any(_says(p.name, a) for a in block.action)]
        script = Script(
            scene=rows.get("scene") or block.action[0],
            action=" ".join(action),
            camera=rows.get("camera", ""),
            speakers=tuple(named),
            lines=tuple(block.lines),
            sounds=rows.get("sound", ""),
            music=rows.get("music", ""),
        )
        return compose(script)

    def _length(self, block: TextBlock) -> dict[str, Any]:
        if "length" not in block.options:
            return {}
        kind, value = block.options["length"]
        if kind == "speech":
            if not block.lines:
                raise MovaError(f"{block.where} is as long as its speech, and nobody speaks in it; give it seconds")
            return {"seconds": speech_seconds(tuple(block.lines)) + BREATH}
        if kind in ("stretch", "recording"):
            assert self.given.recording is not None  # checked where the option was read
            return {"recording": Recording(sound=self.given.recording, stretch=value)}
        return {kind: value}


def _named(row: str) -> tuple[str, str]:
    """Key and rest of `key: rest`; no key where there is no colon."""
    parts = re.split(COLON, row, maxsplit=1)
    return (parts[0].strip(), parts[1].strip()) if len(parts) == 2 else ("", row)


def _is_name(key: str) -> bool:
    """Whether a word or two before a colon look like somebody's name, and not like prose."""
    words = key.split()
    letters = [word[0] for word in words if word[0].isalpha()]
    alone = len(words) <= 2 and len(letters) == len(words) and all(re.fullmatch(r"[\w'’.-]+", word) for word in words)
    return alone and not any(letter.islower() for letter in letters)


def _says(name: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words) is not None or (not name.isascii() and name in words)


def _clock(text: str) -> float:
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


ReadWord = Callable[[Any], tuple[str, Any]]
NUMBER, MOMENT = r"(\d+(?:\.\d+)?)", r"((?:\d+:){0,2}\d+(?:\.\d+)?)"
WORD_PATTERNS: tuple[tuple[str, ReadWord], ...] = (
    (rf"{NUMBER} ?(?:s|sec|secs|seconds?|\u79d2)", lambda m: ("length", ("seconds", float(m[1])))),
    (r"(\d+) ?(?:frames?|pictures|\u5e27)", lambda m: ("length", ("frames", int(m[1])))),
    (rf"{MOMENT} ?[-\u2013\u2014~] ?{MOMENT}", lambda m: ("length", ("stretch", (_clock(m[1]), _clock(m[2]))))),
    (r"speech", lambda m: ("length", ("speech", None))),
    (r"recording", lambda m: ("length", ("recording", None))),
    (r"cut", lambda m: ("beginning", (CUT, ""))),
    (r"goes on", lambda m: ("beginning", (GOES_ON, ""))),
    (r"after (\S+)", lambda m: ("beginning", (AFTER, m[1]))),
    (r"picture (\d+)", lambda m: ("beginning", (PICTURE, int(m[1])))),
    (r"seed (\d+)", lambda m: ("seed", int(m[1]))),
    (r"overlap (\d+)", lambda m: ("overlap", int(m[1]))),
    (r"take ([0-9a-f]{4,64})", lambda m: ("take", m[1].lower())),
    (r"lock(?:ed)?", lambda m: ("lock", True)),
    (r"off", lambda m: ("off", True)),
)
