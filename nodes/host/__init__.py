"""The only place that touches ComfyUI's internals. A package imports those below it, and the modules at the end:

films          a film's shots, graph and takes
training       LoRA training on ComfyUI's memory
sampling       a run, from the settings of a node to the LATENT
loaders        files -> MODEL, CLIP, VAE; loras puts LoRA files on a MODEL
experts        two experts behind one MODEL
machine        preflight, profiling, bug report
kept           latents on disk, and fingerprints of values
model          MOVA as ComfyUI's model, and its weights where they compute
patching       what is put on a MODEL, and how it reaches both experts
meters         readings of clips; media reads and writes recordings

checks         what comes in through ComfyUI's own types; joint_latents the LATENT of two streams
keys           every key by which host, core and ComfyUI talk, and the options of a run; types their values
listed         what ComfyUI lists of its model folders and does not open
messages       text under a node; logs for consoles
newer          what not every ComfyUI has, asked for by name
"""
