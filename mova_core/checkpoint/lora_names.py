"""Which expert a LoRA's file name says that it is for, where it speaks of noise levels and not of heels or angles.

Told are: `high_noise`, `noise_low` and the same in other languages anywhere; HIGH, LOW, HN, LN, and a capital H or L,
where nothing but technical words (rank, steps, version, the base model) comes after; MOVA's and VideoX-Fun's names of
components. Folders count as names do, the nearest first.
"""

import re
import unicodedata

from ..sampling.schedule import Expert

COMPONENT_NAMES = {  # VideoX-Fun's `transformer` is the low-noise expert, the other way round than in diffusers: told
    # only where the whole name of file or folder is as VideoX-Fun writes it
    "low": re.compile(r"video_dit_2|^(?:checkpoint-\d+-)?transformer$"),
    "high": re.compile(r"video_dit(?!_2)|^(?:checkpoint-\d+-)?transformer_2$"),
}
NOISE = {
    "high": re.compile(r"(?<![a-z])(?:high|hn|hi|h)[ _.\-]?noise|noise[ _.\-]?(?:level[ _.\-]?)?high(?![a-z])"),
    "low": re.compile(r"(?<![a-z])(?:low|ln|lo|l)[ _.\-]?noise|noise[ _.\-]?(?:level[ _.\-]?)?low(?![a-z])"),
}
ABROAD = {  # the same in Chinese, Japanese, Korean, Russian, Spanish and Portuguese, German, French; as `_unaccented`
    "high": "\u9ad8\u566a|\u9ad8\u96dc\u8a0a|\u9ad8\u6742\u8baf"
    "|\u9ad8\u30ce\u30a4\u30ba|\u30cf\u30a4\u30ce\u30a4\u30ba"
    "|\ud558\uc774\ub178\uc774\uc988|\uace0\ub178\uc774\uc988"
    "|\u0432\u044b\u0441\u043e\u043a\u0438\u0439 \u0448\u0443\u043c"
    "|\u0448\u0443\u043c \u0432\u044b\u0441\u043e\u043a\u0438\u0439"
    "|alto ruido|ruido alto|hohes rauschen|rauschen hoch|bruit eleve|haut bruit",
    "low": "\u4f4e\u566a|\u4f4e\u96dc\u8a0a|\u4f4e\u6742\u8baf"
    "|\u4f4e\u30ce\u30a4\u30ba|\u30ed\u30fc\u30ce\u30a4\u30ba"
    "|\ub85c\uc6b0\ub178\uc774\uc988|\uc800\ub178\uc774\uc988"
    "|\u043d\u0438\u0437\u043a\u0438\u0439 \u0448\u0443\u043c"
    "|\u0448\u0443\u043c \u043d\u0438\u0437\u043a\u0438\u0439"
    "|bajo ruido|ruido bajo|baixo ruido|ruido baixo|niedriges rauschen|rauschen niedrig|bruit faible|bas bruit",
}
WORDS: dict[str, Expert] = {"high": "high", "hn": "high", "h": "high", "low": "low", "ln": "low", "l": "low"}
TECHNICAL = re.compile(  # may come after the word that says it
    r"\d+|v\d+[a-z]?|[re]\d+|(?:rank|dim|alpha|epochs?|ep|steps?|ckpt|checkpoint)\d*|\d+(?:steps?|epochs?|k|b|p|fps)"
    r"|(?:fp|bf|int)\d+\w*|e4m3fn|e5m2|wan\d*|[it]2v\d*|ti2v|a?14b|mova|lightx2v|x2v|lightning|distill(?:ed)?|seko"
    r"|lora|loras|lokr|loha|dora|locon|lycoris|comfy|comfyui|kj|ema|final|last|latest|best|adapter|model|weights|expert"
    r"|diffusers|converted|fixed|safetensors|pt|\d+f|pruned|emaonly|copy|copia|copie|kopie|\u526f\u672c|\u30b3\u30d4\u30fc"
)
BOTH = re.compile(  # `high_and_low`, `HighLow`, `HN_LN`
    r"(?<![a-z])(?:high|low|[hl]n)(?:[^a-z]|noise|and|or)*(?:high|low|[hl]n)(?:[_ \-]?noise)?(?![a-z])"
)
ADJECTIVE_OF = re.compile(r"(?:rank|dim|alpha|steps?|epochs?|model|weights|distill)")  # `low_rank`, `high_steps`
COMPOUND = {"thigh", "knee", "waist", "sky", "mile", "junior", "senior", "shoulder", "ankle", "neck", "get", "very"}


def expert_in_name(name: str) -> tuple[Expert, str] | None:
    """The expert that a file's name says and the words that say it; None where it says none or both."""
    name = unicodedata.normalize("NFKC", name[-1000:])
    for segment in reversed(re.split(r"[/\\]", name)):
        told = _said(re.sub(r"\.(safetensors|pt|bin|sft)$", "", segment, flags=re.IGNORECASE))
        if told:
            return told[0] if len({expert for expert, _ in told}) == 1 else None
    return None


def _said(segment: str) -> list[tuple[Expert, str]]:
    """Every expert that one part of a path says, with the words."""
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", segment)
    told: list[tuple[Expert, str]] = []
    for patterns in (COMPONENT_NAMES, NOISE):
        for expert, pattern in patterns.items():
            found = pattern.search(spread.lower())
            if found:
                told.append(("high" if expert == "high" else "low", spread[found.start() : found.end()]))
    plain = _unaccented(segment)
    for expert, phrases in ABROAD.items():
        said = re.search(rf"(?<![a-z\u9ad8\u4f4e])(?:{_unaccented(phrases)})(?![a-z])", plain)
        if said:  # not behind the other's sign: \u9ad8\u4f4e\u566a speaks of both
            told.append(("high" if expert == "high" else "low", unicodedata.normalize("NFC", said[0])))
    words = re.findall(r"[A-Za-z0-9]+|[^\W\dA-Za-z_]+", spread)
    at = len(words)
    while at and TECHNICAL.fullmatch(words[at - 1].lower()):
        at -= 1
    word = words[at - 1] if at else ""
    if word.lower() in WORDS and not told and _stands_alone(word, words[:at], words[at:]):
        told.append((WORDS[word.lower()], word))
    if BOTH.search(spread.lower()):
        return [("high", "high"), ("low", "low")]
    return told


def _unaccented(text: str) -> str:
    """In small letters without accents, words parted by one space."""
    letters = unicodedata.normalize("NFKD", text.lower())
    return re.sub(r"[\s_.\-]+", " ", re.sub("[\u0300-\u036f]", "", letters))


def _stands_alone(word: str, before: list[str], after: list[str]) -> bool:
    """Whether a word is a noise level, not a letter by chance, half of a compound or an adjective of what follows."""
    if len(word) == 1 and (not word.isupper() or len(before) == 1):
        return False
    if len(before) > 1 and before[-2].lower() in COMPOUND:
        return False
    return not (after and word.lower() in ("high", "low") and ADJECTIVE_OF.fullmatch(after[0].lower()))


def audio_in_name(name: str) -> bool:
    """Whether a file's name says that it is the audio tower's."""
    return re.search(r"audio[ _\-]?(dit|tower)|transformer_audio", name[-1000:].lower()) is not None
