"""How long speech takes, in the languages people use."""

import json
from pathlib import Path

import pytest

from mova_core.speech import A_SECOND, COMMA, STOP, TURN, language, line_seconds, seconds, syllables

SAID = json.loads(Path(__file__).with_name("said.json").read_text(encoding="utf-8"))
"""Language, sentence, and the seconds that espeak-ng 1.51 takes for it at -s 140, from the first sound to the last."""


@pytest.mark.parametrize(("spoken", "words", "took"), SAID)
def test_a_sentence_takes_about_as_long_as_a_voice_takes(spoken, words, took):
    assert language(words) == spoken
    assert line_seconds(words) == pytest.approx(took, rel=1 / 3)


def test_chinese_is_timed_by_its_characters():
    assert line_seconds("\u4eca\u5929\u5929\u6c14\u5f88\u597d") == pytest.approx(6 / A_SECOND["zh"])


def test_pauses_stand_between_parts_and_not_at_the_end():
    once = line_seconds("Come in")
    assert line_seconds("Come in.") == once
    assert line_seconds("Come in, come in") == pytest.approx(2 * once + COMMA)
    assert line_seconds("Come in! Come in!") == pytest.approx(2 * once + STOP)
    assert seconds([("A", "Come in"), ("B", "Come in")]) == pytest.approx(2 * once + TURN)
    assert seconds([("A", "Come in"), ("A", "Come in")]) == pytest.approx(2 * once + STOP)
    assert line_seconds("It costs 3.50") == line_seconds("It costs 350")


@pytest.mark.parametrize(
    ("spoken", "words", "count"),
    [
        ("en", "created pages, a quiet little table", 11),
        ("fr", "elle parle beaucoup", 4),
        ("es", "reina, día, ciudad, aéreo", 10),
        ("it", "ciao, buongiorno, famiglia", 7),
        ("ru", "\u043a \u0432\u043e\u043a\u0437\u0430\u043b\u0443", 3),
        ("ja", "\u304d\u3087\u3046\u306f\u30e9\u30c3\u30ad\u30fc", 7),  # kyo-u-wa-ra-k-ki-i
        ("zh", "\u4eca\u5929\u5929\u6c14\u5f88\u597d", 6),
        ("ko", "\uc548\ub155\ud558\uc138\uc694", 5),
    ],
)
def test_syllables_are_counted_by_the_languages_rules(spoken, words, count):
    assert syllables(words, spoken) == pytest.approx(count, abs=1)


def test_digits_are_spoken_and_capitals_without_vowels_are_spelt():
    assert line_seconds("Call 5 5 5 0 1 9 9") > line_seconds("Call me") + 2
    assert syllables("PBX", "en") == 3


def test_lines_of_two_languages_are_each_timed_by_their_own():
    both = seconds([("A", "\u4f60\u4eca\u5929\u597d\u5417"), ("B", "Very well, thank you.")])
    assert both == pytest.approx(
        line_seconds("\u4f60\u4eca\u5929\u597d\u5417") + line_seconds("Very well, thank you.") + TURN
    )


@pytest.mark.parametrize("nothing", ["", "   ", "...", "?!"])
def test_what_says_nothing_takes_no_time(nothing):
    assert seconds([("A", nothing)]) == 0
