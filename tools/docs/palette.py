"""The colours and shapes that the pack's pictures share, and where the documentation has them."""

from tools.comfy.find import REPOSITORY

IMAGES = REPOSITORY / "docs" / "images"

NIGHT, FRAME, SKY, HILL, SUN, SOUND = "#14171f", "#e9e6df", "#2f6f8f", "#1f4a44", "#f2b84b", "#ef6f53"
Box = tuple[float, float, float, float]  # left, top, right, bottom
