"""What comes in from outside, brought to one form: the right numbers, not only no error."""

import collections
import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch

from mova_core.errors import MovaError, ShapeError
from mova_core.inputs.latents import check_batch_index, check_finite, check_fit, check_mask, check_masks, joint_streams
from mova_core.inputs.numbers import choice, real, switch, told, whole, words
from mova_core.inputs.pictures import pictures
from mova_core.inputs.sounds import Sound, of_clips, sound, spoiled_sound
from mova_core.inputs.tensors import check_dense, extent

LIGHT = torch.rand(2, 4, 6, 3, generator=torch.Generator().manual_seed(0))
WAVE = 0.5 * torch.rand(1, 2, 100, generator=torch.Generator().manual_seed(0)) - 0.25


def audio(waveform, rate=48000):
    return {"waveform": waveform, "sample_rate": rate}


# --- tensors ---------------------------------------------------------------------------------------------------------

NO_NUMBERS = {
    "meta": (lambda: torch.empty(1, 2, 100, device="meta"), "no numbers .device meta"),
    "sparse": (lambda: WAVE.to_sparse(), "sparse_coo tensor"),
    "quantised": (lambda: torch.quantize_per_tensor(WAVE, 0.01, 0, torch.qint8), "quantised tensor"),
    "nested": (lambda: torch.nested.nested_tensor([WAVE[0], WAVE[0, :1]]), "several tensors in one"),
    "claimed": (lambda: torch.zeros(1).expand(1, 2, 2**40), "would take 8.19e\\+03 GiB, and at most 64"),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors", "ignore:.*quantize_per")
@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize(
    "door", [pictures, lambda part: sound(audio(part)), lambda part: check_finite("the part", part)]
)
def test_a_tensor_that_holds_no_plain_numbers_is_refused_by_its_kind(kind, door):
    make, said = NO_NUMBERS[kind]
    part = make()
    with pytest.raises(ShapeError, match=said):
        door(part)


def test_an_expanded_tensor_is_looked_at_once_a_number_and_taken():
    part = torch.tensor([0.25, 0.5]).view(1, 2, 1).expand(2**20, 2, 2**11)
    assert extent(check_dense("the part", part)) == (0.25, 0.5)
    shown = LIGHT[:1].expand(5, -1, -1, -1)
    assert torch.equal(pictures(shown), shown)


def test_what_a_graph_still_hangs_on_comes_without_it():
    with torch.inference_mode(False), torch.enable_grad():
        light, wave = (part.clone().requires_grad_() * 1 for part in (LIGHT, WAVE))
    assert not pictures(light).requires_grad
    assert not sound(audio(wave)).waveform.requires_grad


# --- pictures --------------------------------------------------------------------------------------------------------


def test_right_pictures_come_through_as_they_are():
    assert pictures(LIGHT) is LIGHT or torch.equal(pictures(LIGHT), LIGHT)


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ((LIGHT * 255).round().to(torch.uint8), 255),
        ((LIGHT * 65535).round().to(torch.int32).to(torch.uint16), 65535),
        (LIGHT.half(), 1024),
        (LIGHT.double(), 2**20),
    ],
)
def test_pictures_of_any_depth_are_the_same_light(given, step):
    made = pictures(given)
    assert made.dtype == torch.float32
    assert (made - LIGHT).abs().max() <= 1 / step


def test_grey_is_the_same_in_all_three_channels():
    assert torch.equal(pictures(LIGHT[..., :1]), LIGHT[..., :1].repeat(1, 1, 1, 3))


@pytest.mark.parametrize("cover", [0.0, 0.25, 1.0])
def test_alpha_lies_over_white_and_is_said_once(cover, caplog):
    given = torch.cat((LIGHT, torch.full((2, 4, 6, 1), cover)), -1)
    with caplog.at_level("WARNING", "mova"):
        made = pictures(given)
    assert torch.allclose(made, cover * LIGHT + (1 - cover))
    assert [record.message for record in caplog.records] == ["pictures with alpha are laid over white"]


