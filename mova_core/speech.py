"""How long words take to say: syllables of the language at a clear reader's pace, and pauses.

Rates of English, French, Spanish, Italian and Russian are fitted to 1,097 recorded sentences of Debian's
asterisk-core-sounds (benchmarks/speech_seconds.py prints the errors), those of German, Japanese and Mandarin are of
Pellegrino, Coupe & Marsico 2011, "A cross-language perspective on speech information rate"; the others are set beside
their nearest relative and measured by nobody.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

A_SECOND = {  # syllables; Japanese: morae
    "en": 4.8,
    "de": 6.0,
    "nl": 6.0,
    "fr": 5.5,
    "es": 4.7,
    "pt": 5.6,
    "it": 7.2,
    "ru": 6.2,
    "el": 7.0,
    "ja": 7.8,
    "zh": 5.2,
    "ko": 6.6,
    "ar": 6.0,
    "hi": 6.6,
    "": 6.4,  # another language
}
COMMA, STOP, TURN = 0.25, 0.3, 0.3  # seconds: within a sentence, between sentences, between speakers
DIGIT = 2.5  # syllables a digit: "twenty-five", "zero"
KANJI = 1.9  # morae of a Japanese character that is no kana

WEIGHED = (  # syllables a character, where writing tells them
    (r"[\u3041-\u3096\u30a1-\u30fa\u30fc]", 1.0),  # kana, less the small ones that share a mora with the one before
    (
        r"[\u3041\u3043\u3045\u3047\u3049\u3083\u3085\u3087\u308e\u30a1\u30a3\u30a5\u30a7\u30a9\u30e3\u30e5\u30e7\u30ee]",
        -1.0,
    ),
    (r"[\uac00-\ud7af]", 1.0),
    (r"[\u0621-\u064a]", 0.5),  # Arabic writes few of its vowels
    (r"[\u0905-\u0939\u093e-\u094c]", 0.6),
)
VOWELS = {
    "ru": "\u0430\u0435\u0451\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0456\u0454\u0457",
    "el": "\u03b1\u03b5\u03b7\u03b9\u03bf\u03c5\u03c9\u03ac\u03ad\u03ae\u03af\u03cc\u03cd\u03ce\u03ca\u03cb"
    "\u0390\u03b0",
}
LATIN = "aeiouyæøœ\u0131" + "".join(chr(code) for code in range(0xE0, 0x180) if chr(code).isalpha())
COMMON = {  # words that give a language away
    "en": (
        "the and is you to of i it that are we for what this have my not your with be was on in at he she "
        "they do from please no"
    ),
    "fr": (
        "le la les des est une et je vous nous pas que qui dans ce cette il elle un du pour sur au avec tu "
        "mon ne c'est votre à y ou plus en merci"
    ),
    "es": (
        "el la los las es y una un que de en no por para con su mi se lo esta este yo usted como muy pero del "
        "al está ahora ha sido esa"
    ),
    "it": ("il lo la gli le di che e un una per non con del della sono ho mi si ti questo questa ma come nel alla è"),
    "de": ("der die das und ist ich du nicht ein eine wir sie mit zu den auf es was von für dem im so aber auch noch"),
    "pt": ("o a os as e que de não um uma eu você para com por do da em no na se mais isso muito está meu minha ao"),
    "nl": ("de het een en ik je niet is van dat we op met zijn voor wat maar er in naar nog ook hij ze dit die te"),
}
PRIOR = 0.4  # words of English: a single name or "Hello" says nothing, and most prompts are English
KNOWN = {language: frozenset(words.split()) for language, words in COMMON.items()}
LANGUAGE_MARKS = {  # that only one of them writes, or nearly; worth as much as two words
    "es": "ñ ¿ ¡",
    "de": "ß ä ö",
    "pt": "ã õ",
    "fr": "ç œ ê î û ë n'e n'a qu' j'",
    "it": "ì ò dell' all' un'",
}
ENDINGS = {
    "en": r"ing|ight|tion|ly|ed|ck|th|sh|ness",
    "fr": r"tion|ment|eux|aux|ez|eur|ique|oir|ais|ait|ons|[ée]e?s?",
    "es": r"ci[oó]n(?:es)?|mente|dad|ad[oa]s?|id[oa]s?|os|as|[aei]r|ando",
    "it": r"[a-z]+[bcdfglmnprstvz][aeio]|zion[ei]|[àèìòù]",
    "de": r"ung|lich|keit|sch|cht|en|er",
    "pt": r"ção|ções|ão|dade|mente|ad[oa]s?|[aei]r|os|as",
    "nl": r"lijk|heid|aar|oor|ijn|en|sch",
}
"""Worth less than words, and only where a word has nothing of another kind."""

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
FIGURE = re.compile(r"\d")
PAUSED = re.compile(r"[,;:\u2014\u2013\u3001\uff0c\uff1b\uff1a\u060c]+(?=\s|\w|$)|\s-\s")
STOPPED = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f]+(?=[\s\"'\u00bb\u201d\u300d]|$|[^\W\d_])")


def seconds(lines: Sequence[tuple[str, str]]) -> float:
    """How long (speaker, words) lines take one after the other, read without haste."""
    spoken = [(speaker, said) for speaker, words in lines if (said := unicodedata.normalize("NFKC", words).strip())]
    turns = sum(before[0] != after[0] for before, after in pairwise(spoken))
    same = max(0, len(spoken) - 1) - turns
    return sum(line_seconds(words) for _, words in spoken) + TURN * turns + STOP * same


def line_seconds(words: str) -> float:
    """One line: syllables at the language's rate, and the pauses between its parts; none after its end."""
    spoken = language(words)
    body = words.rstrip(" \t\n\"'\u00bb\u201d\u300d.,;:!?\u2026\u3002\uff0c\uff01\uff1f\u0964\u061f")
    pauses = COMMA * len(PAUSED.findall(body)) + STOP * len(STOPPED.findall(body))
    return syllables(words, spoken) / A_SECOND[spoken] + pauses


