"""What is kept on disk so that no run is lost: joint latents, and how far a run has come."""