def test_an_overshoot_is_cut_and_what_is_more_is_said(caplog):
    assert torch.equal(pictures(LIGHT + 0.04), (LIGHT + 0.04).clamp(0, 1))
    assert not caplog.records
    assert torch.equal(pictures(3 * LIGHT), (3 * LIGHT).clamp(0, 1))
    assert "cut to 0..1" in caplog.text


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), -float("inf"), 255.0, 1e30])
def test_one_pixel_that_is_no_light_is_enough(spoil):
    given = LIGHT.clone()
    given[1, 2, 3, 1] = spoil
    with pytest.raises(ShapeError, match=r"must lie in 0\.\.1"):
        pictures(given)


@pytest.mark.parametrize(
    "shape", [(0, 4, 6, 3), (2, 0, 6, 3), (2, 4, 0, 3), (2, 4, 6, 0), (2, 4, 6, 2), (2, 4, 6, 5), (4, 6, 3)]
)
def test_pictures_of_another_shape_are_refused_with_it(shape):
    with pytest.raises(ShapeError, match=str(shape[0])):
        pictures(torch.zeros(shape))


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "full"), [(torch.int16, 32768), (torch.int32, 2147483648), (torch.int8, 128), (torch.uint8, 128)]
)
def test_whole_numbers_are_parts_of_full_scale(dtype, full):
    middle = 128 if dtype == torch.uint8 else 0
    made = sound(audio((WAVE.double() * full).round().add(middle).to(dtype)))
    assert made.waveform.dtype == torch.float32
    assert (made.waveform - WAVE).abs().max() <= 1 / full + 1e-7


@pytest.mark.parametrize("rate", [8000, 44100, 48000.0, 384000])
def test_a_whole_rate_is_taken_as_a_whole_number(rate):
    made = sound(audio(WAVE, rate))
    assert torch.equal(made.waveform, WAVE)
    assert (made.rate, type(made.rate)) == (int(rate), int)


@pytest.mark.parametrize(
    "rate",
    [0, -1, 7999, 384001, 44100.5, math.nan, math.inf, None, "48000", 1e300, 10**400, 1j],
)
def test_another_rate_is_refused_with_the_range(rate):
    with pytest.raises(ShapeError, match="8000 to 384000"):
        sound(audio(WAVE, rate))


@pytest.mark.parametrize("rate", [10**5000, torch.ones(2)], ids=["digits", "tensor"])
def test_a_rate_that_is_none_is_refused_however_it_is_written(rate):
    with pytest.raises(ShapeError, match="8000 to 384000"):
        sound(audio(WAVE, rate))


@pytest.mark.parametrize("given", [None, audio(WAVE[..., :0]), audio(WAVE[:0])])
def test_no_sound_is_none_where_silence_will_do_and_refused_where_not(given):
    assert sound(given, silence=True) is None
    with pytest.raises(MovaError, match="there is no sound"):
        sound(given)


@pytest.mark.parametrize("spoil", [math.nan, math.inf, 32767.0])
def test_one_sample_that_is_none_is_enough(spoil):
    given = WAVE.clone()
    given[0, 1, 50] = spoil
    with pytest.raises(ShapeError, match=r"must lie in -1\.\.1"):
        sound(audio(given))


@pytest.mark.parametrize("channels", [3, 4, 5, 7, 9, 100])
def test_channels_of_no_loudspeakers_are_refused(channels):
    with pytest.raises(ShapeError, match=f"{channels} channels"):
        sound(audio(WAVE[:, :1].repeat(1, channels, 1)))


class Late(Mapping):
    """An AUDIO whose file is read only when it is asked for, as video loaders give it."""

    def __init__(self, read):
        self.read = read

    def __getitem__(self, name):
        return self.read()[name]

    def __iter__(self):
        return iter(self.read())

    def __len__(self):
        return len(self.read())


def failing(words):
    def read():
        raise RuntimeError(words)

    return Late(read)


