"""Prompts in the order of the training captions, and speech against the clock."""

import pytest

from mova_core.errors import MovaError
from mova_core.prompting import (
    Line,
    Script,
    check_speech,
    check_tags,
    compose,
    compose_for_prism,
    parse_lines,
    parse_speakers,
)
from mova_core.text import clean_prompt, is_blank

SPEAKERS = parse_speakers("Anna: a woman in a red coat; warm, low\nBen: a tall man with glasses")


def script(**changes):
    parts = {
        "scene": "A rainy street at night",
        "action": "They meet under a lamp",
        "camera": "The camera moves in slowly",
        "speakers": SPEAKERS,
        "lines": parse_lines("Anna: You came.\nBen: “Of course!”", SPEAKERS),
        "sounds": "rain on the pavement",
        "music": "a distant piano.",
    }
    return Script(**(parts | changes))


def test_a_prompt_tells_the_picture_in_order_then_the_sound_in_a_paragraph_of_its_own():
    seen, heard = compose(script()).split("\n\n")
    order = ["This video has no subtitles.", "rainy street", "red coat", "glasses", "lamp", '"You came."', "camera"]
    assert sorted(order, key=seen.index) == order
    assert heard == ("The audio shows Anna speaking in a warm, low voice, rain on the pavement and a distant piano.")


def test_speech_is_quoted_word_for_word_in_double_quotes():
    assert 'Anna says: "You came."' in compose(script())
    assert 'Ben says: "Of course!"' in compose(script())


def test_without_sound_there_is_no_second_paragraph():
    quiet = script(speakers=parse_speakers("Ben: a man"), lines=(), sounds="", music="")
    assert "\n" not in compose(quiet)


def test_a_prompt_survives_cleaning_but_for_its_line_break():
    prompt = compose(script())
    assert clean_prompt(prompt) == prompt.replace("\n\n", " ")


@pytest.mark.parametrize("text", ["Anna", ": a woman", "Anna:"])
def test_a_speaker_without_name_or_look_is_refused_with_an_example(text):
    with pytest.raises(MovaError, match="Name: look; voice"):
        parse_speakers(text)


def test_two_speakers_of_one_name_are_refused():
    with pytest.raises(MovaError, match="two speakers"):
        parse_speakers("Anna: a woman\nAnna: a girl")


def test_a_line_of_an_unknown_speaker_names_the_known_ones():
    with pytest.raises(MovaError, match=r"Anna, Ben"):
        parse_lines("Carl: Hello", SPEAKERS)


def test_an_empty_scene_is_refused():
    with pytest.raises(MovaError, match="scene is empty"):
        compose(script(scene=" "))


def test_speech_that_does_not_fit_is_said_to_be_too_long():
    lines = (Line(speaker="A", words="word " * 60),)
    assert "too long" in check_speech(lines, 8.0)
    assert "fits" in check_speech(lines, 25.0)
    assert check_speech((), 8.0) == ""


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        ("warm, low", "in a warm, low voice"),
        ("old and dry", "in an old and dry voice"),
        ("a low, dry voice", "in a low, dry voice"),
        ("the voice of a child", "in the voice of a child"),
        ("low voice", "in a low voice"),
    ],
)
def test_a_voice_told_in_few_or_in_whole_words_reads_as_one_sentence(told, heard):
    tom = parse_speakers(f"Tom: an old man; {told}")
    written = compose(script(speakers=tom, lines=parse_lines("Tom: Good.", tom), sounds="", music=""))
    assert written.endswith(f"The audio shows Tom speaking {heard}.")


@pytest.mark.parametrize(
    "row",
    [
        "\u5c0f\u660e\uff1a\u7537\u5b69\uff1b\u6e05\u4eae",
        "\u5c0f\u660e:\u7537\u5b69;\u6e05\u4eae",
        "\u5c0f\u660e\uff1a\u7537\u5b69;\u6e05\u4eae",
        "\ufeff\u5c0f\u660e\ufe55\u7537\u5b69\ufe54\u6e05\u4eae",
        "\u300c\u5c0f\u660e\u300d\uff1a\u7537\u5b69\uff1b\u6e05\u4eae",
    ],
)
def test_full_width_colons_and_semicolons_part_as_narrow_ones_do(row):
    (speaker,) = parse_speakers(row)
    assert (speaker.name, speaker.look, speaker.voice) == ("\u5c0f\u660e", "\u7537\u5b69", "\u6e05\u4eae")


@pytest.mark.parametrize(
    "words",
    [
        *(
            "“\u4f60\u597d\uff01”",
            "\u300c\u4f60\u597d\uff01\u300d",
            "\u300e\u4f60\u597d\uff01\u300f",
            "\uff02\u4f60\u597d\uff01\uff02",
            '"\u4f60\u597d\uff01"',
            "‘\u4f60\u597d\uff01’",
            "«\u4f60\u597d\uff01»",
            "»\u4f60\u597d\uff01«",
            "„\u4f60\u597d\uff01“",
            "‹\u4f60\u597d\uff01›",
        ),
        *(
            "\u300e\u300c\u4f60\u597d\uff01\u300d\u300f",
            "“‘\u4f60\u597d\uff01’”",
            "“\u4f60\u597d\uff01",
            "\u4f60\u597d\uff01”",
            " \u300c\u4f60\u597d\uff01\u300d ",
            "\u300c\u4f60\u597d\uff01\u300d\u3002",
        ),
    ],
)
def test_the_marks_around_a_line_are_taken_off_whatever_they_are(words):
    assert said("\u5c0f\u660e\uff1a" + words) == "\u4f60\u597d\uff01"


