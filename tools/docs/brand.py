"""Draw the pack's icon and banner: a film frame whose right half has turned into a waveform.

    python -m tools.docs.brand  # docs/images/icon.png (400 x 400) and docs/images/banner.png (1260 x 540, 21:9)

The registry wants a square icon of at most 400 pixels and a 21:9 banner; their web addresses go into pyproject.toml
under [tool.comfy] as Icon and Banner once the repository has a public one.
"""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from tools.docs.palette import FRAME, HILL, IMAGES, NIGHT, SKY, SOUND, SUN, Box

ICON, BANNER = (400, 400), (1260, 540)
BRAND_SMOOTH = 4  # drawn so much larger, then scaled down

BRAND_BARS = (0.62, 0.94, 0.45, 0.78, 0.30, 0.56, 0.18)  # heights of the waveform, of half the picture


def draw_frame(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """A film frame in a box: perforated edges, a landscape on the left, a waveform on the right."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    draw.rounded_rectangle(box, radius=0.07 * height, fill=FRAME)
    edge = 0.15 * height
    for number in range(6):
        x = left + width * (number + 0.5) / 6
        for y in (top + edge / 2, bottom - edge / 2):
            hole = (x - 0.042 * width, y - 0.034 * height, x + 0.042 * width, y + 0.034 * height)
            draw.rounded_rectangle(hole, radius=0.018 * height, fill=NIGHT)
    draw_picture(draw, (left + 0.05 * width, top + edge, right - 0.05 * width, bottom - edge))


def draw_picture(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """Sun and hills up to the middle, bars from there on."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    middle = left + 0.46 * width
    draw.rectangle((left, top, right, bottom), fill=NIGHT)
    draw.rectangle((left, top, middle, bottom), fill=SKY)
    sun_x, sun_y, radius = left + 0.19 * width, top + 0.32 * height, 0.12 * height
    draw.ellipse((sun_x - radius, sun_y - radius, sun_x + radius, sun_y + radius), fill=SUN)
    hills = [
        (left + x * (middle - left), bottom - height * (0.30 + 0.14 * math.sin(2.2 + 4.2 * x)))
        for x in (step / 60 for step in range(61))
    ]
    draw.polygon([(left, bottom), *hills, (middle, bottom)], fill=HILL)
    pitch = (right - middle) / (len(BRAND_BARS) + 0.5)
    for number, tall in enumerate(BRAND_BARS):
        x, reach = middle + pitch * (number + 0.75), tall * height * 0.46
        y = (top + bottom) / 2
        bar = (x - 0.29 * pitch, y - reach, x + 0.29 * pitch, y + reach)
        draw.rounded_rectangle(bar, radius=0.29 * pitch, fill=SOUND)


def icon() -> Image.Image:
    image, draw = _canvas(ICON)
    draw.rounded_rectangle((0, 0, image.width - 1, image.height - 1), radius=0.18 * image.width, fill=NIGHT)
    draw_frame(draw, _part(image, 0.08, 0.17, 0.92, 0.83))
    return image.resize(ICON, Image.Resampling.LANCZOS)


def banner() -> Image.Image:
    image, draw = _canvas(BANNER)
    draw.rectangle((0, 0, *image.size), fill=NIGHT)
    draw_frame(draw, _part(image, 0.06, 0.20, 0.46, 0.80))
    x, height = 0.51 * image.width, image.height
    draw.text((x, 0.30 * height), "MOVA Native", font=_font(0.135 * height), fill=FRAME)
    draw.text((x, 0.50 * height), "picture and sound in one pass", font=_font(0.062 * height), fill=SUN)
    draw.text((x, 0.59 * height), "native nodes for ComfyUI", font=_font(0.062 * height), fill=FRAME)
    return image.resize(BANNER, Image.Resampling.LANCZOS)


def _canvas(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (size[0] * BRAND_SMOOTH, size[1] * BRAND_SMOOTH), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _part(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Box:
    return left * image.width, top * image.height, right * image.width, bottom * image.height


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own, so the picture is the same on every machine


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, image in (("icon", icon()), ("banner", banner())):
        path = IMAGES / f"{name}.png"
        image.quantize(128).save(path, optimize=True)
        print(path, image.size, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
