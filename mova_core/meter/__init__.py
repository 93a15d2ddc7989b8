"""What can be said of a finished clip from its pictures and its sound alone."""
