"""The two video experts by name: what they are called here, and the folder of a published model that holds each."""

from typing import Literal

Expert = Literal["high", "low"]
EXPERTS: dict[Expert, str] = {"high": "video_dit", "low": "video_dit_2"}  # of the first steps, of the last
