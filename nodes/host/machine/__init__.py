"""What this machine can do and did: preflight, profiling and the bug report."""
