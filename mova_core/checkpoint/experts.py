"""The two video experts by name: what they are called here, and the folder of a published model that holds each."""

from ..sampling.schedule import Expert

EXPERT_FOLDERS: dict[Expert, str] = {"high": "video_dit", "low": "video_dit_2"}  # of the first steps, of the last
