"""A film: the recipes of its shots, the graph that they come from, and their takes on disk."""