def language(words: str) -> str:
    """The key of `A_SECOND` for a line: by its script, in Latin letters by common words,
    marks and endings; "" is unknown."""
    counts = {name: len(re.findall(letters, words)) for name, letters in SCRIPTS.items()}
    script = max(counts, key=lambda name: counts[name])
    if not counts[script]:
        return ""
    if counts["ja"]:
        return "ja"  # kana stand only in Japanese, among more characters than kana
    if script != "latin":
        return script
    lower = words.lower().replace("\u2019", "'")
    found = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", lower)
    scores = {name: PRIOR * (name == "en") + sum(word in KNOWN[name] for word in found) for name in KNOWN}
    for name, marks in LANGUAGE_MARKS.items():
        scores[name] += 2 * any(mark in lower for mark in marks.split())
    for name, ending in ENDINGS.items():
        scores[name] += 0.3 * len(re.findall(rf"[^\W\d_]{{2}}(?:{ending})(?![^\W\d_])", lower))
    return max(scores, key=lambda name: scores[name])


SCRIPTS = {
    "ja": r"[\u3040-\u30ff]",
    "zh": r"[\u3400-\u4dbf\u4e00-\u9fff]",
    "ko": r"[\uac00-\ud7af]",
    "ru": r"[\u0400-\u04ff]",
    "el": r"[\u0370-\u03ff\u1f00-\u1fff]",
    "ar": r"[\u0600-\u06ff]",
    "hi": r"[\u0900-\u097f]",
    "latin": r"[A-Za-z\u00c0-\u024f]",
}


def syllables(words: str, spoken: str) -> float:
    """Of a line in a language of `A_SECOND`; in Japanese its morae."""
    return DIGIT * len(FIGURE.findall(words)) + sum(_of_word(word, spoken) for word in WORD.findall(words))


