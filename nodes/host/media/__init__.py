"""Recordings in and clips out through PyAV, and sound at another rate."""
