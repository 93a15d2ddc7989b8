"""What is told of a run before it is run: arithmetic that can be checked by hand, and against the published figures."""

from dataclasses import replace

import pytest

from mova_core.config import MOVA
from mova_core.estimate import (
    CHUNKED,
    FULL,
    Throughput,
    Workload,
    block_work,
    choose,
    fit_throughput,
    forward_seconds,
    largest,
    longest,
    required,
    thinned,
    work,
)
from mova_core.model.sparse import Sparsity, attended_share
from mova_core.preflight import ClipPlan, Disk, Machine, format_duration, keeping, report, speedups, step_seconds
from mova_core.shapes import VideoShape, check_size, latent_frames

LAYER = 973_000_000
CLIP = VideoShape(batch=1, frames=193, height=352, width=640)
LARGE = VideoShape(batch=1, frames=193, height=720, width=1280)
CARD = Throughput(matrix=1 / 165.2e12, attention=1 / 165.2e12)  # everything at the rate of a 4090's datasheet
MACHINE = Machine(device="card", capacity=22e9, memory=64e9, link=25e9)
PLAN = ClipPlan(
    config=MOVA,
    shape=CLIP,
    fps=24.0,
    steps=50,
    evaluations=2,
    weights=36_740_000_000,
    layer=LAYER,
    element=2,
    rows=FULL,
    quantised=False,
)


def test_a_step_at_datasheet_rate_takes_the_published_floor() -> None:
    """33.5 and 370 s for two forwards on a 4090 at 165 TFLOP/s (../shared/performance.md, section 1.3)."""
    assert 2 * forward_seconds(MOVA, Workload.of(CLIP), CARD) == pytest.approx(33.5, rel=0.02)
    assert 2 * forward_seconds(MOVA, Workload.of(LARGE), CARD) == pytest.approx(370, rel=0.02)


def test_two_timings_give_back_the_speed_they_were_made_with() -> None:
    made = Throughput(matrix=7e-15, attention=3e-15)
    works = [block_work(MOVA.video, tokens) for tokens in (4096, 8192)]
    timings = [(done, made.matrix * done.matrix + made.attention * done.attention) for done in works]
    found = fit_throughput(*timings)
    assert found.matrix == pytest.approx(made.matrix)
    assert found.attention == pytest.approx(made.attention)


@pytest.mark.parametrize("long", [1.9, 9.0])
def test_noise_never_gives_a_negative_speed(long: float) -> None:
    few, many = (block_work(MOVA.video, tokens) for tokens in (1000, 2000))
    found = fit_throughput((few, 1.0), (many, long))
    assert found.matrix >= 0
    assert found.attention >= 0


def test_blocks_are_most_of_the_work() -> None:
    blocks = MOVA.video.layers * block_work(MOVA.video, Workload.of(CLIP).video).total
    assert 0.9 < blocks / work(MOVA, Workload.of(CLIP)).total < 1


def test_work_is_that_of_the_official_forward() -> None:
    assert work(MOVA, Workload.of(CLIP)).matrix / 1e12 == pytest.approx(1211.174, abs=0.001)
    assert work(MOVA, Workload.of(LARGE)).total / 1e12 == pytest.approx(30564.7, rel=1e-4)


def test_twice_the_clips_are_twice_the_work_and_time() -> None:
    one, two = Workload.of(CLIP), Workload.of(replace(CLIP, batch=2))
    assert work(MOVA, two).total == 2 * work(MOVA, one).total
    assert forward_seconds(MOVA, two, CARD) == 2 * forward_seconds(MOVA, one, CARD)


@pytest.mark.parametrize("rows", [FULL, CHUNKED])
@pytest.mark.parametrize("shape", [CLIP, LARGE])
def test_the_longest_clip_fits_and_the_next_one_does_not(shape: VideoShape, rows: object) -> None:
    frames = longest(MOVA, shape, 12e9, LAYER, rows)
    latent_frames(frames)
    for count, fits in ((frames, True), (frames + 4, False)):
        assert (required(MOVA, Workload.of(replace(shape, frames=count)), rows, LAYER) <= 12e9) is fits


def test_the_largest_picture_fits_and_keeps_its_proportions() -> None:
    width, height = largest(MOVA, CLIP, 12e9, LAYER, CHUNKED)
    check_size(width, height)
    assert width / height == pytest.approx(640 / 352, rel=0.03)
    assert required(MOVA, Workload.of(replace(CLIP, width=width, height=height)), CHUNKED, LAYER) <= 12e9


