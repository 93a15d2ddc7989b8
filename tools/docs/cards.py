"""The README's table of graphics cards, from mova_core's own estimates: `python -m tools.docs.cards` writes it.

A card's memory is taken less RESERVE, which desktop and driver have; weights are streamed, two layers at a time.
"""

from __future__ import annotations

from mova_core.config import MOVA
from mova_core.estimate import Work, Workload, choose, kept_keys_values, longest, recipe_work, required, work
from mova_core.preflight import GIB
from mova_core.sampling.fast import recipe_of
from mova_core.shapes import VideoShape
from tools.comfy.find import REPOSITORY
from tools.docs.between import between

README = REPOSITORY / "README.md"
CARDS_BEGIN, CARDS_END = "<!-- cards: tools/docs/cards.py writes this -->", "<!-- end of cards -->"
CARDS = (8, 12, 16, 24)  # GB on the box, which are GiB
RESERVE = 1.0  # GiB
LAYER = round(0.9 * GIB)  # one expert's in bf16, with its layer of the bridge: docs/speed.md
SIZES = {"640x352": (352, 640), "1280x720": (720, 1280)}
FRAMES, FULL_STEPS = 193, 50  # of the trained clip, of full quality
QUALITIES = ("light", "standard", "high")
RATE = 165e12  # operations a second of an RTX 4090 in bf16, by its vendor


def shape(size: str) -> VideoShape:
    height, width = SIZES[size]
    return VideoShape(batch=1, frames=FRAMES, height=height, width=width)


def load(size: str) -> Workload:
    return Workload.of(shape(size))


def memory(size: str, card: float) -> str:
    """Whether a clip of eight seconds fits, with what the forward needs; else what does."""
    capacity = (card - RESERVE) * GIB
    rows = choose(MOVA, load(size), capacity, LAYER)
    need = required(MOVA, load(size), rows, LAYER)
    if need <= capacity:
        return f"8 s, {need / GIB:.1f} GiB"
    frames = longest(MOVA, shape(size), capacity, LAYER, rows)
    return f"{frames / 24:.1f} s ({frames} frames); 8 s need {need / GIB:.1f} GiB"


def full(size: str) -> Work:
    forward = work(MOVA, load(size))
    return Work(matrix=2 * FULL_STEPS * forward.matrix, attention=2 * FULL_STEPS * forward.attention)


def share(size: str, quality: str) -> float:
    return recipe_work(MOVA, load(size), recipe_of(quality, 8)).total / full(size).total


def minutes(operations: float) -> str:
    time = operations / RATE / 60
    return f"{time:.1f} min" if time < 10 else f"{time:.0f} min" if time < 90 else f"{time / 60:.1f} h"


def table() -> str:
    """Memory by card, then time by quality, in Markdown."""
    rows = ["| card | 640x352 | 1280x720 |", "|---|---|---|"]
    rows += [f"| {card} GB | {memory('640x352', card)} | {memory('1280x720', card)} |" for card in CARDS]
    kept = [f"{kept_keys_values(MOVA, load(size)) / GIB:.1f}" for size in SIZES]
    rows += ["", "| quality | work | 640x352 on an RTX 4090 | 1280x720 on an RTX 4090 |", "|---|---|---|---|"]
    for quality in QUALITIES:
        part = share("640x352", quality)
        times = [minutes(share(size, quality) * full(size).total) for size in SIZES]
        rows.append(f"| *MOVA Fast Sampler*, {quality} | {part:.0%} | {times[0]} | {times[1]} |")
    rows.append(f"| *MOVA Sampler*, {FULL_STEPS} steps | 100% | {' | '.join(minutes(full(s).total) for s in SIZES)} |")
    return "\n".join(
        [
            *rows,
            "",
            f"The fast qualities keep up to {kept[0]} and {kept[1]} GiB more for the sound, on the card or in RAM.",
        ]
    )


def with_table(text: str) -> str:
    return between(text, table(), CARDS_BEGIN, CARDS_END)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
