"""Measurements of memory, work and time; `python benchmarks/run.py` prints and writes all that need no GPU."""
