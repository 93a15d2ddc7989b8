"""Shots from one text, and errors that name line and shot."""

from __future__ import annotations

import pytest
import torch

from mova_core.errors import MovaError
from mova_core.film.grammar import BREATH, Given, parse_shots
from mova_core.film.pauses import stretches
from mova_core.film.shots import Shot, plan
from mova_core.inputs.sounds import Sound
from mova_core.prompting import Line, speech_seconds

RECORDING = Sound(waveform=torch.ones(1, 1, 1000 * 40), rate=1000)
GIVEN = Given(pictures=[torch.zeros(1, 4, 4, 3)], recording=RECORDING)
FILM = """Anna: a woman in a red coat; warm and low
Ben: an old man; hoarse
scene: A small kitchen at dawn.
sound: rain on a tin roof

# the first
[door] picture 1, speech, seed 11
Anna opens the door.
Anna: It has not stopped since Tuesday.

[answer] goes on, speech, overlap 49
Ben: "Then sit down."
[hands] 4 s, lock
camera: Close on two hands.
The cup is pushed across the table.
[far] after door, 0:10-0:14.5, off
scene: A field at noon.
sound: insects
"""


def shots(text: str = FILM) -> dict[str, Shot]:
    return {shot.name: shot for shot in parse_shots(text, GIVEN)}


def test_rows_above_hold_for_all_and_those_in_a_shot_replace_them() -> None:
    found = shots()
    assert "A small kitchen at dawn." in found["door"].prompt
    assert "rain on a tin roof" in found["hands"].prompt
    assert "A field at noon." in found["far"].prompt
    assert "insects" in found["far"].prompt
    assert "rain" not in found["far"].prompt
    assert "remark" not in found["door"].prompt


def test_only_who_speaks_or_is_named_in_a_shot_is_described_in_it() -> None:
    found = shots()
    assert "Anna is a woman" in found["door"].prompt
    assert "Ben" not in found["door"].prompt
    assert 'Ben says: "Then sit down."' in found["answer"].prompt
    assert "a woman" not in found["hands"].prompt


def test_options_are_read_in_any_order_and_case() -> None:
    (shot,) = parse_shots("[a] SEED 7 , Overlap 9, Lock, 12 Frames, take 3FA2\nx")
    assert (shot.seed, shot.overlap, shot.lock, shot.frames, shot.take) == (7, 9, True, 12, "3fa2")


def test_lengths_are_of_what_is_new() -> None:
    planned = {each.shot.name: each for each in plan(parse_shots(FILM, GIVEN), 24.0, 5)}
    for name, held, line in (("door", 0, "It has not stopped since Tuesday."), ("answer", 49, "Then sit down.")):
        needed = (speech_seconds((Line(speaker="Anna", words=line),)) + BREATH) * 24
        assert needed <= planned[name].frames - held < needed + 4, name
    assert planned["answer"].held == 49
    assert planned["hands"].frames == 97
    assert "far" not in planned
    assert [each.seed for each in planned.values()] == [11, 5, 5]


@pytest.mark.parametrize("frames", range(1, 30))
def test_frames_are_rounded_up_to_what_can_be_made(frames: int) -> None:
    text = f"[a] 9 frames\nx\n[b] goes on, overlap 5, {frames} frames\ny"
    b = plan(parse_shots(text), 24.0, 0)[1]
    assert (b.frames - 1) % 4 == 0
    assert frames <= b.frames - b.held < frames + 4


def test_without_a_length_a_shot_is_as_long_as_was_trained() -> None:
    assert [each.frames for each in plan(parse_shots("[a]\nx\n[b] goes on\ny"), 24.0, 0)] == [193, 193]


def test_chinese_punctuation_is_read_too() -> None:
    who = "\u5b89\u5a1c\uff1a\u4e00\u4f4d\u7ea2\u8863\u5973\u5b50\uff1b\u4f4e\u6c89"
    door = "\u3010\u95e8\u30116 \u79d2\uff0cseed 3"
    said = "\u96e8\u8fd8\u6ca1\u505c\u3002"
    (shot,) = parse_shots(f"{who}\n{door}\n\u95e8\u5f00\u4e86\u3002\n\u5b89\u5a1c\uff1a{said}")
    assert (shot.name, shot.seconds, shot.seed) == ("\u95e8", 6.0, 3)
    assert said in shot.prompt


