"""What this machine can do and did: memory, preflight, profiling and the bug report."""