def test_a_sound_that_is_read_late_is_read():
    for given in (Late(lambda: audio(WAVE)), collections.UserDict(audio(WAVE)), collections.ChainMap(audio(WAVE))):
        assert torch.equal(sound(given).waveform, WAVE)
        assert torch.equal(spoiled_sound(given).waveform, WAVE)


def test_a_silent_video_that_is_read_late_is_silence_where_that_will_do():
    given = failing("failed to extract audio from a.mp4:\nOutput file does not contain any stream")
    assert sound(given, silence=True) is None
    for door in (sound, spoiled_sound):
        with pytest.raises(MovaError, match="a video without a sound track gives none"):
            door(given)


def test_a_sound_that_cannot_be_read_late_is_said_in_one_line():
    for door in (lambda given: sound(given, silence=True), sound, spoiled_sound):
        with pytest.raises(
            MovaError, match=r"read only now.*RuntimeError: moov atom not found.*'Load Audio'"
        ) as refusal:
            door(failing("moov atom\nnot found " + 500 * "x"))
        assert len(str(refusal.value)) < 400


def test_a_sound_of_many_hours_is_refused():
    with pytest.raises(ShapeError, match=r"5\.0 hours .* 4 at most"):
        sound(audio(torch.zeros(1).expand(1, 1, 5 * 3600 * 48000)))


def test_sounds_are_one_for_all_or_one_each():
    three = Sound(waveform=WAVE.repeat(3, 1, 1), rate=48000)
    assert of_clips(three, 3) is three
    for clips in (1, 2):
        with pytest.raises(ShapeError, match="3 sounds"):
            of_clips(three, clips)


# --- numbers and words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "wanted"), [(5, 5), (5.0, 5), (1, 1), (10, 10)])
def test_a_whole_number_in_range_is_taken(value, wanted):
    assert whole(value, 1, 10) == wanted


@pytest.mark.parametrize("value", [0, 11, 2.5, math.nan, math.inf, 1e300, 10**400, "5", None, True, [], torch.ones(1)])
def test_anything_else_is_no_whole_number_and_the_range_is_told(value):
    with pytest.raises(MovaError, match="from 1 to 10") as refusal:
        whole(value, 1, 10)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "value",
    [-0.1, 1.1, math.nan, math.inf, 1e300, 10**400, Fraction(10**400), "0.5", None, True, 1 + 1j],
)
def test_anything_else_is_no_number_and_the_range_is_told(value):
    with pytest.raises(MovaError, match=r"from 0\.0 to 1\.0"):
        real(value, 0.0, 1.0)


def test_the_largest_seed_is_exact():
    assert whole(2**64 - 1, 0, 2**64 - 1) == 2**64 - 1
    with pytest.raises(MovaError):
        whole(2**64, 0, 2**64 - 1)
    with pytest.raises(MovaError):
        whole(float(2**64), 0, 2**64 - 1)


def test_words_choices_and_switches():
    class Marked(str):
        __slots__ = ()

    assert type(words(Marked("a"))) is str
    assert type(choice(Marked("b"), ["a", "b"])) is str
    assert (words("a\nb"), choice("b", ["a", "b"]), switch(False)) == ("a\nb", "b", False)
    for check, value in ((words, "\ud83d"), (words, None), (switch, 1), (switch, "no")):
        with pytest.raises(MovaError):
            check(value)
    with pytest.raises(MovaError, match="a, b"):
        choice("c", ["a", "b"])


def test_whatever_it_is_is_told_in_a_line():
    for value in (
        None,
        "x" * 9999,
        "a\nb",
        -(10**5000),
        Fraction(10**5000),
        torch.zeros(1000),
        {"a": 1},
        object(),
    ):
        assert len(told(value)) < 80
        assert "\n" not in told(value)


# --- latents ---------------------------------------------------------------------------------------------------------


