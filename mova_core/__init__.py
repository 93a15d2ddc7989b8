"""MOVA in plain PyTorch: model, audio codec, schedule, checkpoints. No host, no device, no network.

errors        what a user, file or caller can get wrong
shapes        frames, latent frames, seconds, audio steps
config        sizes of every part, as data
ops           the seam: layers, attention, rotary embedding and prefetch a host may replace
model/        two towers and the bridge; `model/mova.py` is the joint forward on one screen
audio_vae/    waveform <-> audio latents
text          prompt cleaning and the fixed number of context rows
image         first frame -> condition
sampling/     schedule, guidance, the loop
checkpoint/   files, configurations, key tables, loading
"""
