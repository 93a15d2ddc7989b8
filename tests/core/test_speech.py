"""How long speech takes, in the languages people use."""

import pytest

from mova_core.speech import A_SECOND, COMMA, STOP, TURN, language, line_seconds, seconds, syllables

SAID = [  # with the seconds that espeak-ng 1.51 takes at -s 140, from the first sound to the last
    ("en", "Put the kettle on, would you? My hands are frozen.", 3.89),
    ("en", "I left the keys under the blue flower pot by the door.", 3.25),
    ("fr", "Pose ton manteau, le repas est presque prêt.", 2.55),
    ("fr", "J'ai perdu mes clés quelque part entre la gare et la maison.", 3.0),
    ("es", "Deja el abrigo ahí, la cena está casi lista.", 3.07),
    ("es", "He perdido las llaves entre la estación y mi casa.", 3.15),
    ("it", "Lascia qui il cappotto, la cena è quasi pronta.", 3.41),
    ("it", "Ho perso le chiavi tra la stazione e casa mia.", 2.98),
    ("ru", "Повесь пальто, ужин уже почти готов.", 2.26),
    ("ru", "Я потерял ключи где-то между вокзалом и домом.", 2.89),
    ("ja", "コートはそこにおいて。ごはんはもうすぐできるよ。", 3.78),
    ("de", "Leg den Mantel hin, das Essen ist gleich fertig.", 3.23),
]


@pytest.mark.parametrize(("spoken", "words", "took"), SAID)
def test_a_sentence_takes_about_as_long_as_a_voice_takes(spoken, words, took):
    assert language(words) == spoken
    assert line_seconds(words) == pytest.approx(took, rel=1 / 3)


def test_chinese_is_timed_by_its_characters():
    assert line_seconds("今天天气很好") == pytest.approx(6 / A_SECOND["zh"])


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
        ("ru", "к вокзалу", 3),
        ("ja", "きょうはラッキー", 7),  # kyo-u-wa-ra-k-ki-i
        ("zh", "今天天气很好", 6),
        ("ko", "안녕하세요", 5),
    ],
)
def test_syllables_are_counted_by_the_languages_rules(spoken, words, count):
    assert syllables(words, spoken) == pytest.approx(count, abs=1)


def test_digits_are_spoken_and_capitals_without_vowels_are_spelt():
    assert line_seconds("Call 5 5 5 0 1 9 9") > line_seconds("Call me") + 2
    assert syllables("PBX", "en") == 3


def test_lines_of_two_languages_are_each_timed_by_their_own():
    both = seconds([("A", "你今天好吗"), ("B", "Very well, thank you.")])
    assert both == pytest.approx(line_seconds("你今天好吗") + line_seconds("Very well, thank you.") + TURN)


@pytest.mark.parametrize("nothing", ["", "   ", "...", "?!"])
def test_what_says_nothing_takes_no_time(nothing):
    assert seconds([("A", nothing)]) == 0
