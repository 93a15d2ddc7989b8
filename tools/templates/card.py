"""Thumbnails of templates, drawn: what goes in, what comes out, the title in Chinese and English.

The top eighth holds nothing: there the page writes whether a template is a graph or an app.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from PIL import Image, ImageDraw, ImageFont

from tools.docs.palette import FRAME, HILL, NIGHT, SKY, SOUND, SUN, Box
from tools.templates.template import Card

CARD_SIZE, CARD_SMOOTH = 480, 2  # pixels; drawn so much larger, then scaled down
PAPER = "#f7f4ec"
GROUNDS = {
    "0": "#3a5a78",
    "1": "#5b4a78",
    "2": "#7a4a4a",
    "3": "#3f6b4f",
    "4": "#7a6232",
    "5": "#35696e",
    "6": "#6b3f63",
}
FONTS = ("wqy-microhei.ttc", "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc")  # that have Chinese letters
CARD_BARS = (0.35, 0.8, 0.5, 1.0, 0.62, 0.9, 0.28, 0.7, 0.45, 0.85, 0.3)

Draw = ImageDraw.ImageDraw


def inner(box: Box, left: float, top: float, right: float, bottom: float) -> Box:
    """A part of a box, in fractions of it."""
    x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
    return x + left * w, y + top * h, x + right * w, y + bottom * h


def landscape(draw: Draw, box: Box, phase: float = 2.2) -> None:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    draw.rectangle(box, fill=SKY)
    radius, x = 0.13 * height, left + (0.22 + 0.12 * (phase - 2.2)) * width
    draw.ellipse((x - radius, top + 0.2 * height, x + radius, top + 0.2 * height + 2 * radius), fill=SUN)
    line = [(left + s / 40 * width, bottom - height * (0.34 + 0.14 * math.sin(phase + s / 9))) for s in range(41)]
    draw.polygon([(left, bottom), *line, (right, bottom)], fill=HILL)


def picture(draw: Draw, box: Box) -> None:
    draw.rounded_rectangle(box, radius=8, fill=PAPER)
    landscape(draw, inner(box, 0.07, 0.09, 0.93, 0.91))


def words(draw: Draw, box: Box) -> None:
    draw.rounded_rectangle(box, radius=8, fill=PAPER)
    for row, width in enumerate((0.8, 0.62, 0.86, 0.5)):
        draw.rounded_rectangle(inner(box, 0.1, 0.16 + 0.19 * row, 0.1 + 0.82 * width, 0.26 + 0.19 * row), 4, fill=SKY)


def script(draw: Draw, box: Box) -> None:
    draw.rounded_rectangle(box, radius=8, fill=PAPER)
    for row in range(4):
        y = 0.14 + 0.19 * row
        draw.ellipse(inner(box, 0.08, y, 0.19, y + 0.13), fill=SOUND if row % 2 else SUN)
        draw.rounded_rectangle(inner(box, 0.26, y + 0.02, 0.9 - 0.12 * (row % 3), y + 0.11), 4, fill=SKY)


def speech(draw: Draw, box: Box) -> None:
    draw.rounded_rectangle(inner(box, 0, 0, 1, 0.76), radius=18, fill=PAPER)
    draw.polygon(
        [inner(box, 0.2, 0.7, 0, 0)[:2], inner(box, 0.48, 0.7, 0, 0)[:2], inner(box, 0.22, 1, 0, 0)[:2]], fill=PAPER
    )
    sound(draw, inner(box, 0.08, 0.12, 0.92, 0.64))


def sound(draw: Draw, box: Box, marked: range = range(0)) -> None:
    left, top, right, bottom = box
    pitch, middle = (right - left) / len(CARD_BARS), (top + bottom) / 2
    for number, tall in enumerate(CARD_BARS):
        x, reach = left + pitch * (number + 0.5), tall * (bottom - top) / 2
        bar = (x - 0.3 * pitch, middle - reach, x + 0.3 * pitch, middle + reach)
        draw.rounded_rectangle(bar, radius=0.3 * pitch, fill=SUN if number in marked else SOUND)


def file(draw: Draw, box: Box) -> None:
    body = inner(box, 0.14, 0, 0.86, 1)
    draw.rounded_rectangle(body, radius=8, fill=PAPER)
    for row, colour in enumerate((SUN, SOUND, SKY)):
        draw.rounded_rectangle(inner(body, 0.16, 0.16 + 0.26 * row, 0.84, 0.34 + 0.26 * row), 6, fill=colour)


def film(draw: Draw, box: Box, frames: int = 1, *, mute: bool = False, marked: range = range(0)) -> None:
    """A strip of frames with holes at its edges; below the pictures, their sound."""
    draw.rounded_rectangle(box, radius=14, fill=NIGHT)
    for hole in range(4 * frames + 4):
        x = (hole + 0.5) / (4 * frames + 4)
        for y in (0.03, 0.92):
            draw.rounded_rectangle(inner(box, x - 0.012, y, x + 0.012, y + 0.05), 3, fill=FRAME)
    low = 0.87 if mute else 0.62
    for number in range(frames):
        left, right = 0.03 + 0.94 * number / frames, 0.03 + 0.94 * (number + 1) / frames
        landscape(draw, inner(box, left + 0.005, 0.13, right - 0.005, low), 2.2 + 1.1 * number)
    if not mute:
        sound(draw, inner(box, 0.05, 0.66, 0.95, 0.88), marked)


def drafts(draw: Draw, box: Box) -> None:
    for x, y in ((0, 0), (0.52, 0), (0, 0.52), (0.52, 0.52)):
        film(draw, inner(box, x, y, x + 0.48, y + 0.48), mute=True)
    draw.rounded_rectangle(inner(box, 0.51, -0.02, 1.01, 0.5), radius=14, outline=SUN, width=8)


def tick(draw: Draw, box: Box) -> None:
    draw.ellipse(inner(box, 0.26, 0.05, 0.74, 0.95), fill="#4c9a6a")
    points = [inner(box, x, y, 0, 0)[:2] for x, y in ((0.36, 0.52), (0.46, 0.68), (0.65, 0.34))]
    draw.line(points, fill=PAPER, width=22, joint="curve")


GLYPHS: dict[str, Callable[[Draw, Box], None]] = {
    "picture": picture,
    "words": words,
    "script": script,
    "speech": speech,
    "sound": sound,
    "file": file,
    "clip": film,
    "silent": lambda draw, box: film(draw, box, mute=True),
    "long": lambda draw, box: film(draw, box, 3),
    "span": lambda draw, box: film(draw, box, marked=range(3, 6)),
    "large": film,
    "drafts": drafts,
    "check": tick,
}


def draw_card(card: Card, name: str, chinese: str) -> Image.Image:
    """The thumbnail of the template whose file is called `name`; its first digit gives the ground."""
    full = CARD_SIZE * CARD_SMOOTH
    image = Image.new("RGB", (full, full), GROUNDS.get(name[:1], "#444c5c"))
    draw = ImageDraw.Draw(image)
    turn = crc32(name.encode()) % 200
    for step in range(5):  # rings in the ground, at another place on each
        x, y, r = full * (0.15 + turn / 260), full * 0.12, full * (0.25 + 0.2 * step)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(255, 255, 255), width=1)
    title(draw, chinese, 68, (0.06 * full, 0.885 * full))
    title(draw, name.removesuffix(".app").lstrip("0123456789 "), 44, (0.06 * full, 0.957 * full))
    above = min(len(card.given), 4)
    made = (0.06 * full, (0.42 if above else 0.2) * full, 0.94 * full, (0.83 if above else 0.74) * full)
    width, gap = 0.26 * full if above > 2 else 0.32 * full, 0.05 * full
    if above == 4:
        width, gap = 0.2 * full, 0.03 * full
    left = (full - above * width - (above - 1) * gap) / 2
    for number, glyph in enumerate(card.given[:above]):
        x = left + number * (width + gap)
        GLYPHS[glyph](draw, (x, 0.125 * full, x + width, 0.34 * full))
    if above:
        draw.polygon([(0.45 * full, 0.355 * full), (0.55 * full, 0.355 * full), (0.5 * full, 0.405 * full)], fill=PAPER)
    if card.made == "large":
        draw.rounded_rectangle(inner(made, 0, 0, 1, 1), radius=16, outline=SUN, width=6)
        film(draw, inner(made, 0.02, 0.03, 0.98, 0.97))
        draw.rectangle(inner(made, 0.05, 0.42, 0.36, 0.62), outline=PAPER, width=6)
    else:
        GLYPHS[card.made](draw, made)
    if card.label:
        label(draw, card.label, (0.9 * full, 0.47 * full))
    return image.resize((CARD_SIZE, CARD_SIZE), Image.Resampling.LANCZOS)


def font(size: float) -> ImageFont.FreeTypeFont:
    """The first of FONTS that this machine has.

    Raises:
        OSError: it has none.
    """
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    raise OSError(f"no font with Chinese letters is installed (tried {', '.join(FONTS)}); install fonts-wqy-microhei")


def title(draw: Draw, text: str, size: float, middle: tuple[float, float]) -> None:
    draw.text(middle, text, font=font(size), fill=PAPER, anchor="lm")


def label(draw: Draw, text: str, corner: tuple[float, float]) -> None:
    """Letters on a tag, right and top at `corner`."""
    font = ImageFont.load_default(64)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x, y = corner[0] - (right - left) - 36, corner[1]
    draw.rounded_rectangle((x - 18, y, corner[0], y + bottom - top + 40), radius=18, fill=SUN)
    draw.text((x - left, y + 18 - top), text, font=font, fill=NIGHT)


def write_card(card: Card, name: str, chinese: str, path: Path) -> None:
    draw_card(card, name, chinese).save(path, quality=82, optimize=True)
