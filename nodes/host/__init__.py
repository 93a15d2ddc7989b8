"""The only place that touches ComfyUI's internals.

runtime   transformer_options -> mova_core Runtime: attention, rotary kernel, prefetch, block patches
weights   a layer's weights where it computes
model     MOVA as a BaseModel: latents, conditioning, schedules
experts   two ModelPatchers behind one MODEL, changing at the boundary
loading   published folder -> MODEL, CLIP, VAE, audio VAE
text      UMT5 from a folder; upstream's tokens for any umt5_xxl CLIP
audio     the DAC codec as a VAE
sampling  joint latents through ComfyUI's samplers
messages  text shown on a node
report    what a bug report says of this machine and a MODEL
profiling pace of a run, memory and time of a MODEL's last one
"""