@pytest.mark.parametrize(
    "row",
    ["The sign reads: open.", "at 10:30 the bell rings", "she says nothing: silence", "Close, then [far] away, seed 7"],
)
def test_prose_stays_prose(row: str) -> None:
    (shot,) = parse_shots(f"[a] 6 s\nx\n{row}")
    assert row.rstrip(".") in shot.prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no shot"),
        ("A cat.", "line 1: 'A cat.' is neither a shot"),
        ("[a b] 6 s\nx", "line 1: 'a b' cannot name a shot"),
        ("[../up] 6 s\nx", "line 1: '../up' cannot name a shot"),
        ("[a] 6 s\nx\n[A] 6 s\ny", "line 3: there are two shots called 'A'"),
        ("[a] goes on\nx", "line 1: shot 'a' goes on, but it is the first"),
        ("[a] after b\nx", "line 1: shot 'a' begins after 'b', which is not before it"),
        ("[a] picture 2\nx", "line 1: shot 'a' wants picture 2; 1 is connected"),
        ("[a] six\nx", "line 1: shot 'a': 'six' is no option"),
        ("[a] 6,5 s\nx", "line 1: shot 'a': '6' is no option"),
        ("[a] 6 s, 7 s\nx", "line 1: shot 'a': '7 s' is its second length"),
        ("[a] cut, picture 1\nx", "line 1: shot 'a': 'picture 1' is its second beginning"),
        ("[a] speech\nA cat.", "line 1: shot 'a' is as long as its speech, and nobody speaks"),
        ("[a] 6 s\nBob: Hello.", "line 2: 'Bob' speaks in shot 'a' but is not among the speakers"),
        ("[a] 9 s\nx", "line 1: shot 'a' lasts 217 frames; the longest that was trained is 193"),
        ("[a\nx", "line 1: a shot begins with [name], and this bracket is not closed"),
        ("[a] 0:20-0:12\nx", "line 1: shot 'a': '0:20-0:12' ends before it begins"),
        ("[a] 0 s\nx", "line 1: shot 'a' has no length"),
        ("[a] 6 s", "line 1: shot 'a' says nothing of what is seen"),
        ("[a] 6 s\nscene:\nx", "line 2: scene is empty in shot 'a'"),
        ("[a] 6 s\nscene: x\nscene: y", "line 3: a second scene in shot 'a'"),
        ("Anna: tall\nAnna: small\n[a] 6 s\nx", "line 2: there are two speakers called 'Anna'"),
        ("Anna: tall\n[a] 6 s\nx\nAnna:", "line 4: Anna says nothing in shot 'a'"),
        (f"[a] 6 s, seed {2**64}\nx", "line 1: shot 'a': seed 18446744073709551616 is out of range"),
        ("[a] 6 s\nx\n[b] goes on, overlap 24, 2 s\ny", "line 3: shot 'b': overlap 24"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(MovaError) as caught:
        plan(parse_shots(text, GIVEN), 24.0, 0)
    assert message in str(caught.value)


def test_a_recording_that_is_not_connected_is_asked_for() -> None:
    with pytest.raises(MovaError, match="line 1: shot 'a': 'recording' is of the recording, and none is connected"):
        parse_shots("[a] recording\nx")


# --- a recording ------------------------------------------------------------------------------------------------------


def spoken(*pauses: float, seconds: float = 18.0, rate: int = 8000) -> Sound:
    """Noise with silences of 0.4 s about these moments."""
    wave = torch.randn(1, 1, int(seconds * rate), generator=torch.Generator().manual_seed(0)) * 0.1
    for at in pauses:
        wave[..., int((at - 0.2) * rate) : int((at + 0.2) * rate)] = 0
    return Sound(waveform=wave, rate=rate)


def test_a_recording_is_cut_at_its_pauses() -> None:
    found = stretches(spoken(5.0, 12.5), [8.0, 8.0, 8.0])
    assert [round(end, 0) for _, end in found[:-1]] == pytest.approx([5.0, 12.5], abs=0.6)
    assert found[0][0] == 0.0
    assert found[-1][1] == pytest.approx(18.0)
    assert all(end - start <= 8.05 for start, end in found)


def test_a_recording_without_pauses_is_cut_evenly() -> None:
    found = stretches(spoken(), [8.0, 8.0, 8.0])
    assert [end - start for start, end in found] == pytest.approx([6.0] * 3, abs=0.5)


def test_a_recording_that_is_too_long_is_refused() -> None:
    with pytest.raises(MovaError, match=r"lasts 18.0 s, and the 2 shots that share it hold 16.0 s at most"):
        stretches(spoken(), [8.0, 8.0])


def test_shots_that_share_a_recording_leave_nothing_out_and_double_nothing() -> None:
    sound = spoken(5.0, 12.5)
    text = "[a] recording\nx\n[b] goes on, recording\ny\n[c] recording\nz"
    planned = plan(parse_shots(text, Given(recording=sound)), 24.0, 0)
    heard = [each.heard() for each in planned]
    new = [
        part.waveform[..., round(each.held * sound.rate / 24) :]
        for each, part in zip(planned, heard)
        if part is not None
    ]
    whole = torch.cat(new, dim=-1)
    length = sound.waveform.shape[-1]
    assert whole.shape[-1] >= length - len(planned)
    assert (whole[..., : length // 2] - sound.waveform[..., : length // 2]).abs().max() < 1.0
    starts = [each.shot.recording.stretch for each in planned if each.shot.recording]
    assert [one[1] for one in starts[:-1]] == [other[0] for other in starts[1:]]
