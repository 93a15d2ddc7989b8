"""The only place that touches ComfyUI's internals.

sampling       a run, from the settings of a node to the LATENT
experts        two experts behind one MODEL, and what other packs put on it
model          MOVA as ComfyUI's model, and its weights where they compute
loaders        files -> MODEL, CLIP, VAE; loras puts LoRA files on a MODEL
runs           what of a run lies on disk; films and training stand on it
machine        memory, preflight, profiling, bug report; meters judge clips, media reads and writes them

keys           every key by which host, core and ComfyUI talk, and the options of a run; types their values
checks         what comes in through ComfyUI's own types
messages       text under a node; logs for consoles
newer          what not every ComfyUI has, asked for by name
"""
