"""Readings of a clip: faces and loudness from what this ComfyUI has, the rest from the core."""