def said(line):
    (spoken,) = parse_lines(line, parse_speakers("\u5c0f\u660e:\u7537\u5b69\nAnna: a woman"))
    return spoken.words


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("It was the dogs'", "It was the dogs'"),
        ("'Tis late, said the boys'", "'Tis late, said the boys'"),
        ("rock 'n' roll", "rock 'n' roll"),
        ("'Don't go!'", "Don't go!"),
        ('"He said "no" to me."', "He said 'no' to me."),
        ('"Yes" and "no"', "'Yes' and 'no'"),
        ("She said “no” twice", "She said 'no' twice"),
        ("“She said ‘no’ twice”", "She said ‘no’ twice"),
        ('a 6" pipe', "a 6\u2033 pipe"),
        ("At 5:30; not later", "At 5:30; not later"),
    ],
)
def test_what_is_said_stays_word_for_word_within_one_pair_of_double_quotes(words, wanted):
    assert said("Anna: " + words) == wanted
    assert compose(script(lines=(Line(speaker="Anna", words=wanted),))).count('"') == 2


@pytest.mark.parametrize("words", ["", "&nbsp;", "\ufeff", "“”", "''", "\u300c\u300d", "\u200b"])
def test_a_line_without_words_is_refused(words):
    with pytest.raises(MovaError, match="Name: words"):
        parse_lines(f"Anna: {words}", SPEAKERS)


@pytest.mark.parametrize("scene", ["&nbsp;", "\ufeff", "\u3000", "&amp;nbsp; \n&#8203;"])
def test_a_scene_of_nothing_that_is_seen_is_empty(scene):
    with pytest.raises(MovaError, match="scene is empty"):
        compose(script(scene=scene))


def test_for_prism_the_sound_comes_first_and_speech_stands_between_tags():
    told = compose_for_prism(script(music="", sounds="rain on a tin roof."))
    assert told.startswith("No background music. <sfx>rain on a tin roof</sfx>. ")
    assert told.index("<sfx>") < told.index(script().scene) < told.index(script().action) < told.index("<speech>")
    assert told.count("<speech>") == told.count("</speech>") == len(script().lines)
    assert "\n" not in told
    assert "no subtitles" not in told
    assert check_tags(told) == ""
    assert "<music>a slow waltz</music>" in compose_for_prism(script(music="<music>a slow waltz</music>"))


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("<speech>Hello", "<speech> is not closed"),
        ("Hello</speech>", "</speech> closes what is not open"),
        ("<sfx>rain<music>waltz</music>", "<music> begins within <sfx>"),
        ("<lyrics>la</lyrics>", "<lyrics> is none of"),
        ("<speech>Hi</sfx>", "closes what is not open"),
    ],
)
def test_tags_that_prism_would_not_read_are_told(prompt, says):
    assert says in check_tags(prompt)


def test_words_in_angles_that_are_no_tags_are_left_alone():
    assert check_tags("2 < 3, a -> b, <speech>1 < 2</speech>") == ""


@pytest.mark.parametrize("colon", [":", "\uff1a", "\ufe55", "\ufe13", "\u2236", "\ua789"])
@pytest.mark.parametrize("semicolon", [";", "\uff1b", "\ufe54", "\ufe14", "\u061b", "\u037e"])
def test_any_colon_and_semicolon_divides_a_row(colon, semicolon):
    (speaker,) = parse_speakers(f"Anna{colon} a woman{semicolon} warm")
    assert (speaker.name, speaker.look, speaker.voice) == ("Anna", "a woman", "warm")
    assert parse_lines(f"Anna{colon} Hello", (speaker,))[0].words == "Hello"


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ren\u00e9", "Rene\u0301"), ("Anna", "\uff21nna"), ("Anna", "An\u200bna"), ("Anna Bell", "Anna\u00a0Bell")],
)
def test_names_that_look_alike_are_one(one, other):
    speakers = parse_speakers(f"{one}: a woman")
    assert parse_lines(f"{other}: Hello", speakers)[0].speaker == speakers[0].name
    with pytest.raises(MovaError, match="two speakers called"):
        parse_speakers(f"{one}: a woman\n{other}: a man")


@pytest.mark.parametrize("text", ["\u3164", "\u2800", "\ufe0f", "\u034f \u00ad", "&#12644;", "\uffa0"])
def test_letters_that_show_nothing_are_no_prompt(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["\u2764\ufe0f", "\uac00", "\u2801", "."])
def test_what_is_seen_is_a_prompt(text):
    assert not is_blank(text)
