"""What comes in from outside, checked once and brought to one form: numbers and words, pictures, sound, latents.

Each check gives back the value in the form that the rest of the package works with, or raises a MovaError that says
what came, what was wanted and what to do. The caller puts the input's name before it.
"""