def test_streams_are_two_of_one_batch_with_something_in_them():
    video, heard = torch.zeros(2, 16, 3, 4, 4), torch.zeros(2, 8, 19)
    assert joint_streams([video, heard]) == (video, heard)
    with pytest.raises(ShapeError, match="5000 clips of 9 frames; 4096 clips of 16385"):
        joint_streams([video[:1].expand(5000, -1, -1, -1, -1), heard[:1].expand(5000, -1, -1)])
    for parts in ([video], [heard, video], [video, heard[:1]], [video, heard[..., :0]], [video[:, :, :0], heard], []):
        with pytest.raises(ShapeError, match="MOVA Image to Video"):
            joint_streams(parts)


@pytest.mark.parametrize("spoil", [math.nan, math.inf, -math.inf, 1e30])
def test_one_number_without_bound_is_named(spoil):
    part = torch.zeros(3, 3)
    check_finite("the sound", part)
    part[1, 1] = spoil
    with pytest.raises(ShapeError, match="the sound runs from"):
        check_finite("the sound", part)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (torch.zeros(1, 2, dtype=torch.int64), "int64"),
        (torch.zeros(1, 2, dtype=torch.bool), "bool"),
        (torch.zeros(1, 2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(0, 2), r"empty: its shape is \(0, 2\)"),
        (torch.full((1, 2), 255.0), "from 255 to 255"),
        (torch.tensor([[-1.0, 1.0]]), "from -1 to 1"),
        (torch.tensor([[0.0, math.nan]]), "nan"),
    ],
)
def test_a_mask_of_anything_but_shares_is_refused(part, said):
    with pytest.raises(ShapeError, match=f"the noise mask of this latent.*{said}"):
        check_mask(part)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([(1, 1, 3, 4, 4), (1, 1, 19), (1, 1, 19)], "of 3 streams, the latent of 2"),
        ([()], r"the picture is \(\)"),
        ([(19,)], r"the picture is \(19,\)"),
        ([(1, 1, 19), (1, 1, 3, 4, 4)], r"the sound is \(1, 1, 3, 4, 4\)"),
        ([(1, 1, 3, 4, 4), (19,)], r"the sound is \(19,\)"),
        ([(1, 17, 3, 4, 4)], r"for a latent of \(1, 16, 3, 4, 4\)"),
    ],
)
def test_a_mask_of_another_shape_is_refused(masks, said):
    streams = [torch.zeros(1, 16, 3, 4, 4), torch.zeros(1, 8, 19)]
    with pytest.raises(ShapeError, match=said):
        check_masks([torch.ones(shape) for shape in masks], streams)


@pytest.mark.parametrize("shape", [(4, 4), (3, 32, 32), (1, 1, 32, 32), (1, 1, 3, 4, 4), (2, 16, 3, 4, 4)])
def test_a_mask_that_samplers_bring_to_size_is_taken(shape):
    check_masks([torch.ones(shape)], [torch.zeros(1, 16, 3, 4, 4), torch.zeros(1, 8, 19)])


def test_a_mask_of_shares_is_taken():
    for part in (torch.zeros(1, 2), torch.ones(2, 1, 3).half(), torch.tensor([[-1e-3, 0.4, 1.003]])):
        check_mask(part)


@pytest.mark.parametrize(
    "index", [[], [0], [0, 1, 2], [0, -1], [0, 0.5], [0, "1"], [0, 10**9], [0, None], "01", 2, {0, 1}]
)
def test_a_batch_index_of_another_batch_is_refused(index):
    with pytest.raises(ShapeError, match=r"batch_index of this latent is .* for 2 clips"):
        check_batch_index(index, 2)


def test_a_batch_index_is_one_number_a_clip():
    for index in ([0, 1], (5, 5), torch.tensor([3, 4095])):
        check_batch_index(index, 2)


def test_a_latent_fits_a_conditioning_of_its_size_and_length():
    video = (1, 16, 3, 6, 10)
    check_fit(video, 19, video, 19)
    check_fit(video, 7, video)
    with pytest.raises(ShapeError, match="9 frames of 80x48, its conditioning was made for 13 of 80x48"):
        check_fit(video, 19, (1, 16, 4, 6, 10))
    with pytest.raises(ShapeError, match=r"19 steps, .* 20"):
        check_fit(video, 19, video, 20)
