"""What of a run lies on disk.

long_runs      a run kept on its way, and gone on with; ways are the three of going on
latent_store   joint latents in ComfyUI's folders
fingerprints   what a value is made of, as a hash
"""