def test_where_nothing_fits_that_is_said() -> None:
    assert longest(MOVA, LARGE, 1e9, LAYER, CHUNKED) == 0
    assert largest(MOVA, LARGE, 1e9, LAYER, CHUNKED) == (0, 0)
    text = report(replace(PLAN, shape=LARGE), replace(MACHINE, capacity=1e9), None)
    assert "DOES NOT FIT" in text
    assert text.count("nothing of this size fits") == 2


@pytest.mark.parametrize(("capacity", "rows"), [(24e9, FULL), (11e9, CHUNKED)])
def test_the_normal_path_is_chosen_where_it_fits(capacity: float, rows: object) -> None:
    assert choose(MOVA, Workload.of(LARGE), capacity, LAYER) is rows


def test_a_slow_link_is_waited_for_and_a_fast_one_is_not() -> None:
    compute = step_seconds(PLAN, replace(MACHINE, link=None), CARD)
    assert step_seconds(PLAN, MACHINE, CARD) == compute
    assert step_seconds(PLAN, replace(MACHINE, link=1e9), CARD) == pytest.approx(2 * 36.74)
    assert step_seconds(PLAN, replace(MACHINE, link=1e9, capacity=80e9), CARD) == compute  # everything is resident


def test_sparse_attention_shortens_a_step_by_what_it_leaves_out() -> None:
    """2.77 PFLOP at 352x640 become 1.63, of whole groups of frames: 49 latent frames have a tail of one."""
    attended = attended_share(Sparsity(), 49)
    assert attended == pytest.approx(0.25 + 0.75 / 49)
    done = thinned(MOVA, Workload.of(CLIP), attended)
    assert done.total / 1e15 == pytest.approx(1.63, abs=0.03)
    text = report(replace(PLAN, attended=attended), MACHINE, CARD)
    assert "27% is computed" in text
    assert step_seconds(replace(PLAN, attended=attended), MACHINE, CARD) == pytest.approx(2 * done.total / 165.2e12)


def test_levers_are_told_best_first_and_only_where_they_help() -> None:
    names = [name for name, _ in speedups(PLAN, MACHINE, CARD)]
    assert names[0] == "97 frames" or names[0].startswith("cfg 1")
    assert {name.split(" ")[0] for name in names} == {"97", "cfg", "sage", "fp8"}
    large = dict(speedups(replace(PLAN, shape=LARGE), MACHINE, CARD))
    assert large["sage attention"] < large["fp8 weights with fp8 matrix products"]  # attention is 84 % of it
    assert "sage attention" not in dict(speedups(replace(PLAN, quantised=True), MACHINE, CARD))
    assert not any(name.startswith("cfg") for name, _ in speedups(replace(PLAN, evaluations=1), MACHINE, CARD))


def test_the_report_says_everything_asked_of_it() -> None:
    text = report(PLAN, MACHINE, CARD, decode=2e9)
    parts = [
        "193 frames of 640x352, 8.0 s",
        "43,120 video tokens, 403 audio tokens",
        "36.7 GB of weights",
        "fits whole",
    ]
    parts += ["up to", "s a step of 2 evaluations", "for 50 steps", "what would help most"]
    for part in parts:
        assert part in text
    assert "tile_size" in report(PLAN, MACHINE, None, decode=30e9)
    assert "s a step" not in report(PLAN, MACHINE, None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.44, "8.4 s"), (59.99, "1 min 00 s"), (345, "5 min 45 s"), (7620, "2 h 07 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "free", "said"),
    [
        (301.0, 1e9, "kept on its way, being over 5 min 00 s, in there (0.14 GB with euler, 1 GB free)"),
        (300.0, 1e9, "not kept on its way, being under 5 min 00 s, unless resume of the sampler is on; then in there"),
        (None, 1e9, "kept on its way where it takes over 5 min 00 s, in there"),
        (301.0, 1e8, "NOT kept on its way"),
        (None, 0.0, "NOT kept on its way"),
    ],
)
def test_whether_a_run_will_be_kept_and_where(seconds: float | None, free: float, said: str) -> None:
    assert keeping(Disk(folder="there", free=free, needed=0.14e9), seconds).startswith(said)


def test_the_report_ends_with_it() -> None:
    disk = Disk(folder="there", free=1e12, needed=0.14e9)
    assert report(PLAN, MACHINE, CARD, disk=disk).splitlines()[-1].startswith("kept on its way, being over")
    assert report(replace(PLAN, steps=1), MACHINE, CARD, disk=disk).splitlines()[-1].startswith("not kept")
