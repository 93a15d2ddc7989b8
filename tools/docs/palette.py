"""The colours and shapes that the pack's pictures share: icon, banner and thumbnails."""

NIGHT, FRAME, SKY, HILL, SUN, SOUND = "#14171f", "#e9e6df", "#2f6f8f", "#1f4a44", "#f2b84b", "#ef6f53"
Box = tuple[float, float, float, float]  # left, top, right, bottom