def _of_word(word: str, spoken: str) -> float:
    """Of one run of letters, whose scripts may be mixed: Chinese and Japanese write no spaces."""
    if len(word) > 1 and word.isupper() and not re.search(f"[{LATIN}{VOWELS['ru']}]", word.lower()):
        return len(word)  # PBX: spelt
    east = sum(weight * len(re.findall(letters, word)) for letters, weight in WEIGHED)
    east += (KANJI if spoken == "ja" else 1) * len(re.findall(SCRIPTS["zh"], word))
    west = "".join(re.findall(r"[A-Za-z\u00c0-\u024f\u0370-\u04ff\u1f00-\u1fff'\u2019]", word)).lower()
    return east + (_western(west, spoken) if west else 0)


def _western(word: str, spoken: str) -> int:
    if spoken in VOWELS and re.search(f"[{VOWELS[spoken]}]", word):
        if spoken == "ru":
            return len(re.findall(f"[{VOWELS['ru']}]", word))
        plain = re.sub(
            "\u03bf\u03c5|\u03bf\u03cd|\u03b1\u03b9|\u03b1\u03af|\u03b5\u03b9|\u03b5\u03af|\u03bf\u03b9|\u03bf\u03af|\u03c5\u03b9|\u03b1\u03c5|\u03b1\u03cd|\u03b5\u03c5|\u03b5\u03cd",
            "\u03b1",
            word,
        )
        return len(re.findall(f"[{VOWELS['el']}]", plain))
    if spoken == "ru":
        return 0  # a preposition of one consonant
    count = COUNTED.get(spoken, _groups)(word)
    return max(1, count)


def _groups(word: str) -> int:
    return len(re.findall(f"[{LATIN}]+", word))


def _english(word: str) -> int:
    word = word.replace("'", "").replace("\u2019", "")
    word = re.sub(r"(?<=[^aeiouy])es$", lambda _: "" if not re.search(r"(s|x|z|ch|sh|c|g)es$", word) else "is", word)
    word = re.sub(r"(?<=[^aeioutdy])ed$", "", word)
    if not re.search(r"[^aeiouy]le$", word):
        word = re.sub(r"(?<=[^aeiouy])e$", "", word)
    word = re.sub(r"(?<=[^aeiouy])e(?=(ly|ment|ful|less|ness)s?$)", "", word)
    word = re.sub(r"^qu|(?<=[^aeiou])qu", "q", word)
    split = len(re.findall(r"i[ao](?!u)|eo|ua|uo|ying|[aeo]ing", re.sub(r"[tsc]io|[tc]ia|geo", "x", word)))
    return _groups(re.sub(r"[tsc]io", "to", word)) + split


def _french(word: str) -> int:
    word = re.sub(r"(?<=[a-zà-ÿ])['\u2019]", "", word)
    word = re.sub(r"(?<=[^aeiouyéèêàâîôû])(es?|ent)$", "", word) if len(word) > 3 else word
    word = re.sub(r"(?<=[iué])es?$", "", word)
    return len(
        re.findall(r"i(?=[aeoé])|[aeiouyàâéèêëîïôùûüœ]+", re.sub(r"i(?=on|en|er|ez|eu|è)|qu|gu(?=[ei])", "", word))
    )


def _romance(word: str) -> int:
    """Spanish, Italian, Portuguese: i and u beside another vowel make no syllable, unless they are stressed."""
    word = re.sub(r"qu|gu(?=[eiéí])", "q", word)
    word = re.sub(r"(?<=[cg])i(?=[aou])|(?<=gl)i(?=[aeou])", "", word)
    return len(
        re.findall(r"[iuü]*(?:[aeoáàâãéèêóòôõíìúù]|[iuüy](?![aeoáéóàèò]))[iuü]?(?![aeoáéóíú])|[íìúù]|[aeoáéó]", word)
    )


COUNTED = {"en": _english, "fr": _french, "es": _romance, "it": _romance, "pt": _romance}
