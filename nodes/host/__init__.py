"""The only place that touches ComfyUI's internals.

A run, from the outside in:

mova_sampler    the settings of 'MOVA Sampler' -> a run; collapse_guard, audio_preview and profiling watch it
sampling        joint latents through ComfyUI's samplers; av_euler where the streams have two noise levels
guiders         guidance and bridge strength
every_run       what every run goes through, with whatever sampler: memory, caches, NaN, masks, the wrong expert
experts         two experts behind one MODEL: joined, split, changed at the boundary
model           MOVA as a BaseModel: latents, conditioning; settings is its configuration
diffusion       the joint model under ComfyUI's signature; bridge_cache keeps what the audio asks of the video
runtime         transformer_options -> mova_core Runtime; weights brings a layer's weights to where it computes

A MODEL:

patcher         an expert's ModelPatcher, and every way in which something reaches the second expert
foreign         what other packs put on a MODEL; namesakes binds it to the other expert's layers
lora_names      LoRA keys and the expert they name; lora applies files, devices copies to other cards
keys            every key by which host, core and ComfyUI talk, and the options of a run
loading         published folder or single files -> MODEL, VAE; attach takes an expert of another loader
text, audio     UMT5, and the DAC codec as a VAE

What is told: messages under a node, logs in a console, report for bugs, preflight before a run. newer asks for what not
every ComfyUI has.
"""
