"""A film: shots, the takes of them on disk, and how they are put together."""
